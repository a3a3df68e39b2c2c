"""Limits of accounts: what counts, what is refused, and two rules at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, InvalidInput, NotAllowed, NotFound
from arriero.registry.schema.tables import account_usage_history, locks, replicas, rules
from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import dids as did_table
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services import account_limits, accounts, rule_approval, rule_moves
from arriero.registry.services import account_usage as usage
from arriero.registry.services import rules as rule_service
from arriero.registry.services.context import Context
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.settings import Settings
from arriero.registry.states import LockState, Role, RuleGrouping, RuleState
from arriero.rse.errors import InvalidExpression
from support.database import counted_statements
from support.in_process import InProcess


@pytest.fixture
def site(catalogue) -> InProcess:
    return furnished(catalogue)


def furnished(catalogue: InProcess) -> InProcess:
    """Three RSEs, five files of 1000 bytes, three in a dataset `d`, two in `e`, all in the container `c`."""
    catalogue.account("alice")
    catalogue.scope("raw", owner="alice")
    for name in ("A", "B", "C"):
        catalogue.rse(name)
    catalogue.files("C", ["1", "2", "3", "4", "5"])
    catalogue.dataset("d", ["1", "2", "3"])
    catalogue.dataset("e", ["4", "5"])
    catalogue.container("c", ["d", "e"])
    return catalogue


def limit(site: InProcess, rse: str, size: int) -> None:
    account_limits.set_local_limit(site.context, site.root, "alice", rse, size)


def limit_all(site: InProcess, expression: str, size: int) -> None:
    account_limits.set_global_limit(site.context, site.root, "alice", expression, size)


def add_rule(site: InProcess, name: str, expression: str, copies: int = 1, **options):
    alice = site.actor("alice", Role.DATA_MANAGER)
    spec = RuleSpec(expression, copies, **options)
    return rule_service.add_rules(site.context, alice, spec, [("raw", name)])[0]


def placed(site: InProcess, uuid, rse: str) -> None:
    """Lock every file of a rule at an RSE, as an evaluation does."""
    with site.database.transaction() as connection:
        rule = connection.execute(select(rules).where(rules.c.uuid == uuid)).one()
        rse_id = connection.scalar(select(rse_table.c.id).where(rse_table.c.name == rse))
        name = connection.scalar(select(did_table.c.name).where(did_table.c.id == rule.did_id))
        files = {"d": "123", "e": "45", "c": "12345"}.get(name, name)
        for file in connection.execute(select(did_table).where(did_table.c.name.in_(list(files)))):
            connection.execute(
                locks.insert().values(
                    rule_id=rule.id, file_id=file.id, rse_id=rse_id, bytes=file.bytes, state=LockState.OK
                )
            )
        connection.execute(update(rules).where(rules.c.id == rule.id).values(state=RuleState.OK))


def local(site: InProcess, rse: str) -> tuple[int, int]:
    [row] = usage.list_local_usage(site.context, "alice", rse)
    return row["files"], row["bytes"]


def test_an_account_without_limits_is_measured_in_one_statement(site):
    with counted_statements(site.database) as statements:
        add_rule(site, "d", "A")
    assert not [one for one in statements if "account_limits" in one and "EXISTS" not in one]
    assert len([one for one in statements if "EXISTS" in one and "account_limits" in one]) == 1


def test_a_file_counts_once_at_each_rse_however_many_rules_hold_it(site):
    for name in ("d", "1", "c"):
        placed(site, add_rule(site, name, "A"), "A")
    placed(site, add_rule(site, "d", "B"), "B")
    assert local(site, "A") == (5, 5000)
    assert local(site, "B") == (3, 3000)
    assert local(site, "C") == (0, 0)
    assert [row["rse"] for row in usage.list_local_usage(site.context, "alice")] == ["A", "B"]
    limit_all(site, "A|B", 10_000)
    [both] = usage.list_global_usage(site.context, "alice")
    assert (both["files"], both["bytes"], both["bytes_remaining"]) == (8, 8000, 2000)
    assert list(usage.list_local_usage(site.context, "root")) == []


def test_a_rule_that_does_not_fit_is_refused_with_what_is_left(site):
    limit(site, "A", 2999)
    before = site.snapshot_of(rules)
    with pytest.raises(
        Conflict, match=r"alice has no room for 1 copies of raw:d \(3000 bytes\).*A 2999"
    ) as told:
        add_rule(site, "d", "A")
    assert told.value.rucio_class == "InsufficientAccountLimit"
    assert site.snapshot_of(rules) == before
    add_rule(site, "d", "A|B")
    add_rule(site, "e", "A")


def test_only_bytes_that_are_not_locked_yet_count(site):
    limit(site, "A", 3500)
    placed(site, add_rule(site, "d", "A"), "A")
    add_rule(site, "1", "A")
    add_rule(site, "d", "A|B", copies=1)
    with pytest.raises(Conflict):
        add_rule(site, "c", "A")
    limit(site, "A", 5000)
    add_rule(site, "c", "A")


def test_rules_that_are_not_placed_yet_count(site):
    limit(site, "A", 4000)
    uuid = add_rule(site, "d", "A")
    with pytest.raises(Conflict, match="A 1000"):
        add_rule(site, "e", "A")
    placed(site, uuid, "A")
    with pytest.raises(Conflict, match="A 1000"):
        add_rule(site, "e", "A")
    limit(site, "A", 5000)
    add_rule(site, "e", "A")


def test_several_rules_of_one_call_count_together(site):
    limit(site, "A", 4000)
    alice = site.actor("alice", Role.DATA_MANAGER)
    with pytest.raises(Conflict, match="raw:e"):
        rule_service.add_rules(site.context, alice, RuleSpec("A", 1), [("raw", "d"), ("raw", "e")])
    assert site.count(rules) == 0


def test_a_container_may_be_divided_and_a_dataset_may_not(site):
    limit(site, "A", 3000)
    limit(site, "B", 2000)
    for grouping, fits in ((RuleGrouping.ALL, False), (RuleGrouping.DATASET, True)):
        if fits:
            add_rule(site, "c", "A|B", grouping=grouping)
        else:
            with pytest.raises(Conflict):
                add_rule(site, "c", "A|B", grouping=grouping)
    limit(site, "A", 1000)
    limit(site, "B", 2000)
    with pytest.raises(Conflict):
        add_rule(site, "d", "A|B", grouping=RuleGrouping.DATASET)


def test_global_limits(site):
    limit_all(site, "A|B", 5999)
    with pytest.raises(Conflict, match=r"A\|B 5999"):
        add_rule(site, "d", "A|B", copies=2)
    add_rule(site, "d", "A|B")
    with pytest.raises(Conflict, match=r"A\|B 2999"):
        add_rule(site, "d", "A")
    add_rule(site, "d", "A|C")
    account_limits.delete_global_limit(site.context, site.root, "alice", "A|B")
    add_rule(site, "d", "A")


def test_minus_one_is_no_limit(site):
    limit(site, "A", -1)
    limit_all(site, "A", -1)
    add_rule(site, "d", "A")
    assert account_limits.get_local_limit(site.context, "alice", "A") == -1
    assert account_limits.get_local_limit(site.context, "alice", "B") is None


def test_who_asks_for_approval_is_not_measured_and_who_ignores_limits_has_to_be_allowed(site):
    limit(site, "A", 0)
    add_rule(site, "d", "A", ask_approval=True)
    with pytest.raises(NotAllowed, match="rule ignore limit"):
        add_rule(site, "e", "A", ignore_account_limit=True)
    spec = RuleSpec("A", 1, account="alice", ignore_account_limit=True)
    rule_service.add_rules(site.context, site.root, spec, [("raw", "e")])
    with pytest.raises(Conflict):
        rule_service.add_rules(site.context, site.root, RuleSpec("A", 1, account="alice"), [("raw", "c")])


def test_what_was_approved_is_over_its_limit_and_stays_so_only_where_it_is(site):
    limit(site, "A", 0)
    limit(site, "B", 0)
    uuid = add_rule(site, "d", "A", ask_approval=True)
    rule_approval.decide_rule(site.context, site.root, uuid.hex, approve=True)
    [row] = site.rows(select(rules.c.ignore_account_limit).where(rules.c.uuid == uuid))
    assert row["ignore_account_limit"] is True
    alice = site.actor("alice", Role.DATA_MANAGER)
    with pytest.raises(Conflict, match="no room"):
        rule_moves.move_rule(site.context, alice, uuid.hex, "B", {})
    limit(site, "B", 3000)
    moved = rule_moves.move_rule(site.context, alice, uuid.hex, "B", {})
    [row] = site.rows(select(rules.c.ignore_account_limit).where(rules.c.uuid == moved))
    assert row["ignore_account_limit"] is False


def test_an_expression_that_no_longer_names_anything_limits_nothing(site):
    from arriero.registry.services import rse_attributes

    rse_attributes.set_attribute(site.context, site.root, "A", "tier", "1")
    limit_all(site, "tier=1", 0)
    with pytest.raises(Conflict):
        add_rule(site, "d", "A")
    rse_attributes.delete_attribute(site.context, site.root, "A", "tier")
    add_rule(site, "d", "A")
    [row] = usage.list_global_usage(site.context, "alice")
    assert (row["rse_expression"], row["bytes"]) == ("tier=1", 0)


def test_the_number_of_statements_does_not_grow(site):
    limit(site, "A", 10**9)
    limit_all(site, "A|B", 10**9)
    with counted_statements(site.database) as few:
        add_rule(site, "1", "A")
    for name in ("2", "3", "4"):
        add_rule(site, name, "A")
    alice = site.actor("alice", Role.DATA_MANAGER)
    with counted_statements(site.database) as many:
        rule_service.add_rules(
            site.context, alice, RuleSpec("B", 1), [("raw", name) for name in ("1", "2", "3", "c", "d")]
        )
    assert len(many) <= len(few) + 1


def test_refusals(site):
    context, root = site.context, site.root
    with pytest.raises(NotFound, match="nobody"):
        account_limits.set_local_limit(context, root, "nobody", "A", 1)
    with pytest.raises(NotFound, match="NOWHERE"):
        account_limits.set_local_limit(context, root, "alice", "NOWHERE", 1)
    with pytest.raises(InvalidExpression):
        account_limits.set_global_limit(context, root, "alice", "NOWHERE", 1)
    with pytest.raises(InvalidInput):
        account_limits.set_global_limit(context, root, "alice", "A|" * 501 + "A", 1)
    with pytest.raises(NotAllowed):
        account_limits.set_local_limit(context, site.actor("alice", Role.DATA_MANAGER), "alice", "A", 1)
    account_limits.delete_local_limit(context, root, "alice", "A")
    assert [row["detail"] for row in site.audited(action="account_limit_set")] == [
        {"rse": "A", "limit": None}
    ]


def test_history_is_written_once_an_interval_and_tells_when_nothing_is_left(site):
    placed(site, add_rule(site, "d", "A"), "A")
    hourly, at_once = (
        Context(site.database, Settings(account_usage_interval_s=seconds), site.doorbell)
        for seconds in (3600, 1e-6)
    )
    assert usage.record_account_usage(hourly) == 1
    assert usage.record_account_usage(hourly) == 0
    with site.database.transaction() as connection:
        connection.execute(locks.delete())
    assert usage.record_account_usage(at_once) == 1
    assert usage.record_account_usage(at_once) == 0
    history = usage.usage_history(site.context, "alice", "A")
    assert [(row["files"], row["bytes"]) for row in history] == [(3, 3000), (0, 0)]
    assert history[0]["updated_at"] < history[1]["updated_at"]
    with site.database.transaction() as connection:
        first = select(account_usage_history.c.at).order_by(account_usage_history.c.at).limit(1)
        oldest = connection.scalar(first)
        connection.execute(
            update(account_usage_history)
            .where(account_usage_history.c.at == oldest)
            .values(at=oldest.replace(year=oldest.year - 3))
        )
    placed(site, add_rule(site, "e", "B"), "B")
    assert usage.record_account_usage(at_once) == 1
    assert len(usage.usage_history(site.context, "alice", "A")) == 1


def test_an_account_with_rules_is_not_deleted(site):
    add_rule(site, "d", "A")
    with pytest.raises(Conflict, match="remove them first"):
        accounts.delete_account(site.context, site.root, "alice")


@pytest.fixture
def busy_site(postgresql_catalogue) -> InProcess:
    return furnished(postgresql_catalogue)


def test_of_two_rules_at_once_that_do_not_both_fit_one_is_refused(busy_site):
    """On PostgreSQL: without the account's lock both would measure before the other is seen."""
    limit(busy_site, "A", 4000)
    start = threading.Barrier(2)

    def add(name: str) -> bool:
        start.wait(timeout=10)
        try:
            add_rule(busy_site, name, "A")
        except Conflict:
            return False
        return True

    for _ in range(5):
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(add, ("d", "e"))) == [False, True]
        with busy_site.database.transaction() as connection:
            busy_site_rules = connection.execute(select(rules.c.id)).all()
            assert len(busy_site_rules) == 1
        from arriero.registry.services import rule_removal

        for uuid in [row["uuid"] for row in busy_site.rows(select(rules))]:
            rule_removal.remove_rule(busy_site.context, busy_site.root, uuid.hex, now=True)


def test_a_rule_and_the_end_of_its_account_at_once(busy_site):
    start = threading.Barrier(2)

    def add() -> bool:
        start.wait(timeout=10)
        try:
            add_rule(busy_site, "d", "A")
        except NotFound:
            return False
        return True

    def delete() -> bool:
        start.wait(timeout=10)
        try:
            accounts.delete_account(busy_site.context, busy_site.root, "alice")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        added, deleted = pool.submit(add), pool.submit(delete)
        assert added.result() is not deleted.result()
    [gone] = busy_site.rows(select(account_table.c.deleted_at).where(account_table.c.name == "alice"))
    assert (gone["deleted_at"] is None) is (busy_site.count(rules) == 1)
    assert busy_site.count(replicas) == 5
