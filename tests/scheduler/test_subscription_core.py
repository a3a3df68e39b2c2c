"""Which DIDs a filter takes, and which rules templates make: the pure part, by example and by properties."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.scheduler.core.choose import Candidate
from arriero.scheduler.core.subscription_filters import DidFacts, DidFilter, UnusableSubscription
from arriero.scheduler.core.subscriptions import Storage, read_templates, wanted_rules

DATASET = DidFacts(
    1,
    "raw",
    "LSSTCam/20241108",
    "DATASET",
    "alice",
    is_open=False,
    meta={"night": 20241108, "band": "r", "good": True, "tags": ["a", "b"], "none": None, "seeing": 0.7},
)


@pytest.mark.parametrize(
    ("given_filter", "taken"),
    [
        ({"scope": ["calib", "ra"]}, True),
        ({"scope": "raw$"}, True),
        ({"scope": ["aw"]}, False),
        ({"pattern": "LSST"}, True),
        ({"pattern": ".*/2024"}, True),
        ({"pattern": "2024"}, False),
        ({"pattern": ".*", "excluded_pattern": ".*1108"}, False),
        ({"excluded_pattern": "1108"}, True),
        ({"account": ["bob", "alice"]}, True),
        ({"account": "ali"}, False),
        ({"did_type": ["CONTAINER"]}, False),
        ({"did_type": "dataset"}, True),
        ({"did_type": ["FILE"]}, False),
        ({"is_open": False}, True),
        ({"is_open": "False"}, True),
        ({"is_open": True}, False),
        ({"night": 20241108}, True),
        ({"night": ["2024"]}, True),
        ({"night": "1108"}, False),
        ({"band": ["g", "r"]}, True),
        ({"band": "[gr]$"}, True),
        ({"good": True}, True),
        ({"good": "true"}, True),
        ({"good": 1}, False),
        ({"tags": "b"}, True),
        ({"tags": "c"}, False),
        ({"seeing": 0.7}, True),
        ({"none": ".*"}, False),
        ({"absent": ".*"}, False),
        ({"night": 20241108, "band": "g"}, False),
        ({"split_rule": True, "pattern": ".*"}, True),
    ],
)
def test_filters(given_filter, taken):
    refusal = DidFilter(given_filter).refusal(DATASET)
    assert (refusal is None) is taken
    assert refusal is None or refusal.strip()


def test_files_are_taken_only_where_a_filter_says_so():
    file = DidFacts(2, "raw", "a.fits", "FILE", "alice", bytes=5)
    assert DidFilter({"pattern": ".*"}).refusal(file) == "it is a FILE"
    assert DidFilter({"pattern": ".*", "did_type": ["file"]}).refusal(file) is None
    assert DidFilter({"bytes": 5, "did_type": ["FILE"]}).refusal(file) is None


@pytest.mark.parametrize(
    ("files", "size", "taken"), [(0, 0, False), (2, 20, True), (2, 19, False), (3, 60, True), (1, 21, False)]
)
def test_average_sizes(files, size, taken):
    found = DidFilter({"min_avg_file_size": 10, "max_avg_file_size": 20})
    assert found.needs_sizes
    assert (found.size_refusal(files, size) is None) is taken
    assert DidFilter({"scope": "raw"}).size_refusal(0, 0) is None


def test_a_pattern_that_cannot_be_read_is_a_fault_of_the_subscription():
    with pytest.raises(UnusableSubscription) as fault:
        DidFilter({"pattern": "("})
    assert fault.value.code == "invalid_pattern"


def storage(*rses: tuple[str, dict[str, str]], blocked: tuple[str, ...] = ()) -> Storage:
    return Storage(
        Candidate(number, name, name not in blocked, None, attributes)
        for number, (name, attributes) in enumerate(rses, 1)
    )


SITES = storage(
    ("SLAC", {"site": "slac", "tier": "0", "associated_sites": "IN2P3,LANCS"}),
    ("SLAC2", {"site": "slac", "tier": "1"}),
    ("IN2P3", {"site": "in2p3", "tier": "1", "associated_sites": "SLAC"}),
    ("LANCS", {"site": "lancs", "tier": "1"}),
)


def wanted(templates, *, rses=SITES, splits=False, held=frozenset(), seed="s", key="raw:d"):
    return wanted_rules(read_templates(templates, splits=splits), rses, seed=seed, key=key, held=held)


def test_a_star_is_as_many_copies_as_there_are_rses():
    found = wanted([{"rse_expression": "tier=1", "copies": "*"}])
    assert [(one.rse_expression, one.copies) for one in found.rules] == [("tier=1", 3)]
    split = wanted([{"rse_expression": "tier=1", "copies": "*"}], splits=True)
    assert sorted((one.rse_expression, one.copies) for one in split.rules) == [
        ("IN2P3", 1),
        ("LANCS", 1),
        ("SLAC2", 1),
    ]


def test_split_rules_leave_out_what_is_blocked_and_say_so():
    blocked = storage(
        *((name, dict(one.attributes)) for name, one in SITES.by_name.items()), blocked=("IN2P3",)
    )
    found = wanted([{"rse_expression": "tier=1", "copies": "*", "split_rule": True}], rses=blocked)
    assert sorted(one.rse_expression for one in found.rules) == ["LANCS", "SLAC2"]
    [unmet] = found.unmet
    assert (unmet.code, "IN2P3 is blocked for writing" in unmet.reason) == ("not_enough_rses", True)


def test_an_associated_site_follows_its_template():
    chained = {"rse_expression": "*", "copies": 1, "chained_idx": 1, "algorithm": "associated_site"}
    found = wanted([{"rse_expression": "SLAC", "copies": 1}, {**chained, "associated_site_idx": 2}])
    assert [(one.rse_expression, one.copies, one.source) for one in found.rules] == [
        ("SLAC", 1, None),
        ("LANCS", 1, "SLAC"),
    ]
    # one that names no associated sites has none; one that names too few says so
    assert (
        len(wanted([{"rse_expression": "LANCS", "copies": 1}, {**chained, "associated_site_idx": 1}]).rules)
        == 1
    )
    short = wanted([{"rse_expression": "IN2P3", "copies": 1}, {**chained, "associated_site_idx": 2}])
    assert (len(short.rules), short.unmet[0].code) == (1, "associated_site")


def test_another_site_follows_its_template():
    templates = [
        {"rse_expression": "SLAC|SLAC2", "copies": 1, "split_rule": True},
        {"rse_expression": "tier=1", "copies": 1, "chained_idx": 1, "algorithm": "exclude_site"},
    ]
    first, second = wanted(templates).rules
    assert first.rse_expression in {"SLAC", "SLAC2"}
    assert second.rse_expression in {"IN2P3", "LANCS"}
    assert second.source == first.rse_expression


@pytest.mark.parametrize(
    ("templates", "code"),
    [
        ([{"rse_expression": "NOWHERE", "copies": 1}], "invalid_expression"),
        ([{"rse_expression": "a|", "copies": 1}], "invalid_expression"),
        (
            [{"rse_expression": "*", "copies": 1, "chained_idx": 1, "algorithm": "exclude_site"}],
            "invalid_chain",
        ),
        (
            [
                {"rse_expression": "tier=1", "copies": 2},
                {"rse_expression": "*", "copies": 1, "chained_idx": 1, "algorithm": "exclude_site"},
            ],
            "invalid_chain",
        ),
    ],
)
def test_templates_that_cannot_be_used(templates, code):
    with pytest.raises(UnusableSubscription) as fault:
        wanted(templates)
    assert fault.value.code == code
    assert fault.value.reason


NAMES = [f"R{number}" for number in range(8)]


@st.composite
def storages(draw):
    chosen = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    weights = {name: draw(st.sampled_from(["0.5", "2", "7"])) for name in chosen}
    blocked = draw(st.sets(st.sampled_from(chosen)))
    return storage(
        *((name, {"tier": str(int(name[1:]) % 2), "w": weights[name]}) for name in chosen),
        blocked=tuple(blocked),
    )


@given(
    rses=storages(),
    copies=st.one_of(st.just("*"), st.integers(1, 9)),
    weight=st.sampled_from([None, "w"]),
    key=st.text(max_size=5),
)
def test_a_split_template(rses, copies, weight, key):
    template = {"rse_expression": "*", "copies": copies, "split_rule": True, "weight": weight}
    found = wanted([template], rses=rses, key=key)
    names = [one.rse_expression for one in found.rules]
    asked = len(rses.by_name) if copies == "*" else copies
    free = {name for name, one in rses.by_name.items() if one.writable}
    assert len(set(names)) == len(names) == min(asked, len(free))
    assert set(names) <= free
    assert all(one.copies == 1 and one.reason for one in found.rules)
    # what is missing says why
    assert (len(names) < asked) == bool(found.unmet)
    assert all(one.reason for one in found.unmet)
    # equal input, equal output; and what is there is not asked for again
    assert wanted([template], rses=rses, key=key) == found
    held = frozenset((name, None) for name in names)
    assert wanted([template], rses=rses, key=key, held=held).rules == ()


@given(rses=storages(), key=st.text(max_size=5))
def test_chained_templates_ask_for_nothing_twice(rses, key):
    templates = [
        {"rse_expression": "*", "copies": 1, "split_rule": True},
        {"rse_expression": "*", "copies": 1, "chained_idx": 1, "algorithm": "exclude_site"},
    ]
    found = wanted(templates, rses=rses, key=key)
    for one in found.rules:
        assert one.source != one.rse_expression
    held = frozenset((one.rse_expression, one.source) for one in found.rules)
    assert wanted(templates, rses=rses, key=key, held=held).rules == ()


@given(
    name=st.text(min_size=1, max_size=20),
    pattern=st.sampled_from(["a", ".*", "[a-m]", "x|y", ""]),
    excluded=st.sampled_from([None, "b", ".*z"]),
)
def test_a_pattern_is_held_against_the_beginning(name, pattern, excluded):
    given_filter = {"pattern": pattern} | ({} if excluded is None else {"excluded_pattern": excluded})
    refusal = DidFilter(given_filter).refusal(DidFacts(1, "raw", name, "DATASET", "a"))
    fits = re.match(pattern, name) is not None
    out = excluded is not None and re.match(excluded, name) is not None
    assert (refusal is None) == (fits and not out)


@given(
    meta=st.dictionaries(
        st.sampled_from("abc"), st.one_of(st.none(), st.booleans(), st.integers(), st.text())
    )
)
def test_metadata_of_any_kind_is_no_error(meta):
    did = DidFacts(1, "raw", "d", "DATASET", "a", meta=meta)
    for wanted_value in ("x", 1, True, 0.5):
        refusal = DidFilter({"a": [wanted_value]}).refusal(did)
        assert refusal is None or "metadata a" in refusal
