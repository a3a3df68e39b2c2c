"""One kind of file of an instrument: how its name and header become data IDs and dimension records.

Why it exists: an instrument has more than one kind of file (science raws, guiders, the configuration of a visit),
and each is the same few declarations. The module turns a header into plain values; it must not import the
Butler nor read files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from arriero.agent.ingest.errors import HeaderError, MissingDimension
from arriero.agent.ingest.rules import AnyRule
from arriero.agent.ingest.transforms import Header, Value

RECENT = 2000
"""Exposures whose records are kept: more than a batch has, a few MB at most."""

NAME_KEY = "name:"
"""What stands before the name of a group of `file_name` where a rule names a header keyword."""

EXTENSION_KEY = "extensions:"
"""What stands before a keyword of which a header holds the values of all extensions."""

Record = Mapping[str, Value]
DataId = Mapping[str, str | int]
_Shared = tuple[DataId, Mapping[str, Record]]


class Declared(BaseModel):
    """A part of a map: closed, and not to be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))


class DatasetTypeMap(Declared):
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
    data_ids
        For each dataset in the file, dimension -> value, complete for the dataset type.
    records
        Element -> record, in the order in which they must be inserted.
    """

    files: FileMap
    data_ids: tuple[DataId, ...]
    records: Mapping[str, Record]

    @property
    def data_id(self) -> DataId:
        """The data ID of the file's only dataset, or of its first."""
        return self.data_ids[0]


class FileMap(Declared):
    """One kind of file.

    Attributes
    ----------
    file_name
        Regular expression for the last element of the name; its named groups are to be had as ``name:GROUP``.
    detector_field
        Field that has the detector, by full name or id; None where the file is of no detector or of several.
    detector_extensions
        Keyword of the extensions that has the detector, where one file holds a dataset for each.
    """

    file_name: str
    dataset_type: DatasetTypeMap
    fields: dict[str, AnyRule]
    detector_field: str | None = None
    detector_extensions: str | None = None
    data_id: dict[str, str]
    records: dict[str, dict[str, str]] = Field(default_factory=dict)

    @field_validator("file_name")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _fields_are_made(self) -> Self:
        made: set[str] = set()
        groups = self._file_name_pattern.groupindex
        for name, rule in self.fields.items():
            if missing := set(rule.needs()) - made:
                raise ValueError(f"field {name} needs {', '.join(sorted(missing))} to come before it")
            for key in rule.header_keys():
                if key.startswith(NAME_KEY) and key.removeprefix(NAME_KEY) not in groups:
                    raise ValueError(f"field {name}: file_name has no group {key.removeprefix(NAME_KEY)}")
            made.add(name)
        used = set(self.data_id.values())
        used.update(field for columns in self.records.values() for field in columns.values())
        if self.detector_field is not None:
            used.add(self.detector_field)
        if unknown := used - made:
            raise ValueError(f"no field is called {', '.join(sorted(unknown))}")
        given = {"instrument", *self.data_id}
        if self.detector_field is not None or self.detector_extensions is not None:
            given.add("detector")
        if given != set(self.dataset_type.dimensions):
            raise ValueError(f"the data ID has {sorted(given)}, not the dataset type's dimensions")
        return self

    @cached_property
    def header_keys(self) -> tuple[str, ...]:
        """All keywords of the primary header that the rules read."""
        keys = dict.fromkeys(key for rule in self.fields.values() for key in rule.header_keys())
        return tuple(key for key in keys if not key.startswith(NAME_KEY))

    @cached_property
    def _recent(self) -> dict[tuple[object, ...], _Shared]:
        return {}

    @cached_property
    def _file_name_pattern(self) -> re.Pattern[str]:
        return re.compile(self.file_name)

    def recognises(self, name: str) -> bool:
        """Return whether a file of this name (its last path element counts) is of this kind."""
        return self._file_name_pattern.fullmatch(name.rpartition("/")[2]) is not None

    def name_values(self, name: str) -> dict[str, str | None]:
        """Return what a file's name says, by ``name:GROUP``."""
        if not self._file_name_pattern.groupindex:
            return {}
        found = self._file_name_pattern.fullmatch(name.rpartition("/")[2])
        return {} if found is None else {NAME_KEY + group: text for group, text in found.groupdict().items()}

    @cached_property
    def _detector_fields(self) -> tuple[str, ...]:
        return self._closure(set() if self.detector_field is None else {self.detector_field})

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

    def describe_file(self, header: Header, instrument: str, detectors: Mapping[str, int]) -> Description:
        """Return what a header says about its file.

        Parameters
        ----------
        header
            Header keyword -> value, and what `name_values` gives.
        instrument
            Name of the instrument.
        detectors
            Detector id by full name.

        Raises
        ------
        HeaderError
            If a field cannot be made.
        MissingDimension
            If a detector is not one of the instrument's.
        """
        found: Sequence[Value | None] = ()
        if self.detector_field is not None:
            found = [self._evaluate(self._detector_fields, header)[self.detector_field]]
        elif self.detector_extensions is not None:
            found = header.get(EXTENSION_KEY + self.detector_extensions) or ()
            if not found:
                raise HeaderError("detector", f"no extension has {self.detector_extensions}")
        ids = [_detector_id(instrument, detectors, value) for value in found]
        data_id, records = self._shared(header, instrument)
        if not ids:
            return Description(self, (data_id,), records)
        return Description(self, tuple({**data_id, "detector": detector} for detector in ids), records)

    def _shared(self, header: Header, instrument: str) -> _Shared:
        """Return what all files of an exposure have in common, made once per exposure."""
        said = tuple(map(header.get, self._shared_keys))
        # equal values of different types are told apart: 1 and True, 1 and 1.0
        key = said, tuple(map(type, said))
        try:
            if (known := self._recent.get(key)) is not None:
                return known
        except TypeError as error:
            raise HeaderError("header", f"it has a value of several parts ({error})") from error
        values = self._evaluate(self._shared_fields, header)
        data_id: dict[str, str | int] = {"instrument": instrument}
        for dimension, field in self.data_id.items():
            value = values[field]
            if not isinstance(value, str | int):
                raise HeaderError(field, f"{value!r} cannot identify anything")
            data_id[dimension] = value
        records: dict[str, Record] = {
            element: {
                "instrument": instrument,
                **{column: values[field] for column, field in columns.items()},
            }
            for element, columns in self.records.items()
        }
        if len(self._recent) >= RECENT:
            self._recent.clear()
        self._recent[key] = (data_id, records)
        return data_id, records


def _detector_id(instrument: str, detectors: Mapping[str, int], value: Value) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value in detectors.values():
            return value
    elif (known := detectors.get(str(value))) is not None:
        return known
    raise MissingDimension("detector", f"instrument={instrument},detector={value}")
