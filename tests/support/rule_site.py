"""Three RSEs, a dataset of two files, and short words for rules on it, in the test's own process."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from arriero.registry.schema.tables import (
    dataset_locks,
    dids,
    evaluations,
    locks,
    replicas,
    requests,
    rule_history,
    rules,
)
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import (
    add_rules,
)
from arriero.registry.states import LockState, ReplicaState, RequestState

SLAC, IN2P3, LANCS = "SLAC_RAW_DISK", "IN2P3_RAW_DISK", "LANCS_RAW_DISK"
TABLES = (rules, rule_history, evaluations)


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    for name in (SLAC, IN2P3, LANCS):
        catalogue.rse(name, site=name.split("_")[0])
    catalogue.files(SLAC, ["a", "b", "c"])
    catalogue.dataset("d", ["a", "b"])
    catalogue.doorbell.rung.clear()
    return catalogue


def add(site, expression: str = IN2P3, copies: int = 1, *, on: str = "d", actor=None, **options):
    spec = RuleSpec(expression, copies, **options)
    return add_rules(site.context, actor or site.root, spec, [("raw", on)])[0]


def place(
    site, uuid, *, state=LockState.OK, rse: str = IN2P3, names=("a", "b"), request: bool = False
) -> None:
    """Do by hand what an evaluation does."""
    with site.database.transaction() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        group_id = connection.scalar(select(rules.c.did_id).where(rules.c.uuid == uuid))
        rse_id = {SLAC: 1, IN2P3: 2, LANCS: 3}[rse]
        for name in names:
            file_id = connection.scalar(select(dids.c.id).where(dids.c.name == name))
            key = {"file_id": file_id, "rse_id": rse_id}
            connection.execute(locks.insert().values(rule_id=rule_id, bytes=1000, state=state, **key))
            if not connection.execute(select(replicas).filter_by(**key)).first():
                replica = ReplicaState.AVAILABLE if state is LockState.OK else ReplicaState.COPYING
                connection.execute(replicas.insert().values(bytes=1000, state=replica, **key))
                if request:
                    connection.execute(
                        requests.insert().values(
                            file_id=file_id,
                            destination_id=rse_id,
                            rule_id=rule_id,
                            bytes=1000,
                            activity="x",
                            priority=3,
                            state=RequestState.QUEUED,
                        )
                    )
        connection.execute(dataset_locks.insert().values(rule_id=rule_id, group_id=group_id, rse_id=rse_id))
        count = rules.c[f"locks_{state.value.lower()}"]
        connection.execute(
            rules.update().where(rules.c.id == rule_id).values({count.name: count + len(names)})
        )
