"""Instrument maps: what a raw's header means to a Butler, as validated YAML.

Why it exists: an instrument is data. A map names the instrument's records, the dataset type of its raws, and
one rule per field from a closed vocabulary (`arriero.agent.ingest.transforms`); nothing in it is code. The
module turns a header into a data ID and dimension records as plain values; it must not import the Butler
nor read files other than maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from arriero.agent.ingest.errors import HeaderError, InstrumentMapError, MissingDimension
from arriero.agent.ingest.transforms import AnyRule, Header, Value

RECENT = 2000
"""Exposures whose records are kept: more than a batch has, a few MB at most."""

Record = Mapping[str, Value]
_Shared = tuple[Mapping[str, str | int], Mapping[str, Record]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))


class Universe(_Model):
    """The Butler's dimension universe that a map is written for."""

    namespace: str
    version: int


class InstrumentRecord(_Model):
    """The metadata columns of the instrument's own record."""

    class_name: str
    visit_max: int
    exposure_max: int
    detector_max: int
    visit_system: int


class Detector(_Model):
    """One detector's record."""

    id: int
    full_name: str
    raft: str | None = None
    name_in_raft: str | None = None
    purpose: str | None = None


class DatasetTypeMap(_Model):
    """The dataset type of the files; `formatters` is by the storage class that the repository has for it."""

    name: str
    dimensions: tuple[str, ...]
    run: str
    storage_class: str
    formatters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Description:
    """What a header says about its file.

    Attributes
    ----------
    data_id
        Dimension -> value, complete for the dataset type.
    records
        Element -> record, in the order in which they must be inserted.
    """

    instrument: InstrumentMap
    data_id: Mapping[str, str | int]
    records: Mapping[str, Record]


