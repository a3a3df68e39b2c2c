"""The rest of the closed vocabulary of instrument maps, and all of it as one type.

Why it exists: observatories write the same things in their own ways (a number within a name, hours and
minutes, a hash as a hexadecimal word). What Rubin's headers need is in `arriero.agent.ingest.transforms`; what others
need is here. Pure, as there.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from arriero.agent.ingest.errors import HeaderError
from arriero.agent.ingest.tai import MAX_NS
from arriero.agent.ingest.transforms import (
    Concat,
    Constant,
    DaySequence,
    FieldLookup,
    FieldRule,
    Float,
    Header,
    HeaderRule,
    Integer,
    Lookup,
    ObservingDay,
    SequenceEnd,
    SequenceStart,
    Span,
    Text,
    TimeTai,
    Value,
    Values,
    ZenithAngle,
)

DEGREES_PER_HOUR = 15.0
SIGNED_64 = 1 << 63
UNSIGNED_64 = 1 << 64


class Matched(HeaderRule):
    """The first group of a regular expression that is in a string, as text or as a whole number."""

    transform: Literal["match"] = Field(alias="as")
    pattern: str
    to: Literal["str", "int"] = "str"

    @field_validator("pattern")
    @classmethod
    def _has_groups(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if not groups:
            raise ValueError("it has no group")
        return pattern

    @override
    def convert(self, raw: Any, header: Header) -> str | int:
        found = re.search(self.pattern, str(raw))
        text = next((group for group in found.groups() if group is not None), None) if found else None
        if text is None:
            raise ValueError(f"no match for {self.pattern}")
        return int(text) if self.to == "int" else text


class Sexagesimal(HeaderRule):
    """Degrees from ``±dd:mm:ss.s``, or from ``hh:mm:ss.s`` when `hours`; a plain number is degrees already."""

    transform: Literal["sexagesimal"] = Field(alias="as")
    hours: bool = False

    @override
    def convert(self, raw: Any, header: Header) -> float | None:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            return float(raw)
        text = str(raw).strip()
        parts = [float(part) for part in text.lstrip("+-").split(":")]
        if len(parts) != 3 or not all(0 <= part < 60 for part in parts[1:]):
            raise ValueError("not hours or degrees, minutes and seconds")
        degrees = (parts[0] + parts[1] / 60 + parts[2] / 3600) * (DEGREES_PER_HOUR if self.hours else 1.0)
        return -degrees if text.startswith("-") else degrees


class SignedHash(HeaderRule):
    """A 64-bit hash, from a number or a hexadecimal word, as the signed number that databases hold."""

    transform: Literal["signed_hash"] = Field(alias="as")

    @override
    def convert(self, raw: Any, header: Header) -> int:
        number = int(raw, 16) if isinstance(raw, str) else int(raw)
        if not -SIGNED_64 <= number < UNSIGNED_64:
            raise ValueError("more than 64 bits")
        return number - UNSIGNED_64 if number >= SIGNED_64 else number


class AddSeconds(FieldRule):
    """A time some seconds after another; fields time and seconds."""

    transform: Literal["add_seconds"] = Field(alias="as")
    fields: tuple[str, str]

    @override
    def evaluate(self, header: Header, values: Values) -> int:
        begin, seconds = (values[name] for name in self.fields)
        end = begin + round(float(seconds) * 1e9)
        if not 0 <= end < MAX_NS:
            raise HeaderError(self.fields[1], f"{seconds} s later is outside of 1970 to 2100")
        return int(end)


class DayOf(FieldRule):
    """The observing day YYYYMMDD of a time, which begins `offset_hours` after midnight TAI."""

    transform: Literal["day_of"] = Field(alias="as")
    fields: tuple[str]
    offset_hours: float

    @override
    def evaluate(self, header: Header, values: Values) -> int:
        return _day_of(values[self.fields[0]], self.offset_hours)


@lru_cache(maxsize=4096)
def _day_of(nanoseconds: int, offset_hours: float) -> int:
    day = datetime(1970, 1, 1) + timedelta(seconds=nanoseconds // 1_000_000_000 - offset_hours * 3600)  # noqa: DTZ001
    return int(day.strftime("%Y%m%d"))


class Copied(FieldRule):
    """Another field's value as it is, or as text."""

    transform: Literal["field"] = Field(alias="as")
    fields: tuple[str]
    to: Literal["same", "str"] = "same"

    @override
    def evaluate(self, header: Header, values: Values) -> Value:
        value: Value = values[self.fields[0]]
        return str(value) if self.to == "str" and value is not None else value


AnyRule = Annotated[
    Integer
    | Float
    | ZenithAngle
    | Text
    | Lookup
    | TimeTai
    | Constant
    | FieldLookup
    | Concat
    | Span
    | ObservingDay
    | DaySequence
    | SequenceStart
    | SequenceEnd
    | Matched
    | Sexagesimal
    | SignedHash
    | AddSeconds
    | DayOf
    | Copied,
    Field(discriminator="transform"),
]
