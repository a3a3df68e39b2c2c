"""What failed at one RSE is tried at another, when every file is placed by itself."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from arriero.registry.database import Database
from arriero.registry.schema.tables import request_history, rule_history
from arriero.registry.states import LockState, ReplicaState, RuleGrouping
from arriero.scheduler import temporary
from arriero.scheduler.claim import claim_requests
from arriero.scheduler.core.elsewhere import ALTERNATIVES, OF_NO_RSE, SLOTS, detours
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.evaluation_rule import lock_rule
from arriero.scheduler.reports import Transfer, failure, success
from arriero.scheduler.settle import settle
from arriero.scheduler.stuck_elsewhere import MOVED, eval_moves, move_stuck
from support.database import counted_statements
from support.scheduling import Catalogue, evaluations, locks, replicas, requests

DAY_S = 86400.0


@given(
    weights=st.dictionaries(st.integers(1, 40), st.floats(0.1, 100), max_size=12),
    failing=st.sets(st.integers(1, 40), max_size=4),
    seed=st.text(max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_each_detour_leads_to_distinct_others_by_their_weights(weights, failing, seed):
    rows = detours(weights, failing, seed=seed)
    assert rows == detours(dict(reversed(list(weights.items()))), failing, seed=seed)
    by_slot: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        assert row.failing_id in failing
        assert row.rse_id in weights
        assert row.rse_id != row.failing_id
        by_slot.setdefault((row.failing_id, row.slot), []).append(row.rse_id)
    for failing_id in failing:
        others = set(weights) - {failing_id}
        wanted = min(ALTERNATIVES, len(others))
        slots = [by_slot.get((failing_id, slot), []) for slot in range(SLOTS)]
        assert {len(chosen) for chosen in slots} == {wanted}
        assert all(len(set(chosen)) == wanted for chosen in slots)


def test_what_one_drops_is_spread_over_the_others():
    rows = detours(dict.fromkeys(range(1, 6), 1.0), [1], seed="a")
    first = Counter(row.rse_id for row in rows if row.rank == 0)
    assert set(first) == {2, 3, 4, 5}
    assert max(first.values()) < SLOTS * 0.6


class Spread:
    """Forty files that a rule spreads over four RSEs, one copy each; all copies to the first have failed."""

    def __init__(self, catalogue: Catalogue, *, copies: int = 1, code: str = "unavailable") -> None:
        self.catalogue = catalogue
        self.slac = catalogue.rse("SLAC")
        self.rses = [catalogue.rse(f"T{number}", attributes={"tier": "2"}) for number in range(4)]
        self.files = catalogue.files(40, at=[self.slac])
        dataset = catalogue.collection("night", children=self.files)
        self.rule = catalogue.rule(dataset, "tier=2", copies=copies, grouping=RuleGrouping.NONE)
        Evaluator(catalogue.context).run()
        self.failed = self.fail(self.rses[:1], code)

    @property
    def database(self) -> Database:
        return self.catalogue.database

    def fail(self, rse_ids: list[int], code: str = "unavailable") -> set[int]:
        taken = self.database.run(lambda tx: claim_requests(tx, "w", limit=1000, lease_s=600))
        wanted = [request for request in taken if request.destination_id in rse_ids]
        reports = [
            failure(request, self.catalogue.context.settings, code, "503", retryable=False)
            for request in wanted
        ]
        settle(self.database, reports, stuck_retry_s=7200)
        return {request.file_id for request in wanted}

    def move(self, *, weights: dict[int, float] | None = None) -> int:
        """What a chunk over all files of the rule does with what is STUCK."""

        def work(tx) -> int:
            rule = lock_rule(tx, self.rule)
            assert rule is not None
            temporary.prepare(tx, *temporary.EVALUATION_TABLES)
            tx.execute(insert(temporary.eval_window), [{"file_id": one} for one in self.files])
            rows = [{"rse_id": one, "is_candidate": True, "is_source": False} for one in self.rses]
            tx.execute(insert(temporary.eval_rses), rows)
            return move_stuck(
                tx,
                rule.scope,
                weights=dict.fromkeys(self.rses, 1.0) if weights is None else weights,
                seed=rule.seed,
                stuck_retry_s=7200,
            )

        return self.database.run(work)

    def places(self) -> dict[int, set[int]]:
        return self.catalogue.locks_of(self.rule)

    def age(self) -> None:
        self.catalogue.age(replicas, 7300, "updated_at")


@pytest.fixture
def night(catalogue):
    return Spread(catalogue)


def test_what_failed_moves_when_its_time_has_come_and_not_before(catalogue, night):
    assert night.move() == 0
    before = night.places()
    night.age()
    assert night.move() == len(night.failed) > 0
    after = night.places()
    for file_id in night.files:
        if file_id in night.failed:
            assert after[file_id].isdisjoint(before[file_id])
            assert after[file_id] <= set(night.rses)
        else:
            assert after[file_id] == before[file_id]
    moved = catalogue.rows(select(locks.c.state, locks.c.code).where(locks.c.file_id.in_(night.failed)))
    assert set(moved) == {(LockState.STUCK, "retry_now")}
    assert len({rse_id for file_id in night.failed for rse_id in after[file_id]}) > 1
    said = catalogue.one(select(rule_history.c.reason).where(rule_history.c.code == MOVED)).reason
    assert said == f"{len(night.failed)} copies failed and are tried at other RSEs, such as: 503"


@pytest.mark.parametrize("code", sorted(OF_NO_RSE - {"gone"}))
def test_what_another_rse_does_not_help_stays(catalogue, code):
    night = Spread(catalogue, code="unavailable")
    night.age()
    with catalogue.database.transaction() as tx:
        tx.execute(locks.update().where(locks.c.state == LockState.STUCK).values(code=code))
    before = night.places()
    assert night.move() == 0
    assert night.places() == before


def test_where_it_lies_already_comes_first_and_where_it_failed_lately_not_at_all(catalogue, night):
    night.age()
    one, other, *rest = sorted(night.failed)
    catalogue.replicas([one], night.rses[3])
    with catalogue.database.transaction() as tx:
        for rse_id in night.rses[1:]:
            tx.execute(
                insert(request_history).values(
                    request_id=1,
                    file_id=other,
                    destination_id=rse_id,
                    state="FAILED",
                    attempt=1,
                    bytes=1,
                    created_at=func.now(),
                )
            )
    assert night.move() == len(rest) + 1
    places = night.places()
    assert places[one] == {night.rses[3]}
    assert places[other] == {night.rses[0]}
    catalogue.age(request_history, DAY_S + 60, "at")
    night.age()
    assert night.move() == 1
    assert night.places()[other] != {night.rses[0]}


def test_a_bad_replica_or_one_being_deleted_is_no_place_to_go(catalogue, night):
    night.age()
    for rse_id, state in zip(night.rses[1:3], (ReplicaState.BAD, ReplicaState.BEING_DELETED), strict=True):
        catalogue.replicas(sorted(night.failed), rse_id, state)
    night.move()
    assert {rse for file_id in night.failed for rse in night.places()[file_id]} <= {
        night.rses[0],
        night.rses[3],
    }


def test_two_failed_copies_of_a_file_do_not_meet(catalogue):
    night = Spread(catalogue, copies=2)
    night.fail(night.rses[1:2])
    night.age()
    night.move()
    assert {len(places) for places in night.places().values()} == {2}


def test_without_another_rse_everything_stays(night):
    night.age()
    before = night.places()
    assert night.move(weights={night.rses[0]: 1.0}) == 0
    assert night.move(weights={}) == 0
    assert night.places() == before


def test_the_places_left_are_noted_for_the_chunk(night):
    night.age()

    def work(tx) -> int:
        rule = lock_rule(tx, night.rule)
        assert rule is not None
        temporary.prepare(tx, *temporary.EVALUATION_TABLES)
        tx.execute(insert(temporary.eval_window), [{"file_id": one} for one in night.files])
        move_stuck(tx, rule.scope, weights=dict.fromkeys(night.rses, 1.0), seed=rule.seed, stuck_retry_s=7200)
        gone = set(tx.execute(select(temporary.eval_gone.c.file_id, temporary.eval_gone.c.rse_id)))
        assert gone == {(file_id, night.rses[0]) for file_id in night.failed}
        return len(tx.execute(select(eval_moves)).all())

    with counted_statements(night.database) as statements:
        assert night.database.run(work) == len(night.failed)
    assert len(statements) < 40


def test_an_evaluation_has_it_copied_to_the_other_place(catalogue, night):
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_stuck) == ("STUCK", len(night.failed))
    night.age()
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    Evaluator(catalogue.context).run()
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_stuck, row.locks_replicating) == ("REPLICATING", 0, 40)
    assert all(night.places()[file_id] != {night.rses[0]} for file_id in night.failed)
    # what it left is let go
    left = catalogue.rows(select(replicas).where(replicas.c.rse_id == night.rses[0]))
    assert all(one.tombstone is not None for one in left)
    assert catalogue.count(requests, destination_id=night.rses[0]) == 0
    # a retry is no success: how long nothing has succeeded goes on counting
    assert row.stuck_at is None
    assert row.stuck_since is not None
    catalogue.check_invariants()


def test_the_time_without_success_ends_with_a_success_and_not_before(catalogue, night):
    since = catalogue.rule_row(night.rule).stuck_since
    night.age()
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    Evaluator(catalogue.context).run()
    night.fail(night.rses[1:])
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.stuck_since) == ("STUCK", since)
    assert row.stuck_at > since
    night.age()
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    Evaluator(catalogue.context).run()
    catalogue.age(requests, 1, "not_before")
    with catalogue.database.transaction() as tx:
        tx.execute(requests.update().values(state="QUEUED", lease_owner=None, lease_until=None))
    [request] = night.database.run(lambda tx: claim_requests(tx, "w", limit=1, lease_s=60))
    settle(night.database, [success(request, Transfer("streamed", 1.0))], stuck_retry_s=7200)
    row = catalogue.rule_row(night.rule)
    assert row.stuck_since is None or row.stuck_since > since
