"""The closed vocabulary by which an instrument map turns header values into dimension values.

Why it exists: instruments are data (YAML), and data must not be able to do anything but this. Each rule is
one pydantic model with one pure `evaluate`; a new instrument that needs a new word gets one here, with a
test. No I/O, no Butler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from arriero.agent.ingest.errors import HeaderError
from arriero.agent.ingest.tai import NS_PER_DAY, TaiSpan, tai_nanoseconds

YEAR_STEP = 1000 * 10_000
"""A controller's place in its list moves the year of the observing day by a thousand."""

MAX_SEQ_NUM = 99_999


Value = str | int | float | bool | TaiSpan | None
Header = Mapping[str, Any]
Values = Mapping[str, Any]


class Rule(BaseModel):
    """How one field is made; subclasses say from what."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def header_keys(self) -> tuple[str, ...]:
        """Return the header keywords that the rule reads."""
        return ()

    def needs(self) -> tuple[str, ...]:
        """Return the fields that must have been made before."""
        return ()

    def evaluate(self, header: Header, values: Values) -> Value:
        """Return the field's value.

        Parameters
        ----------
        header
            Header keyword -> value; a keyword that is absent or None is not there.
        values
            The fields made so far.

        Raises
        ------
        HeaderError
            If the header does not give one.
        """
        raise NotImplementedError


class HeaderRule(Rule):
    """A rule on the first of the keywords that is there; else `default_field`, else `default`."""

    key: str | tuple[str, ...]
    optional: bool = False
    default: str | int | float | bool | None = None
    default_field: str | None = None

    @property
    def candidates(self) -> tuple[str, ...]:
        """The keywords that may hold the value, best first."""
        return (self.key,) if isinstance(self.key, str) else self.key

    @override
    def header_keys(self) -> tuple[str, ...]:
        return self.candidates

    @override
    def needs(self) -> tuple[str, ...]:
        return (self.default_field,) if self.default_field else ()

    @override
    def evaluate(self, header: Header, values: Values) -> Value:
        for key in self.candidates:
            raw = header.get(key)
            if raw is None or raw == "":
                continue
            try:
                return self.convert(raw, header)
            except (TypeError, ValueError, OverflowError) as error:
                raise HeaderError(key, f"{raw!r} will not do ({error})") from error
        if self.default_field is not None:
            default: Value = values[self.default_field]
            return default
        if self.default is not None or self.optional:
            return self.default
        raise HeaderError(" or ".join(self.candidates), "it is not there")

    def convert(self, raw: Any, header: Header) -> Value:
        """Return the value made of a header value that is there."""
        raise NotImplementedError


class Integer(HeaderRule):
    """A whole number, also from a string such as ``'20241108'``."""

    transform: Literal["int"] = Field(alias="as")

    @override
    def convert(self, raw: Any, header: Header) -> int:
        return whole_number(raw)


class Float(HeaderRule):
    """A finite number; None when it is optional and not finite."""

    transform: Literal["float"] = Field(alias="as")

    @override
    def convert(self, raw: Any, header: Header) -> float | None:
        return finite_number(raw, optional=self.optional)


class ZenithAngle(HeaderRule):
    """90 degrees minus an elevation in degrees."""

    transform: Literal["zenith_angle"] = Field(alias="as")

    @override
    def convert(self, raw: Any, header: Header) -> float | None:
        elevation = finite_number(raw, optional=self.optional)
        return None if elevation is None else 90.0 - elevation


class Text(HeaderRule):
    """A string without surrounding blanks."""

    transform: Literal["str"] = Field(alias="as")

    @override
    def convert(self, raw: Any, header: Header) -> str:
        return str(raw).strip()


class Lookup(HeaderRule):
    """A value from a table; what the table lacks is refused, kept, or put in lower case."""

    transform: Literal["lookup"] = Field(alias="as")
    table: dict[str, str | int | float | bool]
    otherwise: Literal["refuse", "keep", "lower"] = "refuse"

    @override
    def convert(self, raw: Any, header: Header) -> Value:
        text = str(raw).strip()
        if text in self.table:
            return self.table[text]
        if self.otherwise == "refuse":
            raise ValueError(f"known are {', '.join(sorted(self.table))}")
        return text.lower() if self.otherwise == "lower" else text


class TimeTai(HeaderRule):
    """A time as TAI nanoseconds, from ISO 8601 or from an MJD; `scale_key` names the header's time scale."""

    transform: Literal["time_tai"] = Field(alias="as")
    scale_key: str | None = None
    scale: str = "utc"

    @override
    def header_keys(self) -> tuple[str, ...]:
        return (*self.candidates, *((self.scale_key,) if self.scale_key else ()))

    @override
    def convert(self, raw: Any, header: Header) -> int:
        scale = (header.get(self.scale_key) if self.scale_key else None) or self.scale
        return tai_nanoseconds(raw, str(scale).strip().lower())


