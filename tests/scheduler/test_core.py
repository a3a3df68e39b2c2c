"""The pure core: the same answer always, distinct copies, weights, reasons."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.registry.states import LockState, RequestState, RuleState
from arriero.scheduler.core import states
from arriero.scheduler.core.choose import Candidate, Group, choose, usable
from arriero.scheduler.core.retry import GiveUp, Retry, back_off, decide, stuck_wait
from arriero.scheduler.core.seeds import fraction
from arriero.scheduler.core.sources import Source, pick_source
from arriero.scheduler.core.spread import spread

seeds = st.text(max_size=20)


@st.composite
def candidates(draw):
    count = draw(st.integers(0, 12))
    return [
        Candidate(
            rse_id=number,
            name=f"RSE{number}",
            writable=draw(st.booleans()),
            free=draw(st.none() | st.integers(0, 10_000)),
            attributes=draw(
                st.dictionaries(
                    st.just("share"), st.sampled_from(["1", "2.5", "0", "-1", "x", "nan", "inf"]), max_size=1
                )
            ),
        )
        for number in range(count)
    ]


@given(
    candidates(),
    st.integers(1, 4),
    seeds,
    st.none() | st.just("share"),
    st.dictionaries(st.integers(0, 11), st.integers(0, 5000), max_size=6),
    st.randoms(use_true_random=False),
)
def test_choice(rses, copies, seed, weight, present, random):
    group = Group("raw:night", 5000, present)
    choice = choose(group, rses, copies, seed=seed, weight=weight)
    shuffled = random.sample(rses, len(rses))
    assert choose(group, shuffled, copies, seed=seed, weight=weight) == choice
    assert len(choice.rse_ids) in {0, copies}
    assert len(set(choice.rse_ids)) == len(choice.rse_ids)
    assert choice.reason
    assert all(one.code and one.reason for one in choice.dropped)
    out = {one.rse_id for one in choice.dropped}
    assert out.isdisjoint(choice.rse_ids)
    if not choice.placed:
        assert len(rses) - len(out) < copies
        assert choice.code == "not_enough_rses"
    else:
        left = [rse.rse_id for rse in rses if rse.rse_id not in out]
        least = min(present.get(rse_id, 0) for rse_id in choice.rse_ids)
        assert all(present.get(rse_id, 0) <= least for rse_id in set(left) - set(choice.rse_ids))


def test_order_of_choice():
    rses = [
        Candidate(1, "EMPTY-BIG", free=900),
        Candidate(2, "EMPTY-SMALL", free=600),
        Candidate(3, "HALF", free=500),
        Candidate(4, "FULL", free=10),
    ]
    choice = choose(Group("g", 500, {3: 250}), rses, 3, seed="s")
    assert choice.rse_ids == (3, 1, 2)
    assert [(one.name, one.code) for one in choice.dropped] == [("FULL", "full")]
    assert "HALF (250 of 500 bytes are there)" in choice.reason


def test_weight_comes_before_free_space_and_faults_have_names():
    rses = [
        Candidate(1, "LIGHT", free=10_000, attributes={"share": "1"}),
        Candidate(2, "HEAVY", free=1000, attributes={"share": "5"}),
        Candidate(3, "NONE"),
        Candidate(4, "WORD", attributes={"share": "much"}),
        Candidate(5, "BLOCKED", writable=False, attributes={"share": "9"}),
    ]
    assert choose(Group("g", 10), rses, 1, seed="s", weight="share").rse_ids == (2,)
    _, dropped = usable(rses, weight="share", ignore_availability=False)
    assert [(one.name, one.code) for one in dropped] == [
        ("BLOCKED", "blocked"),
        ("NONE", "no_weight"),
        ("WORD", "bad_weight"),
    ]
    weights, _ = usable(rses, weight="share", ignore_availability=True)
    assert weights == {1: 1.0, 2: 5.0, 5: 9.0}


def test_equal_rses_share_the_groups_of_rules():
    rses = [Candidate(number, f"RSE{number}") for number in range(4)]
    found = Counter(
        choose(Group(f"set{number}", 1), rses, 1, seed="rule").rse_ids[0] for number in range(2000)
    )
    assert all(400 < count < 600 for count in found.values())


@given(
    st.dictionaries(st.integers(0, 30), st.floats(0.01, 1000), min_size=1, max_size=12),
    st.integers(1, 4),
    seeds,
)
def test_spread(weights, copies, seed):
    slots = 512
    rows = spread(weights, copies, seed=seed, slots=slots)
    assert rows == spread(dict(reversed(weights.items())), copies, seed=seed, slots=slots)
    if len(weights) < copies:
        assert rows == ()
        return
    by_slot: dict[int, list[int]] = {}
    for row in rows:
        by_slot.setdefault(row.slot, []).append(row.rse_id)
    assert set(by_slot) == set(range(slots))
    assert all(len(chosen) == len(set(chosen)) == copies for chosen in by_slot.values())
    shares = Counter(row.rse_id for row in rows)
    total = sum(weights.values())
    if all(weight * copies < total for weight in weights.values()):
        for rse_id, weight in weights.items():
            assert abs(shares[rse_id] - slots * copies * weight / total) <= copies + 1


def test_an_rse_that_weighs_more_than_a_copy_has_every_file():
    rows = spread({1: 100.0, 2: 1.0, 3: 1.0}, 2, seed="s")
    shares = Counter(row.rse_id for row in rows)
    assert (shares[1], shares[2], shares[3]) == (1024, 512, 512)


@given(
    st.lists(
        st.builds(
            Source,
            rse_id=st.integers(0, 8),
            name=st.sampled_from([f"R{number}" for number in range(9)]),
            readable=st.booleans(),
            wanted=st.booleans(),
            reachable=st.booleans(),
            distance=st.none() | st.integers(0, 5),
        ),
        unique_by=(lambda source: source.rse_id, lambda source: source.name),
    ),
    st.none() | st.integers(0, 8),
    seeds,
)
def test_sources(sources, failed, seed):
    picked = pick_source(sources, destination_id=0, failed_id=failed, seed=seed)
    assert pick_source(sources[::-1], destination_id=0, failed_id=failed, seed=seed) == picked
    assert picked.reason
    fit = [one for one in sources if one.readable and one.wanted and one.reachable and one.rse_id != 0]
    if picked.source is None:
        assert not fit
        assert picked.code == "no_source"
        return
    assert picked.source in fit
    assert picked.alternatives == len(fit) - 1
    if picked.source.rse_id == failed:
        assert len(fit) == 1
    others = [one for one in fit if one.rse_id != failed and one.distance is not None]
    if others:
        assert picked.source.distance == min(one.distance for one in others)


@given(st.integers(1, 100), seeds)
def test_back_off(attempt, seed):
    wait = back_off(attempt, base_s=2, maximum_s=900, seed=seed)
    full = min(900, 2 * 2 ** (attempt - 1))
    assert full / 2 <= wait <= full
    assert wait == back_off(attempt, base_s=2, maximum_s=900, seed=seed)


@pytest.mark.parametrize(
    ("code", "retryable", "attempt", "alternatives", "kind"),
    [
        ("unavailable", True, 1, 0, Retry),
        ("unavailable", True, 6, 0, GiveUp),
        ("already_exists", True, 1, 3, GiveUp),
        ("not_found", False, 1, 0, GiveUp),
        ("not_found", False, 1, 1, Retry),
        ("source_mismatch", False, 6, 1, GiveUp),
        ("access_denied", False, 1, 0, Retry),
        ("no_source", True, 1, 0, Retry),
        ("something_new", False, 1, 0, GiveUp),
        ("something_new", True, 1, 0, Retry),
    ],
)
def test_what_follows_a_failure(code, retryable, attempt, alternatives, kind):
    decided = decide(
        code,
        "because",
        retryable=retryable,
        attempt=attempt,
        max_attempts=6,
        alternatives=alternatives,
        base_s=2,
        maximum_s=900,
        seed="s",
    )
    assert isinstance(decided, kind)
    assert decided.reason.startswith("because")


def test_stuck_rules_are_looked_at_less_and_less():
    day = 24 * 3600
    waits = [stuck_wait(age, base_s=7200) / 3600 for age in (0, day - 1, day, 2 * day, 3 * day, 30 * day)]
    assert waits == [2, 2, 4, 6, 8, 8]


@given(seeds, st.lists(st.integers() | st.text(max_size=5), max_size=3))
def test_fractions(seed, parts):
    assert 0 <= fraction(seed, *parts) < 1
    assert fraction(seed, *parts) == fraction(seed, *parts)


@pytest.mark.parametrize(
    ("core", "registry"),
    [(states.Rule, RuleState), (states.Lock, LockState), (states.Request, RequestState)],
)
def test_the_words_are_the_registrys(core, registry):
    assert {state.name: state.value for state in core} == {state.name: state.value for state in registry}


TABLES = [states.RULE_TRANSITIONS, states.LOCK_TRANSITIONS, states.REQUEST_TRANSITIONS]


@pytest.mark.parametrize("table", TABLES)
def test_every_state_is_in_its_table_and_what_is_not_there_is_refused(table):
    kind = type(next(iter(table)))
    assert set(table) == set(kind)
    events = {event for following in table.values() for event in following}
    for state in kind:
        for event in events:
            if event in table[state]:
                assert states.advance(table, state, event) in kind
            else:
                with pytest.raises(states.IllegalTransition, match=state.value):
                    states.advance(table, state, event)


@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_what_counts_mean(replicating, stuck, unplaced, unfinished):
    event = states.rule_event(replicating=replicating, stuck=stuck, unplaced=unplaced, unfinished=unfinished)
    assert (event is states.RuleEvent.COMPLETE) == (
        not replicating and not stuck and not unplaced and not unfinished
    )
    assert (event is states.RuleEvent.FAILED) == (stuck > 0 or unplaced)
