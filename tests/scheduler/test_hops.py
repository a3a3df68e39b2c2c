"""Files that reach an RSE only by way of others: hop after hop, and nothing stays where it only stopped."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from arriero.registry.schema.tables import hops, links
from arriero.registry.states import ReplicaState, RequestState, RuleState
from arriero.rse.errors import TransferFailed
from arriero.scheduler.copy_ends import CopyEnds
from arriero.scheduler.core.route import PENALTY, route
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.hops import MULTIHOP
from arriero.scheduler.sweeps import sweep_requests
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.scheduling import Catalogue, replicas, request_history, requests


@pytest.fixture
def chain(catalogue):
    """Four RSEs in a row: each is declared to reach the next."""
    through = {"available_for_multihop": "true"}
    ids = [
        catalogue.rse("SLAC"),
        catalogue.rse("RAL", attributes=through),
        catalogue.rse("CC", attributes=through),
        catalogue.rse("ASGC"),
    ]
    for start, end in pairwise(ids):
        catalogue.distance(start, end, 1)
    return ids


def run(catalogue: Catalogue, mover: ScriptedMover):
    return TransferRunner(catalogue.context, make_mover=lambda: mover).run()


def wanted(catalogue: Catalogue, source: int, count: int = 5) -> tuple[int, list[int]]:
    files = catalogue.files(count, at=[source])
    rule = catalogue.rule(catalogue.collection("night", children=files), "ASGC")
    Evaluator(catalogue.context).run()
    return rule, files


def test_files_go_hop_by_hop(catalogue, chain):
    rule, files = wanted(catalogue, chain[0])
    mover = ScriptedMover()
    summary = run(catalogue, mover)
    assert summary.done == 3 * len(files)
    assert catalogue.rule_row(rule).state == RuleState.OK
    way = [(copy.order.source.rse, copy.order.destination.rse) for copy in mover.copied]
    assert sorted(set(way), key=way.index) == [("SLAC", "RAL"), ("RAL", "CC"), ("CC", "ASGC")]
    left = catalogue.rows(select(replicas).where(replicas.c.rse_id.in_(chain[1:3])))
    assert {row.state for row in left} == {ReplicaState.AVAILABLE}
    assert all(row.tombstone is not None and row.purge for row in left), "deletion takes them after a while"
    assert catalogue.one(select(replicas).where(replicas.c.rse_id == chain[3]).limit(1)).tombstone is None
    assert catalogue.count(requests) == 0
    assert catalogue.count(hops) == 0
    assert len(catalogue.rows(select(links))) == 3
    catalogue.check_invariants()


def test_what_waits_says_which_way_it_goes_and_loses_no_attempt(catalogue, chain):
    wanted(catalogue, chain[0], 1)
    held = ScriptedMover(hold=True)
    stopping = []

    def stop() -> bool:
        stopping.append(len(stopping))
        return len(stopping) > 3

    TransferRunner(catalogue.context, make_mover=lambda: held, stopping=stop).run()
    waiting = catalogue.one(select(requests).where(requests.c.destination_id == chain[3]))
    assert (waiting.state, waiting.code, waiting.attempt) == (RequestState.QUEUED, MULTIHOP, 0)
    assert waiting.reason == "goes by way of others: SLAC -> RAL -> CC -> ASGC"
    catalogue.check_invariants()


def test_a_hop_that_fails_is_asked_for_again_at_the_price_of_an_attempt(catalogue, chain):
    rule, _ = wanted(catalogue, chain[0], 1)
    failing = 2

    def script(copy):
        nonlocal failing
        if copy.order.destination.rse == "RAL" and failing:
            failing -= 1
            return TransferFailed("cut off", rse="RAL")
        return None

    for _ in range(4):
        run(catalogue, ScriptedMover(script))
        catalogue.check_invariants()
        catalogue.age(requests, 3600, "not_before")
    assert catalogue.rule_row(rule).state == RuleState.OK
    tried = catalogue.rows(select(request_history).where(request_history.c.destination_id == chain[1]))
    assert [row.state for row in tried] == [RequestState.FAILED, RequestState.FAILED, RequestState.DONE]
    last = catalogue.one(select(request_history).where(request_history.c.destination_id == chain[3]))
    assert last.attempt == 3, "one for each hop that failed, and the copy"


def test_a_declared_link_comes_before_any_way_round(catalogue, chain):
    catalogue.distance(chain[0], chain[3], 1000)
    rule, files = wanted(catalogue, chain[0])
    mover = ScriptedMover()
    assert run(catalogue, mover).done == len(files)
    assert {copy.order.source.rse for copy in mover.copied} == {"SLAC"}
    assert catalogue.rule_row(rule).state == RuleState.OK


def test_without_rses_to_stop_at_the_file_is_copied_straight(catalogue, two_sites):
    slac, _ = two_sites
    files = catalogue.files(2, at=[slac])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    Evaluator(catalogue.context).run()
    assert run(catalogue, ScriptedMover()).done == 2


def test_hops_that_ended_with_their_worker_are_taken_up_by_a_sweep(catalogue, chain, monkeypatch):
    wanted(catalogue, chain[0], 2)
    monkeypatch.setattr(CopyEnds, "_go_on", lambda *_: None)
    run(catalogue, ScriptedMover())
    assert catalogue.count(hops) == 2
    monkeypatch.undo()
    sweep_requests(catalogue.context)
    assert catalogue.count(hops) == 0
    run(catalogue, ScriptedMover())
    assert catalogue.count(requests) == 0
    catalogue.check_invariants()


GRAPHS = st.dictionaries(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(0, 50), max_size=20)


@given(GRAPHS, st.sets(st.integers(1, 6), min_size=1), st.integers(1, 6), st.sets(st.integers(1, 6)))
def test_a_way_is_made_of_links_and_stops_where_it_may(distances, sources, destination, through):
    way = route(sources, destination, distances, through)
    if way is None:
        assert destination not in sources
        assert not any((source, destination) in distances for source in sources)
        return
    assert way[0] in sources
    assert way[-1] == destination
    assert set(way[1:-1]) <= through
    assert all(pair in distances for pair in pairwise(way))
    length = sum(distances[pair] for pair in pairwise(way))
    length += PENALTY * max(len(way) - 2, 0)
    straight = [distances[source, destination] for source in sources if (source, destination) in distances]
    assert not straight or destination in sources or length <= min(straight)
