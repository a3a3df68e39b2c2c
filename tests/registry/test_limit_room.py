"""What fits into limits: the arithmetic, without a catalogue."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.registry.services.limit_room import Demand, Room, Shared, room_left

A, B, C = 1, 2, 3


def room(left: dict[int, float], *shared: tuple[set[int], float]) -> Room:
    return Room(dict(left), [Shared("x", frozenset(ids), size) for ids, size in shared])


@pytest.mark.parametrize(
    ("left", "shared", "demand", "fits"),
    [
        ({}, (), Demand(10**18, 3, (A, B, C)), True),
        ({A: 100}, (), Demand(100, 1, (A,)), True),
        ({A: 99}, (), Demand(100, 1, (A,)), False),
        ({A: 99}, (), Demand(100, 1, (A, B)), True),
        ({A: 99}, (), Demand(100, 2, (A, B)), False),
        ({A: 0}, (), Demand(100, 1, (A,), {A: 100}), True),
        ({A: -5}, (), Demand(0, 1, (A,)), True),
        ({A: 50, B: 50}, (), Demand(100, 1, (A, B)), False),
        ({A: 50, B: 50}, (), Demand(100, 1, (A, B), divisible=True), True),
        ({A: 50, B: 49}, (), Demand(100, 1, (A, B), divisible=True), False),
        ({A: 50}, (), Demand(100, 2, (A, B), divisible=True), False),
        ({A: 50}, (), Demand(100, 2, (A, B), {A: 50}, divisible=True), True),
        ({}, (({A, B}, 150),), Demand(100, 2, (A, B)), False),
        ({}, (({A, B}, 150),), Demand(100, 2, (A, B, C)), True),
        ({}, (({A, B}, 150),), Demand(100, 1, (A, B)), True),
        ({}, (({A, B}, 150),), Demand(100, 2, (A, B), {A: 100}), True),
        ({}, (({A, B}, 150),), Demand(100, 2, (A, B), divisible=True), False),
        ({}, (({A, B}, 100), ({B, C}, 100)), Demand(100, 2, (A, B, C)), True),
        ({}, (({A, B}, 100), ({B, C}, 100)), Demand(100, 3, (A, B, C)), False),
        ({A: 1}, (), Demand(1, 1, ()), False),
    ],
)
def test_what_fits(left, shared, demand, fits):
    measured = room(left, *shared)
    before = (dict(measured.left), [one.left for one in measured.shared])
    assert measured.take(demand) is fits
    if not fits:
        assert (measured.left, [one.left for one in measured.shared]) == before


def test_what_is_taken_is_gone():
    measured = room({A: 250}, ({A, B}, 300))
    assert measured.take(Demand(100, 2, (A, B)))
    assert (measured.left, measured.shared[0].left) == ({A: 150}, 100)
    assert not measured.take(Demand(100, 2, (A, B)))
    assert measured.take(Demand(100, 1, (A, B)))
    assert measured.shared[0].left == 0
    measured.force(Demand(70, 1, (A,)))
    assert measured.shared[0].left == -70


def test_what_is_used_is_taken_off():
    measured = room_left({A: 100}, [("A|B", frozenset({A, B}), 120)], {A: 30, B: 40, C: 5})
    assert (measured.left, measured.shared[0].left) == ({A: 70}, 50)


@given(
    left=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    shared=st.lists(st.tuples(st.sets(st.integers(0, 4), min_size=1), st.integers(0, 40)), max_size=3),
    size=st.integers(0, 20),
    copies=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_set_is_found_if_there_is_one(left, shared, size, copies, seed):
    ids = list(range(len(left)))
    held = {one: random.Random(f"{seed} {one}").randint(0, size) for one in ids if one % 2}
    demand = Demand(size, copies, ids, held)
    measured = room(dict(enumerate(left)), *shared)

    def fits(chosen: tuple[int, ...]) -> bool:
        return all(demand.missing(one) <= left[one] for one in chosen) and all(
            sum(demand.missing(one) for one in chosen if one in members) <= most
            or not any(demand.missing(one) for one in chosen if one in members)
            for members, most in shared
        )

    assert measured.take(demand) is any(fits(chosen) for chosen in combinations(ids, copies))


def test_a_thousand_copies_on_ten_thousand_rses_cost_no_search():
    measured = room({}, (set(range(5000)), 10**18))
    assert measured.take(Demand(1, 1000, range(10_000)))


@given(
    left=st.dictionaries(st.integers(0, 4), st.integers(-5, 40), max_size=5),
    shared=st.lists(st.tuples(st.sets(st.integers(0, 4), min_size=1), st.integers(-5, 80)), max_size=3),
    sizes=st.lists(st.integers(0, 20), max_size=4),
    copies=st.integers(1, 5),
    places=st.randoms(use_true_random=False),
)
def test_what_fits_anywhere_fits_wherever_it_is_put(left, shared, sizes, copies, places):
    measured = room(left, *shared)
    if measured.takes_anywhere(sum(sizes), copies):
        for size in sizes:
            chosen = places.sample(range(5), copies)
            assert measured.take(Demand(size, copies, chosen))


def test_what_does_not_fit_somewhere_does_not_fit_anywhere():
    assert room({}).takes_anywhere(10**18, 9)
    assert room({A: 10}, ({A, B}, 20)).takes_anywhere(10, 2)
    assert not room({A: 9}).takes_anywhere(10, 1)
    assert not room({}, ({A, B}, 19)).takes_anywhere(10, 2)
    assert not room({A: -1}).takes_anywhere(0, 1)
