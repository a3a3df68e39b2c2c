"""The raws of the benchmark of ingest: LSSTComCam-like exposures with their indexes, in the site's own layout."""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from demo.exposures import (
    RAFT,
    detector_header,
    detector_slot,
    exposure_header,
    exposure_name,
    metadata_index,
    write_exposure,
)

DETECTORS = 9
FIRST_DAY = date(2024, 11, 8)
A_NIGHT = 750
"""Exposures of a day; LSSTComCam's busiest nights had some more."""

SHAPE = (8, 8)
"""Pixels: a Butler that takes files where they are does not read them."""


@dataclass(frozen=True)
class Raw:
    """One detector's file."""

    name: str
    """Below the prefix of the RSE."""
    bytes: int
    adler32: str
    exposure: int
    detector: int

    def described(self, scope: str) -> dict[str, object]:
        """Give what a client registers."""
        return {"scope": scope, "name": self.name, "bytes": self.bytes, "adler32": self.adler32}


def numbered(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Give day and sequence number of exposures by their number in the campaign."""
    for number in range(first, first + count):
        day = FIRST_DAY + timedelta(days=number // A_NIGHT)
        yield int(day.strftime("%Y%m%d")), number % A_NIGHT + 1


def write_exposures(root: Path, first: int, count: int) -> list[Raw]:
    """Write exposures with an index each, all bytes of their own."""
    raws = []
    for day_obs, seq_num in numbered(first, count):
        paths = write_exposure(root / "LSSTComCam" / str(day_obs), day_obs, seq_num, shape=SHAPE)
        for detector, path in enumerate(paths):
            content = path.read_bytes()
            raws.append(
                Raw(
                    path.relative_to(root).as_posix(),
                    len(content),
                    f"{zlib.adler32(content):08x}",
                    _exposure_id(day_obs, seq_num),
                    detector,
                )
            )
    return raws


def link_exposures(root: Path, models: Sequence[Raw], first: int, files: int) -> Iterator[list[Raw]]:
    """Make exposures of an index each and of links to nine files, until there are so many files.

    Parameters
    ----------
    models
        The files of one exposure. What their own headers say is another exposure's: who has an index reads no header.
    """
    exposures = -(-files // DETECTORS)
    for place, (day_obs, seq_num) in enumerate(numbered(first, exposures)):
        here = min(DETECTORS, files - place * DETECTORS)
        name = exposure_name(day_obs, seq_num)
        folder = root / "LSSTComCam" / str(day_obs) / name
        folder.mkdir(parents=True)
        shared, headers, raws = exposure_header(day_obs, seq_num), {}, []
        for model in models[:here]:
            path = folder / f"{name}_{RAFT}_{detector_slot(model.detector)}.fits"
            os.link(root / model.name, path)
            cards = {**shared, **detector_header(name, model.detector)}
            headers[path.name] = {key: value for key, (value, _) in cards.items()}
            raws.append(
                Raw(
                    path.relative_to(root).as_posix(),
                    model.bytes,
                    model.adler32,
                    _exposure_id(day_obs, seq_num),
                    model.detector,
                )
            )
        (folder / "_index.json").write_text(json.dumps(metadata_index(headers)))
        yield raws


def _exposure_id(day_obs: int, seq_num: int) -> int:
    return day_obs * 100_000 + seq_num
