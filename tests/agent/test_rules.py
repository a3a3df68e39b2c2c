"""The words of instrument maps that observatories other than Rubin need, by what their headers say."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from arriero.agent.ingest.errors import HeaderError
from arriero.agent.ingest.rules import AnyRule

RULES = TypeAdapter(AnyRule)
EXPOSURE = {"as": "match", "key": "K", "pattern": r"HSC(?:E(\d{8})|A(\d{6})\d\d)", "to": "int"}
HASH = {"as": "signed_hash", "key": "K"}
NIGHT = 1_444_465_206_598_000_000  # 2015-10-10T08:20:06.598


@pytest.mark.parametrize(
    ("rule", "raw", "made"),
    [
        (EXPOSURE, "HSCA04090000", 40900),
        (EXPOSURE, "HSCE00904010", 904010),
        ({"as": "sexagesimal", "key": "K", "hours": True}, "01:24:37.737", 21.1572375),
        ({"as": "sexagesimal", "key": "K"}, "-00:00:05.699", -5.699 / 3600),
        ({"as": "sexagesimal", "key": "K"}, -27.5, -27.5),
        (HASH, "0xad349fe21234abcd", -5965967813042197555),
        (HASH, -5965967813042197555, -5965967813042197555),
    ],
)
def test_what_a_header_becomes(rule, raw, made):
    assert RULES.validate_python(rule).evaluate({"K": raw}, {}) == pytest.approx(made, rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "raw"),
    [
        (EXPOSURE, "SUPA04090000"),
        ({"as": "sexagesimal", "key": "K"}, "1:61:00"),
        ({"as": "sexagesimal", "key": "K"}, "noon"),
        (HASH, "0x1" + "0" * 16),
        (HASH, "none"),
    ],
)
def test_what_will_not_do_names_the_keyword(rule, raw):
    with pytest.raises(HeaderError, match="K"):
        RULES.validate_python(rule).evaluate({"K": raw}, {})


@pytest.mark.parametrize(("offset", "day"), [(0, 20151010), (12, 20151009), (8.5, 20151009)])
def test_the_day_of_a_time(offset, day):
    rule = RULES.validate_python({"as": "day_of", "fields": ["begin"], "offset_hours": offset})
    assert rule.evaluate({}, {"begin": NIGHT}) == day


def test_a_time_some_seconds_later():
    rule = RULES.validate_python({"as": "add_seconds", "fields": ["begin", "seconds"]})
    assert rule.evaluate({}, {"begin": NIGHT, "seconds": 1.5}) == NIGHT + 1_500_000_000
    with pytest.raises(HeaderError, match="2100"):
        rule.evaluate({}, {"begin": NIGHT, "seconds": 1e10})


@pytest.mark.parametrize("pattern", ["(", "no group"])
def test_a_pattern_that_gives_nothing_is_refused(pattern):
    with pytest.raises(ValidationError):
        RULES.validate_python({"as": "match", "key": "K", "pattern": pattern})
