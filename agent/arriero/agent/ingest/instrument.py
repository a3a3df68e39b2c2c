"""Instruments by declaration: what the names and headers of an instrument's files mean to a Butler, as validated YAML.

Why it exists: an instrument is data. A map names the instrument's records, its universe, what makes an exposure
complete, and for each kind of file one rule per field from a closed vocabulary (`arriero.agent.ingest.rules`);
nothing in it is code. It must not import the Butler nor read files other than maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from arriero.agent.ingest.errors import InstrumentMapError
from arriero.agent.ingest.file_map import DatasetTypeMap, Declared, Description, FileMap, Record
from arriero.agent.ingest.transforms import Header

__all__ = [
    "DatasetTypeMap",
    "Description",
    "FileMap",
    "InstrumentMap",
    "Record",
    "load_instrument",
    "parse_instrument",
]


class Universe(Declared):
    """The Butler's dimension universe that a map is written for; `config` is the file that defines one of its own."""

    namespace: str
    version: int
    config: str | None = None


class InstrumentRecord(Declared):
    """The metadata columns of the instrument's own record, as far as its universe has them."""

    class_name: str
    visit_max: int | None = None
    exposure_max: int | None = None
    detector_max: int | None = None
    visit_system: int | None = None


class Detector(Declared):
    """One detector's record; a universe of its own may have other columns."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: int
    full_name: str
    raft: str | None = None
    name_in_raft: str | None = None
    purpose: str | None = None


class Rafts(Declared):
    """Detectors by rafts of equal sensors, numbered in their order."""

    first_id: int
    rafts: tuple[str, ...]
    sensors: tuple[str, ...]
    purpose: str

    def detectors(self) -> list[dict[str, Any]]:
        """Return the detectors' records."""
        places = ((raft, sensor) for raft in self.rafts for sensor in self.sensors)
        return [
            {
                "id": number,
                "full_name": f"{raft}_{sensor}",
                "raft": raft,
                "name_in_raft": sensor,
                "purpose": self.purpose,
            }
            for number, (raft, sensor) in enumerate(places, self.first_id)
        ]


class Visits(Declared):
    """Which visits are defined, and where the detectors are in the focal plane.

    Attributes
    ----------
    systems
        ``one-to-one`` (each exposure is a visit) and ``by-group`` (those of one group together).
    observation_types
        Of exposures that are visits; others are none.
    at
        ``whole``: when all `complete_detectors` of an exposure are there. ``first``: with its first file, for cameras
        whose exposures have no fixed set of detectors, or come in one file; such visits have no regions.
    detector_size_deg
        Width and height of a detector on the sky, degrees.
    detector_centres_deg
        Centres of the detectors, degrees from the boresight at sky angle 0; a visit then has regions.
    """

    systems: tuple[Literal["one-to-one", "by-group"], ...] = Field(default=("one-to-one",), min_length=1)
    observation_types: frozenset[str] = frozenset({"science"})
    at: Literal["whole", "first"] = "whole"
    detector_size_deg: tuple[float, float] | None = None
    detector_centres_deg: dict[int, tuple[float, float]] = Field(default_factory=dict)

    @property
    def needs_whole(self) -> bool:
        """Whether what is wanted cannot be had of an exposure that is not whole."""
        return bool(self.detector_centres_deg) or "by-group" in self.systems


class InstrumentMap(FileMap):
    """One instrument's YAML; its own `FileMap` part is about the raws.

    Attributes
    ----------
    complete_detectors
        Detectors that make an exposure complete.
    registered
        Further records to register with the instrument: element -> records, parents first.
    companions
        The instrument's other kinds of files.
    storage_classes
        Python types of storage classes that the Butler does not know by itself.
    templates
        File templates for what is copied into the datastore, by dataset type or ``default``.
    """

    version: Literal[1]
    name: str
    universe: Universe
    instrument: InstrumentRecord
    detectors: tuple[Detector, ...]
    complete_detectors: frozenset[int] = frozenset()
    physical_filters: dict[str, str] = Field(default_factory=dict)
    registered: dict[str, tuple[dict[str, str | int | float | None], ...]] = Field(default_factory=dict)
    companions: tuple[FileMap, ...] = ()
    visits: Visits | None = None
    storage_classes: dict[str, str] = Field(default_factory=dict)
    templates: dict[str, str] = Field(default_factory=dict)
    directory: str | None = None
    """Where the map came from; a universe's file is beside it."""

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, content: Any) -> Any:
        """Write out the detectors that are declared by rafts, and those of a purpose that make an exposure complete."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        detectors = list(content.get("detectors") or ())
        for raw in content.pop("rafts", None) or ():
            detectors += Rafts.model_validate(raw).detectors()
        content["detectors"] = detectors
        purpose = content.get("complete_detectors")
        if isinstance(purpose, str):
            of_purpose = [d for d in detectors if isinstance(d, dict) and d.get("purpose") == purpose]
            content["complete_detectors"] = [d["id"] for d in of_purpose]
        return content

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if not self.records:
            raise ValueError("records: an exposure of the raws has none")
        if len(self.detector_ids) != len(self.detectors):
            raise ValueError("two detectors have the same full_name")
        if self.visits is not None and self.visits.needs_whole and self.visits.at == "first":
            raise ValueError("visits: a region, or a group, needs exposures that are whole")
        if unknown_ids := self.complete_detectors - set(self.detector_ids.values()):
            raise ValueError(f"complete_detectors are not detectors: {sorted(unknown_ids)}")
        return self

    @cached_property
    def detector_ids(self) -> Mapping[str, int]:
        """Detector id by full name."""
        return {detector.full_name: detector.id for detector in self.detectors}

    @cached_property
    def kinds(self) -> tuple[FileMap, ...]:
        """All kinds of files, raws first."""
        return (self, *self.companions)

    def kind_of(self, name: str) -> FileMap | None:
        """Return the kind of file that a name tells, None if it is none of this instrument's."""
        return next((kind for kind in self.kinds if kind.recognises(name)), None)

    def describe(self, header: Header, kind: FileMap | None = None) -> Description:
        """Return what a header says about its file, a raw unless another `kind` is given (see `describe_file`)."""
        return (kind or self).describe_file(header, self.name, self.detector_ids)


def parse_instrument(text: str, source: str, directory: str | None = None) -> InstrumentMap:
    """Return the map in a YAML text.

    Parameters
    ----------
    source
        What to call the text in an error.
    directory
        Where files that it names are.

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
        parsed = InstrumentMap.model_validate(content)
    except ValidationError as error:
        places = (f"{'.'.join(map(str, e['loc'])) or 'map'}: {e['msg']}" for e in error.errors())
        raise InstrumentMapError(source, "; ".join(places)) from error
    return parsed.model_copy(update={"directory": directory})


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
        path = Path(name)
        try:
            return parse_instrument(path.read_text(encoding="utf-8"), name, str(path.parent))
        except OSError as error:
            raise InstrumentMapError(name, error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise InstrumentMapError(name, "not text in UTF-8") from error
    shipped = resources.files("arriero.agent") / "instruments"
    entry = shipped / f"{name.lower()}.yaml"
    if not re.fullmatch(r"[\w-]+", name) or not entry.is_file():
        known = sorted(item.name.removesuffix(".yaml") for item in shipped.iterdir() if item.is_file())
        raise InstrumentMapError(name, f"there is no such map; known are {', '.join(known)}")
    return parse_instrument(entry.read_text(encoding="utf-8"), name, str(shipped))