class Constant(Rule):
    """The same value for every file."""

    transform: Literal["constant"] = Field(alias="as")
    value: str | int | float | bool | None

    @override
    def evaluate(self, header: Header, values: Values) -> Value:
        return self.value


class FieldRule(Rule):
    """A rule on fields that have been made before."""

    fields: tuple[str, ...]

    @override
    def needs(self) -> tuple[str, ...]:
        return self.fields


class FieldLookup(FieldRule):
    """A value from a table by another field's value; `default` for what the table lacks."""

    transform: Literal["field_lookup"] = Field(alias="as")
    fields: tuple[str]
    table: dict[str, str | int | float | bool]
    default: str | int | float | bool | None = None

    @override
    def evaluate(self, header: Header, values: Values) -> Value:
        return self.table.get(str(values[self.fields[0]]), self.default)


class Concat(FieldRule):
    """Fields joined by a separator."""

    transform: Literal["concat"] = Field(alias="as")
    separator: str = ""

    @override
    def evaluate(self, header: Header, values: Values) -> str:
        return self.separator.join(str(values[name]) for name in self.fields)


class Span(FieldRule):
    """The span between two times; an empty one lasts a nanosecond, as the Butler has it."""

    transform: Literal["span"] = Field(alias="as")
    fields: tuple[str, str]

    @override
    def evaluate(self, header: Header, values: Values) -> TaiSpan:
        begin, end = (values[name] for name in self.fields)
        if end < begin:
            raise HeaderError(self.fields[1], f"it is {(begin - end) / 1e9} s before {self.fields[0]}")
        return TaiSpan(begin, max(end, begin + 1))


class ObservingDay(FieldRule):
    """The 24 h of TAI that an observing day YYYYMMDD takes, from `offset_hours` after its midnight."""

    transform: Literal["observing_day"] = Field(alias="as")
    fields: tuple[str]
    offset_hours: float

    @override
    def evaluate(self, header: Header, values: Values) -> TaiSpan:
        day = values[self.fields[0]]
        try:
            midnight = datetime.strptime(str(day), "%Y%m%d")  # noqa: DTZ007 - TAI has no zone
        except ValueError as error:
            raise HeaderError(self.fields[0], f"{day} is no date YYYYMMDD") from error
        begin = (midnight - datetime(1970, 1, 1)) // timedelta(days=1) * NS_PER_DAY  # noqa: DTZ001
        begin += round(self.offset_hours * 3600) * 1_000_000_000
        return TaiSpan(begin, begin + NS_PER_DAY)


class DaySequence(FieldRule):
    """An observation's number: day YYYYMMDD * 100000 + sequence number, for controller O.

    The fields are day, sequence number and the controller's letter. Another letter of `controllers` adds
    its place times 1000 years, so that two controllers never make the same number; with six letters the
    greatest is 7050-12-31, which is the `exposure_max` of Rubin's instruments.
    """

    transform: Literal["day_obs_seq_num"] = Field(alias="as")
    fields: tuple[str, str, str]
    controllers: str

    @override
    def evaluate(self, header: Header, values: Values) -> int:
        day, number, controller = (values[name] for name in self.fields)
        place = self.controllers.find(controller) if len(controller) == 1 else -1
        if place < 0:
            raise HeaderError(self.fields[2], f"{controller!r} is none of {self.controllers}")
        if not 0 <= number <= MAX_SEQ_NUM:
            raise HeaderError(self.fields[1], f"{number} is not within 0..{MAX_SEQ_NUM}")
        return int((day + place * YEAR_STEP) * (MAX_SEQ_NUM + 1) + number)


class SequenceStart(FieldRule):
    """The first number of a sequence: number - (index - 1); fields number and index (from 1)."""

    transform: Literal["sequence_start"] = Field(alias="as")
    fields: tuple[str, str]

    @override
    def evaluate(self, header: Header, values: Values) -> int:
        number, index = (values[name] for name in self.fields)
        return int(number - (index - 1))


class SequenceEnd(FieldRule):
    """The last number of a sequence: number + (length - index); fields number, index and length."""

    transform: Literal["sequence_end"] = Field(alias="as")
    fields: tuple[str, str, str]

    @override
    def evaluate(self, header: Header, values: Values) -> int:
        number, index, length = (values[name] for name in self.fields)
        return int(number + max(length - index, 0))


def whole_number(raw: Any) -> int:
    """Return a header value as a whole number; refuse truth values and fractions."""
    if isinstance(raw, bool):
        raise TypeError("a truth value is no number")
    if isinstance(raw, float) and not raw.is_integer():
        raise ValueError("not a whole number")
    return int(raw)


def finite_number(raw: Any, *, optional: bool) -> float | None:
    """Return a header value as a finite number; None for one that is not, when optional."""
    if isinstance(raw, bool):
        raise TypeError("a truth value is no number")
    number = float(raw)
    if math.isfinite(number):
        return number
    if optional:
        return None
    raise ValueError("not finite")
