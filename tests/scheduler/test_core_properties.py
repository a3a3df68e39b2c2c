"""Laws of the pure core, whatever it is asked: who is chosen and who never, in what order, and that nothing else matters."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arriero.scheduler.core import states
from arriero.scheduler.core.choose import Candidate, Choice, Group, choose, usable
from arriero.scheduler.core.retry import (
    OF_THE_SOURCE,
    PERMANENT,
    RETRYABLE,
    GiveUp,
    Retry,
    decide,
    stuck_wait,
)
from arriero.scheduler.core.sources import Source, pick_source
from arriero.scheduler.core.spread import spread

SHARE = "share"
DROPS = {"blocked", "over_quota", "no_weight", "bad_weight", "zero_weight", "full"}

laws = settings(deadline=None, max_examples=60)
seeds = st.text(max_size=20)
copies_wanted = st.integers(1, 4)


@st.composite
def questions(draw):
    """A group, RSEs that may or may not take it, and what the rule says."""
    size = draw(st.integers(0, 5000))
    numbers = draw(st.lists(st.integers(0, 15), unique=True, max_size=8))
    weights = st.sampled_from(["1", "2.5", "0", "-1", "many", "nan", "1"])
    rses = [
        Candidate(
            rse_id=number,
            name=f"RSE{number:02}",
            writable=draw(st.sampled_from([True, True, True, False])),
            free=draw(st.none() | st.integers(-10, 6000)),
            attributes=draw(st.dictionaries(st.just(SHARE), weights, max_size=1)),
            barred=draw(st.sampled_from([None, None, None, "the account has used its limit there"])),
        )
        for number in numbers
    ]
    present = draw(st.dictionaries(st.sampled_from(numbers or [0]), st.integers(0, size), max_size=4))
    options = {
        "seed": draw(seeds),
        "weight": draw(st.sampled_from([None, SHARE])),
        "ignore_availability": draw(st.booleans()),
    }
    return Group("raw:night", size, present), rses, options


def rank(group: Group, rse: Candidate, weights: dict[int, float]) -> tuple[float, float, float]:
    free = float("-inf") if rse.free is None else rse.free
    return (group.present.get(rse.rse_id, 0), weights[rse.rse_id], free)


@laws
@given(questions(), copies_wanted)
def test_each_decision_has_a_reason_that_names_the_rse(question, copies):
    group, rses, options = question
    choice = choose(group, rses, copies, **options)
    names = {rse.rse_id: rse.name for rse in rses}
    assert len(choice.reasons) == len(choice.rse_ids)
    for rse_id, reason in zip(choice.rse_ids, choice.reasons, strict=True):
        assert reason.startswith(names[rse_id])
        assert reason in choice.reason
    for one in choice.dropped:
        assert one.code in DROPS
        assert one.reason
        assert one.name == names[one.rse_id]
    assert choice.placed == (choice.code == "placed")
    if not choice.placed:
        assert choice.code == "not_enough_rses"
        assert choice.reason.startswith(f"{copies} copies are wanted")
        shown = choice.dropped[:5]
        assert all(one.name in choice.reason for one in shown)


@laws
@given(questions(), copies_wanted)
def test_exactly_so_many_copies_or_none_and_every_rse_is_accounted_for(question, copies):
    group, rses, options = question
    choice = choose(group, rses, copies, **options)
    out = [one.rse_id for one in choice.dropped]
    assert len(set(out)) == len(out)
    assert set(out).isdisjoint(choice.rse_ids)
    assert len(set(choice.rse_ids)) == len(choice.rse_ids)
    fit = len(rses) - len(out)
    assert len(choice.rse_ids) == (copies if fit >= copies else 0)


@laws
@given(questions(), copies_wanted)
def test_what_may_not_be_chosen_never_is(question, copies):
    group, rses, options = question
    for rse in rses:
        if rse.rse_id not in choose(group, rses, copies, **options).rse_ids:
            continue
        assert rse.writable or options["ignore_availability"]
        assert rse.barred is None
        assert rse.free is None or group.bytes - group.present.get(rse.rse_id, 0) <= rse.free
        assert options["weight"] is None or float(rse.attributes[SHARE]) > 0


@laws
@given(questions(), copies_wanted)
def test_presence_then_weight_then_space(question, copies):
    group, rses, options = question
    choice = choose(group, rses, copies, **options)
    weights, _ = usable(rses, weight=options["weight"], ignore_availability=options["ignore_availability"])
    by_id = {rse.rse_id: rse for rse in rses}
    ranks = [rank(group, by_id[rse_id], weights) for rse_id in choice.rse_ids]
    assert ranks == sorted(ranks, reverse=True)
    if choice.placed:
        left = set(by_id) - set(choice.rse_ids) - {one.rse_id for one in choice.dropped}
        assert all(rank(group, by_id[rse_id], weights) <= ranks[-1] for rse_id in left)


@laws
@given(questions(), copies_wanted, st.randoms(use_true_random=False))
def test_equal_input_gives_equal_output_in_whatever_order_it_comes(question, copies, random):
    group, rses, options = question
    shuffled = random.sample(rses, len(rses))
    turned = replace(group, present=dict(reversed(group.present.items())))
    assert choose(turned, shuffled, copies, **options) == choose(group, rses, copies, **options)


@laws
@given(questions(), copies_wanted)
def test_one_copy_more_adds_an_rse_and_moves_none(question, copies):
    group, rses, options = question
    fewer, more = (choose(group, rses, count, **options) for count in (copies, copies + 1))
    if more.placed:
        assert more.rse_ids[:-1] == fewer.rse_ids


@laws
@given(questions(), copies_wanted, st.data())
def test_an_rse_that_goes_moves_only_what_was_there(question, copies, data):
    group, rses, options = question
    if not rses:
        return
    goes = data.draw(st.sampled_from(rses))
    before = choose(group, rses, copies, **options)
    after = choose(group, [rse for rse in rses if rse is not goes], copies, **options)
    if not after.placed:
        return
    stay = set(before.rse_ids) - {goes.rse_id}
    assert stay <= set(after.rse_ids)
    if goes.rse_id not in before.rse_ids:
        assert after.rse_ids == before.rse_ids


@laws
@given(questions(), copies_wanted, st.data())
def test_where_more_comes_to_lie_stays_chosen(question, copies, data):
    group, rses, options = question
    before = choose(group, rses, copies, **options)
    if not before.placed:
        return
    grows = data.draw(st.sampled_from(before.rse_ids))
    there = {**group.present, grows: group.bytes}
    assert grows in choose(replace(group, present=there), rses, copies, **options).rse_ids


@laws
@given(questions(), st.integers(0, 1000))
def test_space_that_is_taken_is_gone(question, wanted):
    _, rses, _ = question
    for rse in rses:
        assert rse.taken(wanted).free == (None if rse.free is None else rse.free - wanted)


@laws
@given(questions(), copies_wanted, st.integers(1, 40))
def test_groups_that_follow_each_other_never_fill_an_rse_beyond_its_space(question, copies, count):
    """What a caller does: each choice takes the space of those before it."""
    _, rses, options = question
    room = {rse.rse_id: rse for rse in rses}
    for number in range(count):
        choice = choose(Group(f"set{number}", 500), list(room.values()), copies, **options)
        for rse_id in choice.rse_ids:
            room[rse_id] = room[rse_id].taken(500)
    assert all(
        rse.free is None or rse.free >= min(0, was.free) for rse, was in zip(room.values(), rses, strict=True)
    )


def test_the_seed_decides_between_equals_only():
    rses = [Candidate(number, f"RSE{number}", free=10_000) for number in range(4)]
    chosen: dict[str, Choice] = {
        seed: choose(Group("raw:night", 10), rses, 1, seed=seed) for seed in map(str, range(200))
    }
    shares = Counter(choice.rse_ids[0] for choice in chosen.values())
    assert set(shares) == {0, 1, 2, 3}
    assert all(25 <= count <= 80 for count in shares.values())
    best = replace(rses[2], free=10_001)
    assert {choose(Group("g", 10), [*rses[:2], best], 1, seed=seed).rse_ids for seed in chosen} == {(2,)}


weights_of_rses = st.dictionaries(
    st.integers(0, 30), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 8.0]), max_size=9
)


@laws
@given(weights_of_rses, copies_wanted, seeds)
def test_each_slot_has_each_rank_once_and_only_rses_that_weigh(weights, copies, seed):
    rows = spread(weights, copies, seed=seed, slots=64)
    assert len(rows) == (64 * copies if len(weights) >= copies else 0)
    by_slot = defaultdict(list)
    for row in rows:
        assert row.rse_id in weights
        by_slot[row.slot].append(row)
    for slot in by_slot.values():
        assert sorted(row.rank for row in slot) == list(range(copies))
        assert len({row.rse_id for row in slot}) == copies


@laws
@given(weights_of_rses, copies_wanted, seeds, st.sampled_from([0.5, 2.0, 64.0]))
def test_only_the_proportion_of_weights_counts(weights, copies, seed, factor):
    scaled = {rse_id: weight * factor for rse_id, weight in weights.items()}
    assert spread(scaled, copies, seed=seed, slots=64) == spread(weights, copies, seed=seed, slots=64)


@laws
@given(weights_of_rses, copies_wanted, seeds)
def test_more_weight_never_has_fewer_files(weights, copies, seed):
    shares = Counter(row.rse_id for row in spread(weights, copies, seed=seed, slots=256))
    if not shares:
        return
    for one, weight in weights.items():
        for other, less in weights.items():
            if weight >= less:
                assert shares[one] >= shares[other] - 2, (weights, shares)


@st.composite
def sources_of_a_file(draw):
    numbers = draw(st.lists(st.integers(0, 8), unique=True, max_size=7))
    flag = st.sampled_from([True, True, True, False])
    return [
        Source(
            rse_id=number,
            name=f"RSE{number}",
            readable=draw(flag),
            wanted=draw(flag),
            reachable=draw(flag),
            distance=draw(st.none() | st.integers(0, 3)),
        )
        for number in numbers
    ]


@laws
@given(sources_of_a_file(), st.none() | st.integers(0, 8), seeds, st.randoms(use_true_random=False))
def test_a_source_is_one_that_can_be_read_and_never_the_destination(sources, failed, seed, random):
    picked = pick_source(sources, destination_id=0, failed_id=failed, seed=seed)
    shuffled = random.sample(sources, len(sources))
    assert pick_source(shuffled, destination_id=0, failed_id=failed, seed=seed) == picked
    if picked.source is None:
        assert picked.code == "no_source"
        others = sorted(one.name for one in sources if one.rse_id != 0)[:5]
        assert all(name in picked.reason for name in others)
        return
    assert picked.source.rse_id != 0
    assert picked.source.readable
    assert picked.source.wanted
    assert picked.source.reachable
    assert picked.source.name in picked.reason


@laws
@given(sources_of_a_file(), seeds)
def test_a_source_that_goes_changes_nothing_for_the_others(sources, seed):
    picked = pick_source(sources, destination_id=0, failed_id=None, seed=seed)
    for gone in sources:
        left = [one for one in sources if one is not gone]
        again = pick_source(left, destination_id=0, failed_id=None, seed=seed)
        if gone is not picked.source:
            assert again.source == picked.source


@laws
@given(
    st.sampled_from(sorted(PERMANENT | OF_THE_SOURCE | RETRYABLE | {"unavailable", "never_heard_of"})),
    st.booleans(),
    st.integers(1, 20),
    st.integers(1, 8),
    st.integers(0, 3),
    seeds,
)
def test_what_follows_a_failure_is_bounded(code, retryable, attempt, max_attempts, alternatives, seed):
    asked = {
        "retryable": retryable,
        "attempt": attempt,
        "max_attempts": max_attempts,
        "alternatives": alternatives,
        "base_s": 2.0,
        "maximum_s": 900.0,
        "seed": seed,
    }
    decided = decide(code, "because", **asked)
    assert decided == decide(code, "because", **asked)
    assert decided.reason.startswith("because")
    if isinstance(decided, Retry):
        assert attempt < max_attempts
        assert code not in PERMANENT
        assert alternatives or code not in OF_THE_SOURCE
        assert retryable or code in OF_THE_SOURCE | RETRYABLE
        assert 1.0 <= decided.delay_s <= 900.0
    # what is given up is given up with more attempts and fewer sources, too
    if isinstance(decided, GiveUp):
        later = decide(code, "because", **(asked | {"attempt": attempt + 1, "alternatives": 0}))
        assert isinstance(later, GiveUp)


@laws
@given(st.floats(-1e6, 1e8), st.floats(0, 1e8), st.floats(1, 1e5))
def test_a_stuck_rule_waits_longer_but_not_for_ever(age, more, base):
    wait = stuck_wait(age, base_s=base)
    assert base <= wait <= 4 * base
    assert stuck_wait(age + more, base_s=base) >= wait


@laws
@given(st.lists(st.sampled_from(list(states.RuleEvent)), max_size=30))
def test_a_rule_that_rests_is_moved_by_nothing_but_its_own_event(events):
    state = states.Rule.INJECT
    leaves = {
        states.Rule.SUSPENDED: {states.RuleEvent.RESUMED},
        states.Rule.WAITING_APPROVAL: {states.RuleEvent.APPROVED},
    }
    for event in events:
        if event not in states.RULE_TRANSITIONS[state]:
            with pytest.raises(states.IllegalTransition, match=f"{event.value}.*{state.value}"):
                states.advance(states.RULE_TRANSITIONS, state, event)
            continue
        following = states.advance(states.RULE_TRANSITIONS, state, event)
        assert state not in leaves or event in leaves[state]
        assert following is not states.Rule.WAITING_APPROVAL
        state = following


def test_every_state_can_be_reached_and_every_one_but_the_last_left():
    for table, first in (
        (states.RULE_TRANSITIONS, {states.Rule.INJECT, states.Rule.WAITING_APPROVAL}),
        (states.LOCK_TRANSITIONS, {states.Lock.REPLICATING, states.Lock.STUCK}),
        (states.REQUEST_TRANSITIONS, {states.Request.QUEUED}),
    ):
        found, todo = set(first), list(first)
        while todo:
            fresh = set(table[todo.pop()].values()) - found
            found |= fresh
            todo += fresh
        assert found == set(table)
