"""The system under the state machine: its services, in this process. It speaks names, as the model does.

What people do goes through the services or the client; what workers do is done here, step by step; `look` reads the
tables, since no interface tells of everything at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, insert, select, update

from arriero.registry.errors import Conflict
from arriero.registry.schema.base import after, metadata
from arriero.registry.schema.tables import (
    accounts,
    contents,
    dataset_locks,
    dids,
    evaluations,
    locks,
    replicas,
    requests,
    rse_attributes,
    rses,
    rules,
)
from arriero.registry.services import (
    bad_replicas,
    rse_protocols,
    rule_approval,
    rule_changes,
    rule_moves,
    rule_removal,
)
from arriero.registry.services import (
    contents as content_services,
)
from arriero.registry.services import (
    dids as did_services,
)
from arriero.registry.services import (
    replicas as replica_services,
)
from arriero.registry.services import (
    rse_attributes as attribute_services,
)
from arriero.registry.services import (
    rses as rse_services,
)
from arriero.registry.services import (
    rules as rule_services,
)
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.erasure import erase_expired_collections
from arriero.registry.services.losses import sweep_losses
from arriero.registry.services.new_replicas import NewReplica
from arriero.registry.services.replica_lifetimes import expire_announced
from arriero.registry.services.resting_rules import ALWAYS, compact_resting
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.stuck_rules import suspend_stuck_rules
from arriero.registry.states import (
    BadReplicaState,
    LockState,
    ReplicaState,
    RequestState,
    Role,
    RuleGrouping,
)
from arriero.rse.errors import AlreadyExists, RSEError, Unavailable
from arriero.scheduler.claim import ClaimedRequest, claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.plan import PlannedCopy
from arriero.scheduler.reports import Transfer, failure, success
from arriero.scheduler.settle import settle
from arriero.scheduler.sweeps import sweep_arrivals, sweep_evaluations, sweep_requests
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from scheduler.model.judge import Seen, SeenRule
from scheduler.model.reference import Key, Model, Rule
from support.in_process import DOMAINS

SCOPE = "raw"
KEPT = frozenset({"accounts", "scopes", "rses", "rse_protocols", "alembic_version"})
"""Tables that all examples of one test share, beside those of logins."""

ADLER32 = "0000002a"
SETTINGS: dict[str, Any] = {"transfer_max_attempts": 2, "stuck_retry_s": 7200.0}


class Services:
    """The services in this process, on one database that is emptied for each example.

    Parameters
    ----------
    context
        Of a registry whose account root is there.
    """

    def __init__(self, context: Context) -> None:
        self.database = context.database
        self.context = replace(context, settings=context.settings.model_copy(update=SETTINGS))
        with self.database.snapshot() as connection:
            account_id = connection.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
        assert account_id is not None
        self.root = Actor(account_id, "root", Role.ADMIN, request_id="model")
        self.held: list[ClaimedRequest] = []
        self._names: dict[int, str] = {}
        self._rses: dict[int, str] = {}

    # -- the stage --

    def begin(self, sites: Mapping[str, Mapping[str, str]]) -> None:
        """Empty everything, and have RSEs with their attributes."""
        self.held = []
        with self.database.transaction() as tx:
            for table in reversed(metadata.sorted_tables):
                if table.name not in KEPT and not table.name.startswith(("identit", "account_", "token")):
                    tx.execute(delete(table))
            there = {row.name: row.id for row in tx.execute(select(rses.c.id, rses.c.name))}
            tx.execute(update(rses).values(availability_read=True, availability_write=True))
        for name in sites.keys() - there.keys():
            rse_services.add_rse(self.context, self.root, name, {})
            protocol = {"hostname": "dav.example.org", "port": 1094, "prefix": f"/{name}", "domains": DOMAINS}
            rse_protocols.add_protocol(self.context, self.root, name, "davs", protocol)
        with self.database.transaction() as tx:
            self._rses = {row.id: row.name for row in tx.execute(select(rses.c.id, rses.c.name))}
            told = [
                {"rse_id": rse_id, "key": key, "value": value}
                for rse_id, name in self._rses.items()
                for key, value in {"lfn2pfn_algorithm": "identity", **sites[name]}.items()
            ]
            tx.execute(insert(rse_attributes), told)

    # -- what people do --

    def add_files(self, rse: str, files: Iterable[str]) -> None:
        new = [NewReplica(SCOPE, name, bytes=Model.size(name), adler32=ADLER32) for name in files]
        replica_services.add_replicas(self.context, self.root, rse, new)

    def add_collection(self, name: str, kind: str) -> None:
        new = did_services.NewCollection(SCOPE, name, kind)
        did_services.add_collections(self.context, self.root, [new])

    def attach(self, parent: str, children: Sequence[str]) -> None:
        held = [content_services.Child(SCOPE, child) for child in children]
        content_services.attach(self.context, self.root, [content_services.Attachment(SCOPE, parent, held)])

    def detach(self, parent: str, children: Sequence[str]) -> None:
        held = [content_services.Child(SCOPE, child) for child in children]
        content_services.detach(self.context, self.root, SCOPE, parent, held)

    def set_open(self, name: str, *, is_open: bool) -> None:
        did_services.set_status(self.context, self.root, SCOPE, name, is_open=is_open)

    def add_rule(self, rule: Rule) -> str:
        spec = RuleSpec(
            rule.expression,
            rule.copies,
            grouping=RuleGrouping(rule.grouping),
            priority=rule.priority,
            source_replica_expression=rule.sources,
            ignore_availability=rule.ignore_availability,
            ask_approval=rule.state == "WAITING_APPROVAL",
        )
        return rule_services.add_rules(self.context, self.root, spec, [(SCOPE, rule.did)])[0].hex

    def remove_rule(self, rule_id: str) -> None:
        rule_removal.remove_rule(self.context, self.root, rule_id, now=True)

    def update_rule(self, rule_id: str, **options: Any) -> None:
        rule_changes.update_rule(self.context, self.root, rule_id, options)

    def decide(self, rule_id: str, *, approve: bool) -> None:
        rule_approval.decide_rule(self.context, self.root, rule_id, approve=approve)

    def move(self, rule_id: str, expression: str) -> str:
        return rule_moves.move_rule(self.context, self.root, rule_id, expression, {}).hex

    def block(self, rse: str, what: str, *, is_open: bool) -> None:
        rse_services.update_rse(self.context, self.root, rse, {f"availability_{what}": is_open})

    def set_attribute(self, rse: str, key: str, value: str) -> None:
        attribute_services.set_attribute(self.context, self.root, rse, key, value)

    def declare(self, key: Key, state: str) -> None:
        file, rse = key
        if state != "BAD":
            change = replica_services.StateChange(SCOPE, file, ReplicaState(state))
            replica_services.update_states(self.context, self.root, rse, [change])
            return
        said = bad_replicas.Declaration(BadReplicaState.BAD, "checked by hand")
        refused(bad_replicas.declare(self.context, self.root, [bad_replicas.Named(SCOPE, file, rse)], said))

    # -- what time and workers do --

    def expire(self, collection: str) -> None:
        with self.database.transaction() as tx:
            tx.execute(update(dids).where(dids.c.name == collection).values(expired_at=after(-1)))

    def evaluate(self, *, chunk_files: int = 20_000, looks: int | None = None) -> int:
        """Evaluate what is due, in chunks, for so many transactions at most."""
        settings = self.context.settings.model_copy(update={"evaluation_chunk_files": chunk_files})
        left = [-1 if looks is None else looks]

        def stopping() -> bool:
            left[0] -= 1
            return left[0] == -1

        return Evaluator(replace(self.context, settings=settings), stopping=stopping).run()

    def transfer(self, faults: Mapping[Key, str], note: Callable[[Key, bool], None]) -> int:
        """Copy what is due; copies end as ``faults`` say, and are told of."""

        def script(copy: PlannedCopy) -> RSEError | None:
            key = (self._names[copy.request.file_id], self._rses[copy.request.destination_id])
            fault = faults.get(key)
            note(key, fault is None)  # the machine forgets what fails once
            if fault is None:
                return None
            said = f"{key[0]} at {key[1]}"
            return AlreadyExists(f"another {said}") if fault == "permanent" else Unavailable(f"no {said}")

        return TransferRunner(self.context, make_mover=lambda: ScriptedMover(script)).run().claimed

    def begin_copies(self, limit: int) -> None:
        """Take copies that do not end yet."""
        self.held += self.database.run(lambda tx: claim_requests(tx, "a worker", limit=limit, lease_s=3600))

    def end_copies(self, note: Callable[[Key, bool], None], *, succeed: bool) -> int:
        """End those copies."""
        reports = []
        for one in self.held:
            note((self._names[one.file_id], self._rses[one.destination_id]), succeed)
            reports.append(
                success(one, Transfer(mode="scripted"))
                if succeed
                else failure(one, self.context.settings, "unavailable", "it broke", retryable=True)
            )
        self.held = []
        settle(self.database, reports, stuck_retry_s=self.context.settings.stuck_retry_s)
        return len(reports)

    def sweeps(self) -> Mapping[str, Callable[[], Any]]:
        """Every sweep by what it is about, to be called one after the other."""
        context = self.context
        return {
            "evaluations": lambda: sweep_evaluations(context),
            "requests": lambda: sweep_requests(context),
            "arrivals": lambda: sweep_arrivals(context),
            "replaced": lambda: rule_moves.release_parents(context),
            "rules": lambda: rule_removal.remove_expired_rules(context),
            "collections": lambda: erase_expired_collections(context),
            "replicas": lambda: bad_replicas.end_unavailability(context),
            "announced": lambda: expire_announced(context),
            "losses": lambda: sweep_losses(context),
            "fruitless": lambda: suspend_stuck_rules(context),
            "resting": lambda: compact_resting(context, spare=ALWAYS),
        }

    def make_due(self, *, stuck: bool = False) -> None:
        """Let the time pass that retries wait for; with ``stuck``, also that of what is STUCK."""
        waits = [] if stuck else [evaluations.c.code == "interrupted"]
        with self.database.transaction() as tx:
            tx.execute(
                update(requests).where(requests.c.state == RequestState.QUEUED).values(not_before=after(-1))
            )
            tx.execute(update(evaluations).where(*waits).values(not_before=after(-1)))
            if stuck:
                long_ago = after(-self.context.settings.stuck_retry_s - 1)
                tx.execute(update(replicas).values(updated_at=long_ago))
                if "retry_at" in evaluations.c:
                    tx.execute(update(evaluations).values(retry_at=after(-1)))

    # -- what there is --

    def look(self) -> Seen:
        """Read everything in one snapshot."""
        with self.database.snapshot() as tx:
            known = tx.execute(select(dids.c.id, dids.c.name, dids.c.type, dids.c.is_open)).all()
            name = self._names = {row.id: row.name for row in known}
            rse = self._rses
            rows = tx.execute(select(rules)).all()
            rule = {row.id: row.uuid.hex for row in rows}
            held: dict[str, dict[Key, tuple[str, str | None]]] = {}
            for row in tx.execute(select(locks)):
                key = (name[row.file_id], rse[row.rse_id])
                held.setdefault(rule[row.rule_id], {})[key] = (row.state.value, row.code)
            placed: dict[str, dict[str, frozenset[str]]] = {}
            for row in tx.execute(select(dataset_locks)):
                groups = placed.setdefault(rule[row.rule_id], {})
                groups[name[row.group_id]] = groups.get(name[row.group_id], frozenset()) | {rse[row.rse_id]}
            there = {
                (name[row.file_id], rse[row.rse_id]): (row.state.value, row.tombstone is not None)
                for row in tx.execute(select(replicas))
            }
            wanted = {
                (name[row.file_id], rse[row.destination_id]): (row.state.value, row.priority)
                for row in tx.execute(select(requests))
            }
            pairs = frozenset(
                (name[row.parent_id], name[row.child_id]) for row in tx.execute(select(contents))
            )
        return Seen(
            dids={row.name: (row.type.value, row.is_open) for row in known},
            contents=pairs,
            rules={
                row.uuid.hex: SeenRule(
                    state=row.state.value,
                    code=row.code,
                    reason=row.reason,
                    counts={state.value: getattr(row, f"locks_{state.value.lower()}") for state in LockState},
                    priority=row.priority,
                    child=rule.get(row.child_rule_id),
                )
                for row in rows
            },
            locks=held,
            places=placed,
            replicas=there,
            requests=wanted,
        )

    def check_told(self, seen: Seen) -> None:
        """Verify that what the interface tells is what there is."""


def refused(failures: Mapping[str, Any]) -> None:
    """Have what was not declared be an error, as all else is that is refused."""
    if failures:
        raise Conflict(f"not declared: {failures}")
