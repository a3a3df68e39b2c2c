"""The closed vocabulary by which an instrument map turns header values into dimension values.

Why it exists: instruments are data (YAML), and data must not be able to do anything but this. Each rule is
one pydantic model with one pure `evaluate`; a new instrument that needs a new word gets one here, with a
test. No I/O, no Butler.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

from astropy.time import Time
from erfa import ErfaWarning  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from arriero.agent.ingest.errors import HeaderError

NS_PER_DAY = 86_400_000_000_000
MJD_1970 = 40_587
"""MJD of 1970-01-01T00:00:00, from which the Butler counts TAI nanoseconds."""

MAX_NS = (datetime(2100, 1, 1) - datetime(1970, 1, 1)).days * NS_PER_DAY  # noqa: DTZ001 - TAI has no zone
"""The Butler refuses times from 2100-01-01 TAI on."""

SCALES = ("tai", "utc", "tt", "tdb")
"""Scales that astropy converts to TAI without tables from the network."""

YEAR_STEP = 1000 * 10_000
"""A controller's place in its list moves the year of the observing day by a thousand."""

MAX_SEQ_NUM = 99_999


@dataclass(frozen=True, slots=True)
class TaiSpan:
    """A half-open span of TAI, in nanoseconds since 1970-01-01T00:00:00 TAI (as the Butler stores it)."""

    begin_ns: int
    end_ns: int


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
    | SequenceEnd,
    Field(discriminator="transform"),
]


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


@lru_cache(maxsize=4096)
def tai_nanoseconds(raw: str | float, scale: str) -> int:
    """Return a time as TAI nanoseconds since 1970-01-01T00:00:00 TAI.

    Parameters
    ----------
    raw
        ISO 8601 without a zone, or an MJD in days.
    scale
        One of `SCALES`.

    Raises
    ------
    ValueError
        If it is no time, or outside of 1970 to 2100.
    """
    # Cached: all detectors of an exposure have the same times, and astropy needs 0.1 ms for each.
    if scale not in SCALES:
        raise ValueError(f"time scale {scale} is none of {', '.join(SCALES)}")
    with warnings.catch_warnings():
        # Leap seconds of the years to come are not known; simulations live there.
        warnings.simplefilter("ignore", ErfaWarning)
        if isinstance(raw, str):
            time = Time(raw.strip(), format="isot", scale=scale).tai
        else:
            time = Time(finite_number(raw, optional=False), format="mjd", scale=scale).tai
    # Split so that whole days stay integers; a double alone holds a date only to about 40 microseconds.
    days = round(float(time.jd1) - 2_400_000.5 - MJD_1970)
    rest = (float(time.jd1) - 2_400_000.5 - MJD_1970 - days) + float(time.jd2)
    nanoseconds = days * NS_PER_DAY + round(rest * NS_PER_DAY)
    if not 0 <= nanoseconds < MAX_NS:
        raise ValueError("outside of 1970 to 2100")
    return nanoseconds
