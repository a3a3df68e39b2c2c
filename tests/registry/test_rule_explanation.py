"""`GET /rules/{id}/explain`: which RSEs and why, what files wait for, until when, and what can be done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.database import Database
from arriero.registry.errors import NotFound
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    account_limits,
    accounts,
    evaluation_items,
    evaluations,
    locks,
    request_history,
    requests,
    rse_attributes,
    rules,
    unplaced_groups,
)
from arriero.registry.states import EvaluationItem, RuleGrouping, RuleState
from support.database import counted_statements
from support.explained import (
    AT_IN2P3,
    CLOSED,
    FILES,
    FULL,
    GOOD,
    IN2P3,
    LANCS,
    LIGHT,
    SIZE,
    SLAC,
    Explained,
)
from support.server import running_registry


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, services, tmp_path_factory) -> Iterator[Explained]:
    with running_registry(services, request.param, tmp_path_factory.mktemp("explained")) as running:
        yield Explained(running)


@pytest.fixture
def explained(world) -> Explained:
    world.lay()
    return world


def waits_of(told) -> dict[str, object]:
    return {wait.code: wait for wait in told.waits}


def test_the_rule_in_a_line(explained):
    told = explained.explain()
    rule = told.rule
    assert (rule.id, rule.scope, rule.name, rule.account) == (explained.rule_id, "raw", "c", "root")
    assert (rule.state, rule.code, rule.copies, rule.rse_expression) == (
        "STUCK",
        "not_enough_rses",
        1,
        "tier=2",
    )
    waiting = FILES["copying"] + FILES["queued"] + FILES["failing"] + FILES["announced"]
    stuck = FILES["lacking"] + FILES["broken"]
    assert (rule.locks_ok, rule.locks_replicating, rule.locks_stuck) == (FILES["ok"], waiting, stuck)
    assert rule.bytes_left == SIZE * (waiting + stuck)


def test_the_numbers_add_up(explained):
    told = explained.explain()
    rule = told.rule
    assert sum(one.files for one in told.rses) == rule.locks_ok + rule.locks_replicating + rule.locks_stuck
    for state in ("ok", "replicating", "stuck"):
        assert sum(getattr(one, f"{state}_files") for one in told.rses) == getattr(rule, f"locks_{state}")
    for state in ("REPLICATING", "STUCK"):
        files = sum(wait.files for wait in told.waits if wait.state == state)
        assert files == getattr(rule, f"locks_{state.lower()}")
    assert sum(wait.bytes for wait in told.waits) == rule.bytes_left
    assert (told.waits_left_out, told.files_left_out) == (0, 0)


def test_why_each_rse_was_chosen_or_dropped(explained):
    rses = {one.rse: one for one in explained.explain().rses}
    assert {name for name, one in rses.items() if one.chosen} == {IN2P3, LANCS}
    assert rses[IN2P3].reason == "raw:d1: IN2P3 (w=3)"
    assert (rses[IN2P3].groups, rses[IN2P3].trouble) == (1, None)
    dropped = {name: one.code for name, one in rses.items() if not one.chosen}
    assert dropped == {CLOSED: "blocked", FULL: "full", LIGHT: "no_weight", GOOD: None}
    assert rses[LIGHT].reason == "has no attribute 'w'"
    assert rses[GOOD].reason == "others came first (w=3)"


def test_what_has_become_of_an_rse_that_was_chosen(explained):
    explained.client.update_rse(IN2P3, {"availability_write": False})
    with explained.database.transaction() as tx:
        tx.execute(
            rse_attributes.delete().where(
                rse_attributes.c.rse_id == explained.rses[LANCS], rse_attributes.c.key == "tier"
            )
        )
    told = explained.explain()
    rses = {one.rse: one for one in told.rses}
    assert (rses[IN2P3].code, rses[IN2P3].trouble) == ("blocked", "is blocked for writing")
    assert rses[LANCS].trouble == "the rule's expression does not name it any more"
    advice = {one.code: one for one in told.advice}
    assert advice["blocked"].about == f"{IN2P3}, {CLOSED}"
    assert advice["blocked"].commands == [f"arriero rse resume {IN2P3} --write"]
    waits = sorted((one.code, one.files, one.next_attempt_at) for one in told.waits if one.rse == IN2P3)
    assert waits == [("announced", 1, None), ("blocked", 2, None), ("blocked", 5, None), ("copying", 3, None)]
    [failed] = [one.sentence for one in told.waits if one.code == "blocked" and one.files == 2]
    assert failed.startswith(f"{IN2P3} is closed for writing since 20")
    assert failed.endswith(" UTC by root; before that: has failed and is tried again: no answer in 60 s")


def test_an_account_over_its_limit(explained):
    with explained.database.transaction() as tx:
        root = tx.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
        limit = {"account_id": root, "rse_id": explained.rses[GOOD], "bytes": 0}
        tx.execute(insert(account_limits).values(**limit))
    told = explained.explain()
    rses = {one.rse: one for one in told.rses}
    assert rses[GOOD].code == "over_quota"
    assert f"rucio account limit set root --rse {GOOD} --bytes BYTES" in {
        command for one in told.advice for command in one.commands
    }
    with explained.database.transaction() as tx:
        tx.execute(update(rules).values(ignore_account_limit=True))
    assert {one.rse: one for one in explained.explain().rses}[GOOD].code is None


def test_groups_without_a_place(explained):
    told = explained.explain()
    [one] = told.unplaced
    assert (one.code, one.groups, one.example.name) == ("not_enough_rses", 1, "d3")
    assert 595 < (told.now - one.since).total_seconds() < 700
    assert "1 copies are wanted" in one.reason


def test_what_files_wait_for(explained):
    told = explained.explain()
    waits = waits_of(told)
    assert {code: wait.files for code, wait in waits.items()} == {
        "copying": FILES["copying"],
        "queued": FILES["queued"],
        "timed_out": FILES["failing"],
        "announced": FILES["announced"],
        "no_source": FILES["lacking"],
        "checksum_mismatch": FILES["broken"],
    }
    assert [wait.files for wait in told.waits] == sorted((wait.files for wait in told.waits), reverse=True)

    copying = waits["copying"]
    assert (copying.rse, copying.source, copying.request_state) == (IN2P3, SLAC, "SUBMITTED")
    assert copying.example.lease_until > told.now
    assert copying.example.name == "copying/000"

    queued = waits["queued"]
    assert (queued.source, queued.attempts, queued.request_state) == (None, 0, "QUEUED")
    assert queued.since < told.now

    failing = waits["timed_out"]
    assert (failing.source, failing.attempts) == (SLAC, 3)
    assert 290 < (failing.next_attempt_at - told.now).total_seconds() < 301
    assert failing.sentence == "has failed and is tried again: no answer in 60 s"
    assert failing.example.last_error == "no answer in 60 s"
    assert failing.example.last_source == SLAC
    assert failing.example.next_attempt_at == failing.next_attempt_at

    lacking = waits["no_source"]
    assert (lacking.rse, lacking.state, lacking.request_state) == (LANCS, "STUCK", None)
    assert lacking.sentence == "no RSE holds an AVAILABLE replica"

    broken = waits["checksum_mismatch"]
    assert (broken.request_state, broken.attempts, broken.example.attempt) == ("FAILED", 8, 8)
    assert broken.example.next_attempt_at is None


def test_the_last_attempt_of_a_copy_whose_request_has_gone(explained):
    with explained.database.transaction() as tx:
        tx.execute(requests.delete().where(requests.c.code == "checksum_mismatch"))
        file_id = tx.scalar(select(locks.c.file_id).where(locks.c.code == "checksum_mismatch"))
        row = {
            "request_id": 7,
            "file_id": file_id,
            "destination_id": explained.rses[LANCS],
            "state": "FAILED",
            "bytes": SIZE,
        }
        for attempt, source in ((1, GOOD), (2, SLAC)):
            last = {"attempt": attempt, "source_id": explained.rses[source], "reason": f"attempt {attempt}"}
            tx.execute(insert(request_history).values(**row, **last, created_at=after(0)))
    example = waits_of(explained.explain())["checksum_mismatch"].example
    assert (example.attempt, example.last_source, example.last_error) == (2, SLAC, "attempt 2")


def test_the_time_to_the_end(explained):
    ending = explained.explain().ending
    [link] = ending.links
    assert (link.source, link.destination, link.running) == (SLAC, IN2P3, FILES["copying"])
    left = FILES["copying"] + FILES["queued"] + FILES["failing"]
    assert (link.files, link.bytes) == (left, left * SIZE)
    assert (link.rate, link.basis, link.window_s, link.copies_measured) == (500.0, "link", 3600, 10)
    # ten files of 2 s, three at once, are done long before what has failed begins again
    assert 292 < ending.eta_s < 303
    assert (ending.at - explained.explain().now).total_seconds() < 303
    assert "3 copies at once" in ending.reason
    assert "3 locks that are stuck are not in it" in ending.reason
    assert "1 groups without a place are not in it" in ending.reason


def test_time_by_what_went_to_the_destination_and_within_the_day(explained):
    with explained.database.transaction() as tx:
        tx.execute(request_history.delete())
        tx.execute(update(requests).values(not_before=after(0)))
        explained.copied(tx, GOOD, IN2P3, copies=2, size=100, seconds=1.0, ago_s=7200)
        explained.copied(tx, GOOD, IN2P3, copies=2, size=100, seconds=0.1, ago_s=2 * 86400)
    [link] = explained.explain().ending.links
    assert (link.basis, link.rate, link.window_s, link.copies_measured) == ("destination", 100.0, 86400, 2)
    assert link.eta_s == pytest.approx(link.bytes / 100.0 / 3)


def test_time_that_nobody_knows(explained):
    with explained.database.transaction() as tx:
        tx.execute(request_history.delete())
    ending = explained.explain().ending
    assert (ending.eta_s, ending.at) == (None, None)
    assert [(link.basis, link.rate, link.eta_s) for link in ending.links] == [("unknown", None, None)]
    assert f"nothing has been copied to {IN2P3} for a day" in ending.reason


def test_when_it_is_looked_at_again(explained):
    told = explained.explain()
    assert told.next_look.state == "later"
    assert 3500 < (told.next_look.at - told.now).total_seconds() <= 3600
    assert told.next_look.items_left == {"STUCK": 1}
    with explained.database.transaction() as tx:
        items = [
            {"rule_id": explained.key, "kind": EvaluationItem.FILE, "did_id": number} for number in (1, 2)
        ]
        tx.execute(insert(evaluation_items), items)
        tx.execute(update(evaluations).values(not_before=after(-100)))
    told = explained.explain()
    assert (told.next_look.state, told.next_look.items_left) == ("due", {"FILE": 2, "STUCK": 1})
    assert "evaluation_overdue" in {one.code for one in told.advice}
    assert "what has not been looked at yet is not in it" in told.ending.reason
    with explained.database.transaction() as tx:
        tx.execute(update(evaluations).values(lease_owner="w1", lease_until=after(30)))
    told = explained.explain()
    assert told.next_look.state == "now"
    assert "evaluation_overdue" not in {one.code for one in told.advice}
    with explained.database.transaction() as tx:
        tx.execute(evaluations.delete())
    assert explained.explain().next_look.state == "none"


def test_advice_names_the_thing_and_the_command(explained):
    told = explained.explain()
    advice = {one.code: one for one in told.advice}
    assert {"no_source", "checksum_mismatch", "timed_out", "announced", "not_enough_rses"} <= set(advice)
    assert {"blocked", "full", "no_weight"} <= set(advice)
    assert "copying" not in advice
    assert advice["no_source"].about == f"2 files at {LANCS}"
    assert advice["no_source"].commands[0] == "arriero replica list file raw:lacking/000 --all-states"
    assert advice["no_weight"].commands == [f"arriero rse attribute set {LIGHT} --key w --value NUMBER"]
    assert f"arriero rule move {explained.rule_id} --rses EXPRESSION" in advice["not_enough_rses"].commands


@pytest.mark.parametrize(
    ("state", "code", "advised", "command"),
    [
        (RuleState.WAITING_APPROVAL, None, "waiting_approval", "arriero rule approve"),
        (RuleState.SUSPENDED, None, "suspended", "arriero rule resume"),
        (RuleState.SUSPENDED, "by_hand", "by_hand", "arriero rule resume"),
    ],
)
def test_rules_that_rest(explained, state, code, advised, command):
    with explained.database.transaction() as tx:
        tx.execute(update(rules).values(state=state, code=code))
    first = explained.explain().advice[0]
    assert (first.code, first.about) == (advised, "the rule")
    assert first.commands[0] == f"{command} {explained.rule_id}"


def test_an_expression_that_names_nothing_any_more(explained):
    with explained.database.transaction() as tx:
        tx.execute(update(rules).values(rse_expression="tier=9"))
    told = explained.explain()
    assert told.fault.startswith("RSE expression: ")
    assert {one.rse for one in told.rses} == {IN2P3, LANCS}
    assert {one.trouble for one in told.rses} == {None}
    assert "empty_rse_expression" in {one.code for one in told.advice}


def test_a_rule_by_file_tells_shares(explained):
    with explained.database.transaction() as tx:
        tx.execute(update(rules).values(grouping=RuleGrouping.NONE))
        tx.execute(unplaced_groups.delete())
        tx.exec_driver_sql("DELETE FROM dataset_locks")
    reasons = {one.rse: one.reason for one in explained.explain().rses if one.chosen}
    files = sum(FILES[fate] for fate in AT_IN2P3)
    share = round(100 * files / (sum(FILES.values()) - FILES["homeless"]))
    assert reasons[IN2P3] == f"{share}% of the locks: 1 of the RSEs for each file, by w"


def test_a_new_rule_and_one_that_is_ok(registry):
    client = registry.client()
    client.add_rse("A")
    client.add_scope("root", "raw")
    client.add_replicas("A", [{"scope": "raw", "name": "f", "bytes": 5, "adler32": "0000002a"}])
    [rule_id] = client.add_replication_rule([{"scope": "raw", "name": "f"}], 1, "A")
    told = client.explain_replication_rule(rule_id)
    assert (told.rule.state, told.next_look.state, told.next_look.items_left) == (
        "INJECT",
        "due",
        {"FILE": 1},
    )
    assert [(one.rse, one.chosen, one.reason) for one in told.rses] == [("A", False, "can be chosen")]
    assert told.ending.eta_s is None
    assert (
        told.ending.reason
        == "nothing is being copied or waits to be; what has not been looked at yet is not in it"
    )
    with registry.database.transaction() as tx:
        tx.execute(update(rules).values(state=RuleState.OK))
        tx.execute(evaluation_items.delete())
    ending = client.explain_replication_rule(rule_id).ending
    assert (ending.eta_s, ending.reason) == (0.0, "everything is there")


def test_a_rule_that_is_not_there(world):
    for rule_id in ("0" * 32, "nonsense"):
        with pytest.raises(NotFound):
            world.client.explain_replication_rule(rule_id)


def test_many_reasons_are_cut_short_and_counted(explained):
    with explained.database.transaction() as tx:
        rows = tx.execute(select(locks.c.file_id).where(locks.c.state == "STUCK")).all()
        pattern = [
            {
                "rule_id": explained.key,
                "file_id": row.file_id,
                "rse_id": 1000 + number,
                "bytes": 1,
                "state": "STUCK",
                "code": "no_source",
            }
            for number in range(60)
            for row in rows[:1]
        ]
        tx.execute(insert(locks), pattern)
    told = explained.explain()
    assert len(told.waits) == 50
    assert told.waits_left_out == 60 + 6 - 50
    assert (
        sum(wait.files for wait in told.waits) + told.files_left_out
        == sum(count for fate, count in FILES.items() if fate not in {"ok", "homeless"}) + 60
    )
    assert len(told.advice) < 15


def test_it_is_of_one_moment(explained, monkeypatch):
    """Copies that end while it is being told change nothing in it."""
    store = "arriero.registry.store.rule_explanation"
    from arriero.registry.store import rule_explanation

    true_sums = rule_explanation.lock_sums

    def late(connection, rule_id):
        other = Database(str(explained.database.engine.url.render_as_string(hide_password=False)))
        with other.transaction() as tx:
            tx.execute(update(locks).where(locks.c.state == "REPLICATING").values(state="OK"))
        other.dispose()
        return true_sums(connection, rule_id)

    monkeypatch.setattr(f"{store}.lock_sums", late)
    told = explained.explain()
    assert sum(one.replicating_files for one in told.rses) == told.rule.locks_replicating > 0


def test_the_statements_do_not_depend_on_the_files(explained):
    with counted_statements(explained.database) as before:
        explained.explain()
    with explained.database.transaction() as tx:
        first = tx.execute(select(locks).where(locks.c.state == "STUCK").limit(1)).mappings().one()
        tx.execute(insert(locks), [{**first, "file_id": 10**6 + number} for number in range(2000)])
    with counted_statements(explained.database) as now_:
        explained.explain()
    assert len(now_) == len(before)
