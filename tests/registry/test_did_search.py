"""Filters of metadata and names: the same answers from SQLite, from PostgreSQL and from a reading of them in Python."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from arriero.registry.errors import InvalidInput
from arriero.registry.schema.tables import dids as dids_table
from arriero.registry.services import did_lists, dids
from arriero.registry.services.did_filters import read_filters
from arriero.registry.services.dids import NewCollection
from arriero.registry.store.did_search import Condition, Operator, after_prefix
from arriero.registry.store.json_filters import instant_of, number_of
from support.database import migrated_database
from support.in_process import InProcess
from support.services import drop_database

VALUES = [
    *(0, 1, -1, 2, 10, 20241108, 2**53, 2**53 + 1, 10**15, 10**14),
    *(0.1, 1.0, -2.5, 10.0, 1e16, 20241108.5),
    *(True, False, None),
    *(
        "",
        "a",
        "A",
        "ab",
        "a*b",
        "a_b",
        "a%b",
        "[ab]",
        "é",
        "☃",
        "1",
        "01",
        "1.0",
        "-2.5",
        "1e3",
        "10",
        "true",
        "True",
    ),
    *("2024-11-08", "2024-11-08T00:00:00", "2024-11-08 01:02:03", "2024-11-08T01:02:03.500Z", "2024-11-09"),
    *([1], ["a"], [], {"k": 1}, {}),
]
KEYS = ["k", "night", "a.b", 'x"y', "rubin_sidecar"]
PATTERNS = ["a*", "*b", "?", "a?b", "*", "2024*", "[a*", "*_*", "-*", "☃?"]
WORDS = st.one_of(
    st.sampled_from([value for value in VALUES if isinstance(value, (bool, int, float, str))]),
    st.sampled_from(PATTERNS),
    st.integers(-(10**6), 10**6),
    st.text(max_size=4).filter(lambda text: "\x00" not in text),
)


def _text_of(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15:
        return str(value)
    return None


def _equal(value: object, one: Condition) -> bool:
    if isinstance(value, str):
        spellings = {one.spelt}
        if isinstance(one.value, datetime):
            iso = one.value.replace(tzinfo=None).isoformat()
            spellings |= {iso, iso.replace("T", " ")}
        return value in spellings
    if isinstance(value, bool) or isinstance(one.value, bool):
        return value is one.value
    return isinstance(value, (int, float)) and isinstance(one.value, (int, float)) and value == one.value


def _ordered(value: object, one: Condition) -> bool:
    left: object
    right: object
    if isinstance(one.value, datetime):
        left = instant_of(value) if isinstance(value, str) else None
        right = instant_of(one.value.replace(tzinfo=None).isoformat())
    elif isinstance(one.value, str):
        left, right = (value.encode() if isinstance(value, str) else None), one.value.encode()
    else:
        right = one.value
        left = number_of(value) if isinstance(value, str) else value
        left = None if isinstance(left, bool) or not isinstance(left, (int, float)) else left
    if left is None:
        return False
    return {
        Operator.GT: left > right,
        Operator.GTE: left >= right,
        Operator.LT: left < right,
        Operator.LTE: left <= right,
    }[one.operator]


def _fits(meta: dict[str, object], one: Condition) -> bool:
    value = meta.get(one.key)
    if one.is_pattern:
        if set(one.spelt) == {"*"}:
            return True
        text = _text_of(value)
        pattern = fnmatch.translate(one.spelt.replace("[", "[[]"))
        fits = text is not None and re.match(pattern, text) is not None
    elif one.operator in (Operator.EQ, Operator.NE):
        fits = _equal(value, one)
    else:
        return _ordered(value, one)
    return fits if one.operator is Operator.EQ else value is not None and not fits


@pytest.fixture(scope="module")
def both(services, tmp_path_factory) -> Iterator[list[InProcess]]:
    made = []
    for kind in ("sqlite", "postgresql"):
        site = InProcess(migrated_database(services, kind, tmp_path_factory.mktemp(f"search-{kind}")))
        site.scope()
        made.append(site)
    yield made
    for site in made:
        site.close()
        drop_database(services, site.url)


def found(site: InProcess, filters: object, **options: object) -> list[str]:
    given = {"did_type": "collection", "long": False, "recursive": False, **options}
    return list(did_lists.search(site.context, "raw", filters=repr(filters), **given))


@pytest.fixture(scope="module")
def described(both) -> dict[str, dict[str, object]]:
    made = {}
    for number, value in enumerate(VALUES):
        made[f"set{number:02d}"] = {key: value for key in KEYS if (number + len(key)) % 4 or key == "k"}
    made["without"] = {}
    for site in both:
        new = [NewCollection("raw", name, "DATASET", meta=meta) for name, meta in made.items()]
        dids.add_collections(site.context, site.root, new)
    return made


GROUPS = st.lists(
    st.dictionaries(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(["", ".eq", ".ne", ".gt", ".gte", ".lt", ".lte"])),
        WORDS,
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=GROUPS)
@example(groups=[{("k", ".gte"): "10"}])
@example(groups=[{("k", ".gt"): 2**53}])
@example(groups=[{("k", ".ne"): "1"}])
@example(groups=[{("k", ".lt"): "2024-11-08 12:00:00"}])
@example(groups=[{("k", ".lt"): "b"}])
@example(groups=[{("k", ""): "1e400"}])
def test_everybody_gives_the_same_answer(both, described, groups):
    filters = []
    for group in groups:
        named = {}
        for (key, operator), value in group.items():
            # a dot in a key needs its operator
            named[f"{key}{operator or ('.eq' if '.' in key else '')}"] = value
        filters.append(named)
    try:
        read = read_filters(repr(filters), "collection")
    except InvalidInput:
        for site in both:
            with pytest.raises(InvalidInput):
                found(site, filters)
        return
    expected = sorted(
        name
        for name, meta in described.items()
        if any(all(_fits(meta, one) for one in group.conditions) for group in read)
    )
    for site in both:
        assert found(site, filters) == expected, site.url.partition(":")[0]


NAMES = [
    "a",
    "A",
    "ab",
    "aB",
    "a/b",
    "a[b",
    "a%b",
    "a_b",
    "b",
    "é",
    "été/x",
    "☃",
    "\U0001f600",
    "~",
    "\ud7ff",
]


@pytest.fixture(scope="module")
def names(both, described) -> list[str]:
    for site in both:
        new = [NewCollection("raw", f"n/{name}", "CONTAINER") for name in NAMES]
        dids.add_collections(site.context, site.root, new)
    return sorted(f"n/{name}" for name in NAMES)


@pytest.mark.parametrize(
    "pattern", ["*", "a*", "?", "a?b", "*b", "*[*", "%", "a_*", "é*", "☃*", "A*", "\ud7ff*"]
)
def test_patterns_of_names(both, names, pattern):
    expected = [
        name for name in names if re.match(fnmatch.translate(f"n/{pattern}".replace("[", "[[]")), name)
    ]
    for site in both:
        assert found(site, [{"name": f"n/{pattern}"}], did_type="container") == expected
        others = found(site, [{"name.ne": f"n/{pattern}"}], did_type="container")
        assert others == [name for name in names if name not in expected]


def test_pages_follow_each_other(both, names):
    for site in both:
        pages, last = [], None
        while page := found(site, [], did_type="container", limit=3, behind=last):
            pages += page
            last = page[-1]
        assert pages == names


def test_what_is_behind_a_prefix():
    assert after_prefix("ab") == "ac"
    assert after_prefix("a\U0010ffff") == "b"
    assert after_prefix("\U0010ffff") is None
    assert after_prefix("\ud7ff") == "\ue000"


@pytest.mark.parametrize(
    "filters",
    [
        [{"k.gt": "a*"}],
        [{"k.like": "a"}],
        [{"name.gt": "a"}],
        [{"length.gt": "long"}],
        [{"created_at.gt": "yesterday"}],
        [{"monotonic": "perhaps"}],
        [{"k.gt": True}],
        [{"type": "heap"}],
        [{"k": 2**64}],
        [{"k": None}],
        [{"": 1}],
        [{"created_after": "2024-01-01", "created_at.gte": "2024-01-01"}],
        [{f"k{number}": 1 for number in range(101)}],
    ],
)
def test_what_makes_no_sense_is_refused(both, filters):
    for site in both:
        with pytest.raises(InvalidInput):
            found(site, filters)


def test_columns(both, described):
    for site in both:
        site.rse("SITE")
        site.files("SITE", ["f1", "f2", "f3"])
        site.dataset("full", ["f1", "f2"])
        site.container("top", ["full"])
        assert found(site, [{"length.gte": 2}]) == ["full"]
        assert found(site, [{"length": "1"}], did_type="all") == ["f1", "f2", "f3", "top"]
        assert found(site, [{"bytes.gt": 999.5}], did_type="file") == ["f1", "f2", "f3"]
        assert found(site, [{"created_after": "2020-01-01", "name": "f?"}], did_type="all") == [
            "f1",
            "f2",
            "f3",
        ]
        assert found(site, [{"created_before": "2020-01-01T00:00:00"}], did_type="all") == []
        assert found(site, [{"adler32": "0000002a", "name.ne": "f1", "type": "file"}]) == ["f2", "f3"]
        assert found(site, [{"account": "root", "name": "full"}, {"name": "top"}]) == ["full", "top"]
        assert found(site, [{"name": "top"}], recursive=True) == ["full", "top"]
        assert found(site, [{"name": "top"}], recursive=True, did_type="file") == ["f1", "f2"]
        assert found(site, [{"name": "top"}], recursive=True, did_type="all") == ["f1", "f2", "full", "top"]
        with site.database.transaction() as connection:
            connection.execute(delete(dids_table).where(dids_table.c.name == "nothing"))
