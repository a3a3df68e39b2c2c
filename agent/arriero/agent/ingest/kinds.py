"""Says what a file is, by what came with it in the catalogue, else by its name.

Why it exists: six kinds of files come by one queue. What `rucio-register` wrote on the file counts first
(`rubin_butler`: data_product, raw_file, zip_file, dim_file); then the declarations of the Butler's instruments; then
the names that Rubin's tools give to files they write nothing on. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from arriero.agent.ingest.errors import UnrecognisedFile
from arriero.agent.ingest.file_map import FileMap
from arriero.agent.ingest.instrument import InstrumentMap
from arriero.agent.ingest.models import ArrivalFile
from arriero.registry.arrival_words import BUTLER_KEY, SIDECAR_KEY

__all__ = ["BUTLER_KEY", "SIDECAR_KEY", "Kind", "Recognised", "recognise"]


class Kind(StrEnum):
    """Kinds of files; the values are the words of `rubin_butler`, and ours where it has none."""

    RAW = "raw_file"
    PRODUCT = "data_product"
    ZIP = "zip_file"
    DIMENSIONS = "dim_file"
    EXPORT = "export"
    CATALOGUE = "refcat"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file's kind; a raw's, or a companion's, declaration with it."""

    kind: Kind
    instrument: InstrumentMap | None = None
    files: FileMap | None = None


_BY_NAME = (
    (re.compile(r"(?:.*[_-])?dimensions(?:\.\d+)?\.ya?ml"), Kind.DIMENSIONS),
    (re.compile(r"(?:.*[._-])?export\.ya?ml"), Kind.EXPORT),
    (re.compile(r".*\.ecsv"), Kind.CATALOGUE),
)


def recognise(file: ArrivalFile, instruments: Sequence[InstrumentMap]) -> Recognised:
    """Return what a file is.

    Raises
    ------
    UnrecognisedFile
        If nothing tells it.
    """
    said = file.meta.get(BUTLER_KEY)
    if said is not None:
        return _as_said(file, said, instruments)
    if (declared := _declared(file, instruments)) is not None:
        return declared
    if file.meta.get(SIDECAR_KEY):
        return Recognised(Kind.PRODUCT)
    name = file.name.rpartition("/")[2]
    for pattern, kind in _BY_NAME:
        if pattern.fullmatch(name):
            return Recognised(kind)
    known = ", ".join(i.name for i in instruments) or "any: this Butler has no instrument"
    raise UnrecognisedFile(file.name, f"is not named like a file of {known}, and has no {BUTLER_KEY}")


def _as_said(file: ArrivalFile, said: object, instruments: Sequence[InstrumentMap]) -> Recognised:
    if said == 1:
        # What rucio-register wrote before there were kinds; the sidecar says the rest.
        said = Kind.PRODUCT
    try:
        kind = Kind(str(said))
    except ValueError:
        known = ", ".join(kind.value for kind in Kind)
        raise UnrecognisedFile(file.name, f"has {BUTLER_KEY} {said!r}, which is none of {known}") from None
    if kind is not Kind.RAW:
        return Recognised(kind)
    # The header has the exposure's records, which a raw's sidecar does not.
    declared = _declared(file, instruments)
    if declared is None and not file.meta.get(SIDECAR_KEY):
        known = ", ".join(i.name for i in instruments) or "any: this Butler has no instrument"
        raise UnrecognisedFile(file.name, f"is a raw, but of none of {known}, and has no {SIDECAR_KEY}")
    return declared or Recognised(Kind.PRODUCT)


def _declared(file: ArrivalFile, instruments: Sequence[InstrumentMap]) -> Recognised | None:
    for instrument in instruments:
        files = instrument.kind_of(file.name)
        if files is not None:
            return Recognised(Kind.RAW, instrument, files)
    return None