class InstrumentMap(_Model):
    """One instrument's YAML."""

    version: Literal[1]
    name: str
    universe: Universe
    file_name: str
    instrument: InstrumentRecord
    detectors: tuple[Detector, ...]
    complete_detectors: frozenset[int]
    physical_filters: dict[str, str]
    dataset_type: DatasetTypeMap
    fields: dict[str, AnyRule]
    detector_field: str
    data_id: dict[str, str]
    records: dict[str, dict[str, str]] = Field(min_length=1)

    @field_validator("file_name")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        made: set[str] = set()
        for name, rule in self.fields.items():
            if missing := set(rule.needs()) - made:
                raise ValueError(f"field {name} needs {', '.join(sorted(missing))} to come before it")
            made.add(name)
        used = {self.detector_field, *self.data_id.values()}
        used.update(field for columns in self.records.values() for field in columns.values())
        if unknown := used - made:
            raise ValueError(f"no field is called {', '.join(sorted(unknown))}")
        if len(self.detector_ids) != len(self.detectors):
            raise ValueError("two detectors have the same full_name")
        if unknown_ids := self.complete_detectors - set(self.detector_ids.values()):
            raise ValueError(f"complete_detectors are not detectors: {sorted(unknown_ids)}")
        given = {"instrument", "detector", *self.data_id}
        if given != set(self.dataset_type.dimensions):
            raise ValueError(f"the data ID has {sorted(given)}, not the dataset type's dimensions")
        return self

    @cached_property
    def detector_ids(self) -> Mapping[str, int]:
        """Detector id by full name."""
        return {detector.full_name: detector.id for detector in self.detectors}

    @cached_property
    def header_keys(self) -> tuple[str, ...]:
        """All header keywords that the rules read."""
        return tuple(dict.fromkeys(key for rule in self.fields.values() for key in rule.header_keys()))

    @cached_property
    def _recent(self) -> dict[tuple[object, ...], _Shared]:
        return {}

    @cached_property
    def _file_name_pattern(self) -> re.Pattern[str]:
        return re.compile(self.file_name)

    def recognises(self, name: str) -> bool:
        """Return whether a file of this name (its last path element counts) is this instrument's."""
        return self._file_name_pattern.fullmatch(name.rpartition("/")[2]) is not None

    @cached_property
    def _detector_fields(self) -> tuple[str, ...]:
        return self._closure({self.detector_field})

    @cached_property
    def _shared_fields(self) -> tuple[str, ...]:
        used = {field for columns in self.records.values() for field in columns.values()}
        return self._closure(used | set(self.data_id.values()))

    @cached_property
    def _shared_keys(self) -> tuple[str, ...]:
        rules = (self.fields[name] for name in self._shared_fields)
        return tuple(dict.fromkeys(key for rule in rules for key in rule.header_keys()))

    def _closure(self, wanted: set[str]) -> tuple[str, ...]:
        """Return the fields that these need, themselves included, in the order of evaluation."""
        for name in reversed(self.fields):
            if name in wanted:
                wanted.update(self.fields[name].needs())
        return tuple(name for name in self.fields if name in wanted)

    def _evaluate(self, names: tuple[str, ...], header: Header) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name in names:
            try:
                values[name] = self.fields[name].evaluate(header, values)
            except HeaderError as error:
                raise HeaderError(name, str(error)) from error
        return values

    def describe(self, header: Header) -> Description:
        """Return what a header says about its file.

        Parameters
        ----------
        header
            Header keyword -> value.

        Raises
        ------
        HeaderError
            If a field cannot be made.
        MissingDimension
            If the detector is not one of the instrument's.
        """
        name = self._evaluate(self._detector_fields, header)[self.detector_field]
        detector = self.detector_ids.get(str(name))
        if detector is None:
            raise MissingDimension("detector", f"instrument={self.name},detector={name}")
        data_id, records = self._shared(header)
        return Description(self, {**data_id, "detector": detector}, records)

    def _shared(self, header: Header) -> _Shared:
        """Return what all files of an exposure have in common, made once per exposure."""
        key = tuple((value := header.get(name), value.__class__) for name in self._shared_keys)
        try:
            if (known := self._recent.get(key)) is not None:
                return known
        except TypeError as error:
            raise HeaderError("header", f"it has a value of several parts ({error})") from error
        values = self._evaluate(self._shared_fields, header)
        data_id: dict[str, str | int] = {"instrument": self.name}
        for dimension, field in self.data_id.items():
            value = values[field]
            if not isinstance(value, str | int):
                raise HeaderError(field, f"{value!r} cannot identify anything")
            data_id[dimension] = value
        records: dict[str, Record] = {
            element: {"instrument": self.name, **{column: values[field] for column, field in columns.items()}}
            for element, columns in self.records.items()
        }
        if len(self._recent) >= RECENT:
            self._recent.clear()
        self._recent[key] = (data_id, records)
        return data_id, records


def parse_instrument(text: str, source: str) -> InstrumentMap:
    """Return the map in a YAML text.

    Parameters
    ----------
    source
        What to call the text in an error.

    Raises
    ------
    InstrumentMapError
        If it is not YAML, or not a map; the message names each place.
    """
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InstrumentMapError(source, f"not YAML ({error})") from error
    try:
        return InstrumentMap.model_validate(content)
    except ValidationError as error:
        places = (f"{'.'.join(map(str, e['loc'])) or 'map'}: {e['msg']}" for e in error.errors())
        raise InstrumentMapError(source, "; ".join(places)) from error


def load_instrument(name_or_path: str | Path) -> InstrumentMap:
    """Return an instrument map: one of the package's by its name, or any by the path of its file.

    Parameters
    ----------
    name_or_path
        ``LSSTComCam`` (in any case), or a path that ends in ``.yaml``.

    Raises
    ------
    InstrumentMapError
        If there is none, or it is not valid.
    """
    name = str(name_or_path)
    if name.endswith((".yaml", ".yml")):
        try:
            return parse_instrument(Path(name).read_text(encoding="utf-8"), name)
        except OSError as error:
            raise InstrumentMapError(name, error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise InstrumentMapError(name, "not text in UTF-8") from error
    shipped = resources.files("arriero.agent") / "instruments"
    entry = shipped / f"{name.lower()}.yaml"
    if not re.fullmatch(r"\w+", name) or not entry.is_file():
        known = sorted(item.name.removesuffix(".yaml") for item in shipped.iterdir())
        raise InstrumentMapError(name, f"there is no such map; known are {', '.join(known)}")
    return parse_instrument(entry.read_text(encoding="utf-8"), name)
