"""Shares of a claim, slots of links, health of RSEs: the pure core."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from arriero.scheduler.core.breaker import FIRST_WAIT_S, LONGEST_WAIT_S, TRIPS_AFTER, Health, next_health
from arriero.scheduler.core.lanes import Lane, allot, levels
from arriero.scheduler.core.links import LEAST, MOST, LinkState, decide, is_ripe, quota, resumed, share

LANES = st.lists(
    st.builds(
        Lane,
        st.integers(1, 4),
        st.just(3),
        st.one_of(st.none(), st.integers(1, 9)),
        st.sampled_from(["Express", "Production", "User"]),
    ),
    min_size=1,
    max_size=30,
    unique=True,
)
ROOMS = st.dictionaries(st.integers(1, 4), st.integers(0, 50).map(float))
SHARES = st.dictionaries(st.sampled_from(["Express", "User"]), st.floats(0, 10))


@given(LANES, st.integers(0, 300), ROOMS, SHARES)
def test_a_claim_is_divided_to_the_last_copy_and_no_rse_gets_more_than_it_has_room_for(
    lanes, limit, room, shares
):
    given_out = allot(lanes, limit=limit, room=room, shares=shares)
    rses = {lane.destination_id for lane in lanes}
    assert sum(given_out.values()) == min(limit, sum(room.get(one, inf) for one in rses))
    for one in rses:
        assert sum(n for lane, n in given_out.items() if lane.destination_id == one) <= room.get(one, inf)
    assert all(count > 0 for count in given_out.values())
    assert given_out == allot(lanes, limit=limit, room=room, shares=shares)


@given(LANES, st.integers(1, 300), ROOMS)
def test_rules_of_one_activity_get_the_same(lanes, limit, room):
    given_out = allot(lanes, limit=limit, room=room, shares={})
    by_activity: dict[tuple[int, str], list[int]] = {}
    for lane in lanes:
        by_activity.setdefault((lane.destination_id, lane.activity), []).append(given_out.get(lane, 0))
    for counts in by_activity.values():
        assert max(counts) - min(counts) <= 1


def test_activities_get_their_shares_and_urgent_lanes_come_first():
    express, user = Lane(1, 3, 1, "Express"), Lane(1, 3, 2, "User")
    assert allot([express, user], limit=100, room={}, shares={"Express": 3}) == {express: 75, user: 25}
    urgent = Lane(2, 5, 3, "User")
    assert levels([express, user, urgent]) == [[urgent], [express, user]]


WINDOWS = st.builds(
    LinkState,
    slots=st.integers(LEAST, MOST),
    done=st.integers(0, 1000),
    failed=st.integers(0, 1000),
    bytes=st.integers(0, 10**12),
    seconds=st.floats(0, 10**5),
    elapsed_s=st.floats(2, 120),
    throughput=st.one_of(st.none(), st.floats(1, 10**10)),
    duration=st.one_of(st.none(), st.floats(0.001, 10**4)),
    success=st.one_of(st.none(), st.floats(0, 1)),
).filter(is_ripe)


@given(WINDOWS)
def test_slots_stay_in_their_range_and_every_decision_says_why(state):
    decision = decide(state)
    assert LEAST <= decision.state.slots <= MOST
    assert decision.reason
    assert (decision.state.done, decision.state.failed, decision.state.bytes) == (0, 0, 0)
    if state.done / (state.done + state.failed) < 0.97:
        assert decision.state.slots <= state.slots
    assert quota(decision.state) >= decision.state.slots


def test_a_busy_link_gets_more_while_that_brings_more():
    busy = LinkState(slots=8, done=100, bytes=10**9, seconds=40.0, elapsed_s=5.0)
    first = decide(busy)
    assert first.state.slots == 16, "nothing is known yet: twice as many"
    steady = decide(replace(first.state, done=100, bytes=10**9, seconds=80.0, elapsed_s=5.0))
    assert steady.state.slots == 18
    slower = decide(replace(steady.state, done=100, bytes=5 * 10**8, seconds=90.0, elapsed_s=5.0))
    assert slower.state.slots == 18, "half as fast: no more"
    idle = replace(busy, seconds=5.0)
    assert "half of the slots" in decide(idle).reason
    failing = replace(busy, done=50, failed=50)
    assert (decide(failing).state.slots, decide(failing).reason) == (6, "fewer: 50% of 100 copies succeeded")


def test_time_in_which_nothing_was_under_way_says_nothing_about_a_link():
    state = LinkState(slots=8, done=20, bytes=10**7, seconds=2.0, elapsed_s=90.0)
    assert resumed(state, [0.1, 0.2], silent_s=2.0) is state
    fresh = resumed(state, [0.5] * 160, silent_s=80.0)
    assert (fresh.done, fresh.bytes, fresh.elapsed_s) == (0, 0, 10.0)
    long = resumed(state, [70.0], silent_s=60.0)
    assert long is state, "that one was under way all the time"


def test_the_first_window_of_a_link_is_short():
    assert not is_ripe(LinkState(done=29, elapsed_s=0.6))
    assert is_ripe(LinkState(done=30, elapsed_s=0.6))
    assert not is_ripe(LinkState(done=300, elapsed_s=3.9, throughput=1e6)), "workers tell of copies in bursts"


def test_short_copies_are_claimed_ahead_and_long_ones_are_not():
    assert quota(LinkState(slots=10, duration=0.01)) == 4000
    assert quota(LinkState(slots=10, duration=3600.0)) == 40
    assert share(10, own=20, total=40) == 5
    assert share(10, own=0, total=40) == 1


def test_an_rse_is_down_after_failures_in_a_row_and_is_looked_at_ever_less():
    health = next_health(Health(), succeeded=0, failed=TRIPS_AFTER - 1)
    assert not health.is_down
    assert next_health(health, succeeded=1, failed=3) == Health()
    health = next_health(health, succeeded=0, failed=100)
    assert (health.is_down, health.wait_s) == (True, FIRST_WAIT_S)
    waits = []
    for _ in range(12):
        health = next_health(health, succeeded=0, failed=1)
        waits.append(health.wait_s)
    assert waits[:3] == [20.0, 40.0, 80.0]
    assert waits[-1] == LONGEST_WAIT_S
    assert next_health(health, succeeded=1, failed=0) == Health()
