from __future__ import annotations

import math
from datetime import date, datetime

import pytest
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.daf.butler import Timespan
from pydantic import TypeAdapter

from arriero.agent.ingest.errors import HeaderError
from arriero.agent.ingest.rules import AnyRule
from arriero.agent.ingest.tai import TaiSpan, tai_nanoseconds

RULES: TypeAdapter = TypeAdapter(AnyRule)


def evaluate(rule: dict, header: dict | None = None, values: dict | None = None):
    return RULES.validate_python(rule).evaluate(header or {}, values or {})


@pytest.mark.parametrize(
    ("rule", "header", "value"),
    [
        ({"as": "int", "key": "DAYOBS"}, {"DAYOBS": "20241108"}, 20241108),
        ({"as": "int", "key": "SEQNUM"}, {"SEQNUM": 266.0}, 266),
        ({"as": "int", "key": ["A", "B"]}, {"A": None, "B": 2}, 2),
        ({"as": "int", "key": "A", "default": 1}, {}, 1),
        ({"as": "float", "key": "RA", "optional": True}, {}, None),
        ({"as": "float", "key": "RA", "optional": True}, {"RA": math.nan}, None),
        ({"as": "float", "key": "RA"}, {"RA": "55.6"}, 55.6),
        ({"as": "str", "key": "OBJECT"}, {"OBJECT": " ECDFS  "}, "ECDFS"),
        ({"as": "zenith_angle", "key": "EL"}, {"EL": 66.0}, 24.0),
        (
            {"as": "lookup", "key": "T", "table": {"OBJECT": "science"}, "otherwise": "lower"},
            {"T": "BIAS"},
            "bias",
        ),
        ({"as": "lookup", "key": "T", "table": {"OBJECT": "science"}}, {"T": "OBJECT"}, "science"),
        ({"as": "constant", "value": False}, {}, False),
    ],
)
def test_header_rules(rule, header, value):
    assert evaluate(rule, header) == value


@pytest.mark.parametrize(
    ("rule", "header"),
    [
        ({"as": "int", "key": "N"}, {}),
        ({"as": "int", "key": "N"}, {"N": True}),
        ({"as": "int", "key": "N"}, {"N": 1.5}),
        ({"as": "int", "key": "N"}, {"N": [1]}),
        ({"as": "float", "key": "N"}, {"N": "inf"}),
        ({"as": "lookup", "key": "T", "table": {"A": 1}}, {"T": "B"}),
        ({"as": "time_tai", "key": "D"}, {"D": "yesterday"}),
        ({"as": "time_tai", "key": "D"}, {"D": "2124-11-09T00:00:00"}),
        ({"as": "time_tai", "key": "D", "scale_key": "S"}, {"D": "2024-11-09T00:00:00", "S": "LMT"}),
    ],
)
def test_header_that_will_not_do_names_the_keyword(rule, header):
    with pytest.raises(HeaderError) as caught:
        evaluate(rule, header)
    assert rule["key"] in str(caught.value)


@pytest.mark.parametrize(
    "rule", [{"as": "eval", "key": "A"}, {"as": "int", "key": "A", "code": "1"}, {"key": "A"}]
)
def test_unknown_words_are_refused(rule):
    with pytest.raises(ValueError, match=r"as|extra|tag"):
        RULES.validate_python(rule)


def observation(day: int, number: int, controller: str) -> int:
    rule = {"as": "day_obs_seq_num", "fields": ["d", "n", "c"], "controllers": "OCHPSQ"}
    return evaluate(rule, values={"d": day, "n": number, "c": controller})


def test_exposure_number():
    assert observation(20241108, 266, "O") == 2024110800266
    assert observation(20241108, 266, "C") == 3024110800266
    assert observation(20501231, 99999, "Q") == 7050123199999, "the greatest is Rubin's exposure_max"
    for wrong in (("20241108", 266, "X"), (20241108, 100_000, "O"), (20241108, -1, "O"), (20241108, 1, "OC")):
        with pytest.raises(HeaderError):
            observation(*wrong)


days = st.dates(date(2000, 1, 1), date(2050, 12, 31)).map(lambda d: int(d.strftime("%Y%m%d")))
numbers = st.tuples(days, st.integers(0, 99_999), st.sampled_from("OCHPSQ"))


@settings(deadline=None)
@given(numbers, numbers)
def test_exposure_numbers_are_different_for_different_exposures(one, other):
    assert (observation(*one) == observation(*other)) == (one == other)


@settings(deadline=None)
@given(
    # No zone: what the header's scale says.
    st.datetimes(datetime(1972, 1, 1), datetime(2026, 1, 1)),  # noqa: DTZ001
    st.sampled_from(["tai", "utc", "tt"]),
)
def test_times_are_the_butlers_to_the_nanosecond(when, scale):
    text = when.isoformat(timespec="milliseconds")
    begin = Time(text, format="isot", scale=scale)
    end = Time("2050-01-01T00:00:00", scale="tai")
    assert tai_nanoseconds(text, scale) == Timespan(begin, end).nsec[0]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" 2024-11-09T03:00:00 ", "2024-11-09T03:00:00.000"),
        ("2024-11-09T03:00", "2024-11-09T03:00:00.000"),
        ("2024-11-09", "2024-11-09T00:00:00.000"),
        ("2024-11-09T03:00:00.123456789", "2024-11-09T03:00:00.1234567890"),
    ],
)
def test_all_forms_of_iso_in_tai_are_the_same_time(text, same):
    assert tai_nanoseconds(text, "tai") == tai_nanoseconds(same, "tai")


@pytest.mark.parametrize(
    "text", ["2024-13-09T03:00:00", "2024-11-09T03:00:00Z", "2024-11-09T25:00:00", "soon"]
)
def test_what_is_no_time_in_tai(text):
    with pytest.raises(ValueError):
        tai_nanoseconds(text, "tai")


def test_mjd_and_iso_agree():
    assert abs(tai_nanoseconds(60623.125, "tai") - tai_nanoseconds("2024-11-09T03:00:00", "tai")) <= 1


def test_span():
    rule = {"as": "span", "fields": ["b", "e"]}
    assert evaluate(rule, values={"b": 5, "e": 9}) == TaiSpan(5, 9)
    assert evaluate(rule, values={"b": 5, "e": 5}) == TaiSpan(5, 6), "a bias takes no time, a span must"
    with pytest.raises(HeaderError, match="before b"):
        evaluate(rule, values={"b": 5, "e": 4})


@settings(deadline=None)
@given(days)
def test_observing_day_is_the_butlers(day):
    span = evaluate({"as": "observing_day", "fields": ["d"], "offset_hours": 12}, values={"d": day})
    assert (span.begin_ns, span.end_ns) == Timespan.from_day_obs(day, offset=12 * 3600).nsec


def test_observing_day_must_be_a_date():
    with pytest.raises(HeaderError, match="20241399"):
        evaluate({"as": "observing_day", "fields": ["d"], "offset_hours": 12}, values={"d": 20241399})


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 20), st.integers(0, 20))
def test_sequence_holds_its_members(number, length, later):
    index = min(1 + later, length)
    values = {"n": number, "i": index, "l": length}
    start = evaluate({"as": "sequence_start", "fields": ["n", "i"]}, values=values)
    end = evaluate({"as": "sequence_end", "fields": ["n", "i", "l"]}, values=values)
    assert start <= number <= end
    assert end - start == length - 1
