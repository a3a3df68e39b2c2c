"""What may go at once: fairness, shares, limits, slots, RSEs that are down. With a mover that moves nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import func, select

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import link_totals, links, rse_health, transfer_limits
from arriero.registry.states import BreakerState, RequestState, RuleState, TransferDirection
from arriero.rse.errors import ChecksumMismatch, Unavailable
from arriero.scheduler import lanes
from arriero.scheduler.claim import claim_requests, fair_part
from arriero.scheduler.core.sources import BUSY
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.traffic import load_traffic
from arriero.scheduler.transfer import TransferRunner
from support.scheduling import Catalogue, requests, rses


@pytest.fixture
def sites(catalogue):
    return catalogue.rse("SLAC"), catalogue.rse("IN2P3")


def wanted(
    catalogue: Catalogue, name: str, count: int, source: int, expression: str = "IN2P3", **rule
) -> int:
    files = catalogue.files(count, prefix=name, at=[source])
    added = catalogue.rule(catalogue.collection(name, children=files), expression, **rule)
    Evaluator(catalogue.context).run()
    return added


def claimed(catalogue: Catalogue, limit: int, **shares: float) -> Counter[int]:
    """Claim as a worker does; give how many of each rule."""

    def work(tx):
        traffic = load_traffic(tx, load_rses(tx), shares)
        taken = claim_requests(tx, "w", limit=limit, lease_s=30, traffic=traffic)
        ids = [one.id for one in taken]
        return Counter(tx.scalars(select(requests.c.rule_id).where(requests.c.id.in_(ids))))

    return catalogue.database.run(work)


def runner(catalogue: Catalogue, mover: ScriptedMover, **settings) -> TransferRunner:
    changed = catalogue.context.settings.model_copy(update=settings)
    context = type(catalogue.context)(catalogue.database, changed, catalogue.bells)
    return TransferRunner(context, make_mover=lambda: mover)


def test_a_small_rule_is_not_behind_a_large_one(catalogue, sites):
    large = wanted(catalogue, "large", 200, sites[0])
    small = wanted(catalogue, "small", 5, sites[0])
    assert claimed(catalogue, 10) == {large: 5, small: 5}


def test_what_is_left_is_shared_by_those_who_copy(catalogue, sites):
    wanted(catalogue, "night", 200, sites[0])

    def part(owner: str, most: int = 1000) -> int:
        return catalogue.database.run(lambda tx: fair_part(tx, owner, most))

    assert (part("one"), part("one", most=20)) == (50, 20)
    for owner in ("one", "two", "three"):
        catalogue.database.run(lambda tx, owner=owner: claim_requests(tx, owner, limit=20, lease_s=30))
    assert part("one") == 24, "half of a third of 140"
    assert part("four") == 18


def test_activities_get_their_shares(catalogue, sites):
    express = wanted(catalogue, "e", 100, sites[0], activity="Express")
    others = wanted(catalogue, "o", 100, sites[0], activity="User")
    assert claimed(catalogue, 40, Express=3.0) == {express: 30, others: 10}


def test_what_is_more_urgent_comes_first_and_leaves_the_rest_to_others(catalogue, sites):
    common = wanted(catalogue, "c", 50, sites[0])
    urgent = wanted(catalogue, "u", 10, sites[0], priority=5)
    assert claimed(catalogue, 30) == {urgent: 10, common: 20}


def test_all_lanes_have_their_turn_however_many_there_are(catalogue, sites, monkeypatch):
    monkeypatch.setattr(lanes, "MOST", 4)
    rules = {wanted(catalogue, f"d{number}", 2, sites[0]) for number in range(9)}
    seen: Counter[int] = Counter()
    beyond, rounds = None, 0
    while rounds == 0 or beyond is not None:
        with catalogue.database.snapshot() as connection:
            found, beyond = lanes.find_lanes(connection, beyond=beyond)
        seen.update(lane.rule_id for lane in found)
        rounds += 1
    assert seen == dict.fromkeys(rules, 1)
    mover = ScriptedMover()
    assert runner(catalogue, mover).run().done == 18


def test_an_rse_that_is_blocked_for_writing_gets_nothing_and_no_attempt_is_spent(catalogue, sites):
    rule = wanted(catalogue, "night", 20, sites[0])
    with catalogue.database.transaction() as tx:
        tx.execute(rses.update().where(rses.c.id == sites[1]).values(availability_write=False))
    assert runner(catalogue, ScriptedMover()).run().claimed == 0
    assert set(catalogue.rows(select(requests.c.state, requests.c.attempt))) == {(RequestState.QUEUED, 0)}
    with catalogue.database.transaction() as tx:
        tx.execute(rses.update().where(rses.c.id == sites[1]).values(availability_write=True))
    assert runner(catalogue, ScriptedMover()).run().done == 20
    assert catalogue.rule_row(rule).state == RuleState.OK


def test_an_rse_that_is_down_costs_no_attempts_and_is_tried_with_one_copy(catalogue, sites):
    rule = wanted(catalogue, "night", 60, sites[0])
    elsewhere = catalogue.rse("CC")
    other = wanted(catalogue, "other", 5, sites[0], "CC")
    is_down = True

    def script(copy):
        down = is_down and copy.order.destination.rse == "IN2P3"
        return Unavailable("connection refused", rse="IN2P3") if down else None

    first = ScriptedMover(script)
    assert runner(catalogue, first).run().done == 5
    assert catalogue.rule_row(other).state == RuleState.OK
    health = catalogue.one(select(rse_health).where(rse_health.c.rse_id == sites[1]))
    assert (health.breaker, health.code, health.reason) == (
        BreakerState.OPEN,
        "unavailable",
        "connection refused",
    )
    spent = catalogue.one(select(func.max(requests.c.attempt), func.count()))
    assert tuple(spent) == (0, 60), "none was counted"
    again = runner(catalogue, ScriptedMover(script))
    assert again.run().claimed == 0, "it is left alone"
    catalogue.age(requests, 3600, "not_before")
    catalogue.age(rse_health, 3600, "retry_at")
    assert again.run().claimed == 1, "one is enough to see"
    is_down = False
    catalogue.age(requests, 3600, "not_before")
    catalogue.age(rse_health, 3600, "retry_at")
    assert again.run().done == 60
    assert catalogue.one(select(rse_health.c.breaker)).breaker is BreakerState.CLOSED
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert elsewhere
    catalogue.check_invariants()


def test_a_source_that_is_down_is_passed_over_and_waited_for_where_there_is_no_other(catalogue, sites):
    slac, _ = sites
    near = catalogue.rse("NEAR")
    catalogue.distance(near, sites[1], 1)
    both = catalogue.files(6, at=[slac, near])
    only = catalogue.files(6, prefix="only", at=[near])
    rule = catalogue.rule(catalogue.collection("both", children=both), "IN2P3")
    waiting = catalogue.rule(catalogue.collection("only", children=only), "IN2P3")
    Evaluator(catalogue.context).run()
    with catalogue.database.transaction() as tx:
        tx.execute(
            rse_health.insert().values(
                rse_id=near,
                breaker=BreakerState.OPEN,
                failures=5,
                opened_at=after(-60.0),
                retry_at=after(200.0),
                code="timed_out",
                reason="no answer",
                updated_at=after(0.0),
            )
        )
    mover = ScriptedMover()
    summary = runner(catalogue, mover).run()
    assert (summary.done, summary.released) == (6, 6)
    assert {copy.order.source.rse for copy in mover.copied} == {"SLAC"}
    assert catalogue.rule_row(rule).state == RuleState.OK
    held = catalogue.rows(select(requests).where(requests.c.rule_id == waiting))
    assert {(row.code, row.attempt) for row in held} == {(BUSY, 0)}
    assert "NEAR is down since" in held[0].reason
    assert "no answer" in held[0].reason


def test_a_transfer_limit_holds_for_all_workers_together(catalogue, sites):
    wanted(catalogue, "night", 40, sites[0])
    with catalogue.database.transaction() as tx:
        tx.execute(
            transfer_limits.insert().values(
                rse_expression="IN2P3", direction=TransferDirection.DESTINATION, activity="", max_transfers=3
            )
        )
    assert claimed(catalogue, 2).total() == 2
    assert claimed(catalogue, 30).total() == 1
    assert claimed(catalogue, 30).total() == 0


def test_what_a_limit_of_the_source_does_not_let_through_waits_without_an_attempt(catalogue, sites):
    wanted(catalogue, "night", 10, sites[0])
    with catalogue.database.transaction() as tx:
        tx.execute(
            transfer_limits.insert().values(
                rse_expression="SLAC", direction=TransferDirection.SOURCE, activity="", max_transfers=4
            )
        )
    summary = runner(catalogue, ScriptedMover()).run()
    assert (summary.done, summary.released) == (4, 6)
    left = catalogue.one(
        select(func.max(requests.c.attempt), func.max(requests.c.fence), func.min(requests.c.reason))
    )
    # nobody has held them: who copies them later looks for nothing that an attempt might have left
    assert tuple(left) == (0, 0, "SLAC has as many copies under way as its limit allows")


def test_links_are_learnt_from_what_was_copied(catalogue, sites):
    wanted(catalogue, "night", 12, sites[0])
    bad = {1, 2}

    def script(copy):
        failing = copy.request.id in bad
        return ChecksumMismatch("it differs", rse="IN2P3") if failing else None

    assert runner(catalogue, ScriptedMover(script)).run().done == 10
    link = catalogue.one(select(links))
    assert (link.source_id, link.destination_id) == sites
    assert (link.done, link.failed, link.bytes) == (10, 2, 10_000)
    assert (link.mode, link.code, link.reason) == ("third_party_pull", "checksum_mismatch", "it differs")
    assert link.decided_at is None
    catalogue.age(links, 10, "since")
    catalogue.age(requests, 3600, "not_before")
    assert runner(catalogue, ScriptedMover()).run().done == 2
    link = catalogue.one(select(links))
    assert (link.done, link.failed) == (0, 0), "a new window"
    assert link.decision == "one less: 86% of 14 copies succeeded"
    assert (link.slots, link.success) == (7, pytest.approx(12 / 14))


def test_every_attempt_of_a_link_is_counted_for_good(catalogue, sites):
    wanted(catalogue, "night", 12, sites[0])
    bad = {1, 2}

    def script(copy):
        return ChecksumMismatch("it differs", rse="IN2P3") if copy.request.id in bad else None

    for _ in range(2):
        runner(catalogue, ScriptedMover(script)).run()
        catalogue.age(requests, 3600, "not_before")
    columns = (link_totals.c.code, link_totals.c.copies, link_totals.c.bytes)
    counted = {tuple(row) for row in catalogue.rows(select(*columns))}
    assert counted == {("", 10, 10_000), ("checksum_mismatch", 4, 0)}


def test_a_copy_that_somebody_suspects_is_not_read_where_there_is_another(catalogue, sites):
    from arriero.registry.schema.tables import bad_replicas
    from arriero.registry.states import BadReplicaState

    slac, destination = sites
    near = catalogue.rse("NEAR")
    catalogue.distance(near, destination, 1)
    files = catalogue.files(2, at=[slac, near])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    Evaluator(catalogue.context).run()
    with catalogue.database.transaction() as tx:
        tx.execute(
            bad_replicas.insert().values(
                file_id=files[0], rse_id=near, state=BadReplicaState.SUSPICIOUS, reason="odd"
            )
        )
    mover = ScriptedMover()
    assert runner(catalogue, mover).run().done == 2
    read = {copy.request.file_id: copy.order.source.rse for copy in mover.copied}
    assert read == {files[0]: "SLAC", files[1]: "NEAR"}
