"""Writes small exposures that look like LSSTComCam raws, for the demo and for the tests.

Why it exists: real raws cannot be had, but their names, directories, headers and `_index.json` are public
(header keys of obs_lsst's test header CC_O_20241108_000266_R22_S00). Needs only astropy; writes the same
bytes for the same arguments, so that a copy can be compared with what was written. It must not import
Arriero: what it writes is somebody else's format.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

RAFT = "R22"
FILTERS = ("g_01", "r_03", "i_06")
EXPOSURE_S = 30.0
CADENCE_S = 40.0
INDEX_NAME = "_index.json"

Header = dict[str, tuple[Any, str]]


def exposure_name(day_obs: int, seq_num: int) -> str:
    """Return the observation's name, e.g. ``CC_O_20241108_000266``."""
    return f"CC_O_{day_obs}_{seq_num:06d}"


def detector_slot(detector: int) -> str:
    """Return the slot of a detector 0..8 in its raft, ``S00`` .. ``S22``."""
    if not 0 <= detector <= 8:
        raise ValueError(f"LSSTComCam has the detectors 0 to 8, not {detector}")
    return f"S{detector // 3}{detector % 3}"


def exposure_header(day_obs: int, seq_num: int) -> Header:
    """Return the cards that all detectors of an exposure share, as keyword -> (value, comment)."""
    night = datetime.strptime(str(day_obs), "%Y%m%d").replace(tzinfo=UTC)
    begin = night + timedelta(hours=24, seconds=(seq_num - 1) * CADENCE_S)
    end = begin + timedelta(seconds=EXPOSURE_S + 0.5)
    name = exposure_name(day_obs, seq_num)
    # Neighbours differ in place and filter, so that a query can tell exposures apart.
    ra, dec = 53.0 + 0.1 * (seq_num % 40), -28.1 + 0.05 * (seq_num % 20)
    return {
        "ORIGIN": ("LSST DM Header Service", "FITS file originator"),
        "TELESCOP": ("Simonyi Survey Telescope", "Telescope name"),
        "INSTRUME": ("ComCam", "Instrument used to obtain these data"),
        "OBSERVER": ("LSST", "Observer name"),
        "TIMESYS": ("TAI", "The time scale used"),
        "DATE-OBS": (_isot(begin), "Date of the observation"),
        "DATE-BEG": (_isot(begin), "Time at the start of integration"),
        "DATE-END": (_isot(end), "Time at the end of integration"),
        "MJD-OBS": (_mjd(begin), "[d] MJD at the start of integration"),
        "MJD-BEG": (_mjd(begin), "[d] MJD at the start of integration"),
        "MJD-END": (_mjd(end), "[d] MJD at the end of integration"),
        "OBSID": (name, "ImageName from Camera StartIntegration"),
        "GROUPID": (_isot(begin - timedelta(seconds=2)), "Group of this exposure"),
        "OBSTYPE": ("OBJECT", "BIAS, DARK, FLAT, OBJECT"),
        "IMGTYPE": ("OBJECT", "BIAS, DARK, FLAT, OBJECT"),
        "OBJECT": ("ECDFS", "Name of the observed object"),
        "REASON": ("field_survey_science", "Reason for the observation"),
        "PROGRAM": ("BLOCK-320", "Name of the program"),
        "CAMCODE": ("CC", "The code for the camera"),
        "CONTRLLR": ("O", "The controller (O for OCS, C for CCS)"),
        "DAYOBS": (str(day_obs), "The observation day"),
        "SEQNUM": (seq_num, "The sequence number from the image name"),
        "CURINDEX": (1, "Index number for exposure within the sequence"),
        "MAXINDEX": (1, "Number of requested images in sequence"),
        "RA": (round(ra, 6), "[deg] RA commanded from pointing component"),
        "DEC": (round(dec, 6), "[deg] DEC commanded from pointing component"),
        "RADESYS": ("ICRS", "Equatorial coordinate system"),
        "ROTPA": (round((7.5 * seq_num) % 360.0, 4), "[deg] Rotator position angle on the sky"),
        "ROTCOORD": ("sky", "Telescope rotation coordinates"),
        "ELSTART": (round(60.0 + (seq_num % 20), 4), "[deg] Elevation at the start"),
        "AZSTART": (round(180.0 - (seq_num % 60), 4), "[deg] Azimuth at the start"),
        "AMSTART": (1.1, "Airmass at the start"),
        "FILTER": (FILTERS[seq_num % len(FILTERS)], "Name of the physical filter"),
        "EXPTIME": (EXPOSURE_S, "[s] Exposure time"),
        "SHUTTIME": (EXPOSURE_S, "[s] Shutter open time"),
        "DARKTIME": (EXPOSURE_S + 0.45, "[s] Dark time"),
    }


def detector_header(name: str, detector: int) -> Header:
    """Return the cards that tell one detector's file from its neighbours'."""
    slot = detector_slot(detector)
    return {
        "RAFTBAY": (RAFT, "The raft bay in the camera"),
        "CCDSLOT": (slot, "The CCD slot in the raft"),
        "FILENAME": (f"{name}_{RAFT}_{slot}.fits", "Original file name"),
        "LSST_NUM": (f"ITL-3800C-{206 + detector}", "LSST assigned CCD number"),
    }


def write_exposure(
    directory: Path,
    day_obs: int,
    seq_num: int,
    *,
    detectors: Iterable[int] = range(9),
    shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    index: bool = True,
    header: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write one exposure, a file per detector, into a directory named after it.

    Parameters
    ----------
    directory
        Parent of the exposure's directory; made when missing.
    day_obs
        Observing day as YYYYMMDD.
    seq_num
        Sequence number in the day, from 1.
    detectors
        Detectors to write, 0 to 8.
    shape
        Rows and columns of the image of one detector.
    seed
        Changes the pixels and nothing else.
    index
        Whether to write ``_index.json`` beside the files.
    header
        Values that replace or add to the exposure's cards; None removes a card.

    Returns
    -------
    list of Path
        The FITS files, in the order of `detectors`; the index is not among them.
    """
    name = exposure_name(day_obs, seq_num)
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    shared = exposure_header(day_obs, seq_num)
    for key, value in (header or {}).items():
        shared[key] = (value, shared.get(key, (None, ""))[1])
    shared = {key: card for key, card in shared.items() if card[0] is not None}
    written: dict[Path, fits.Header] = {}
    for detector in detectors:
        cards = shared | detector_header(name, detector)
        primary = fits.PrimaryHDU(header=fits.Header([(k, v, c) for k, (v, c) in cards.items()]))
        pixels = np.random.default_rng((seed, day_obs, seq_num, detector))
        image = fits.ImageHDU(pixels.integers(0, 2**18, size=shape, dtype=np.int32), name="SEGMENT10")
        path = folder / f"{name}_{RAFT}_{detector_slot(detector)}.fits"
        fits.HDUList([primary, image]).writeto(path, overwrite=True)
        written[path] = primary.header
    if index:
        content = metadata_index({path.name: dict(h) for path, h in written.items()})
        (folder / INDEX_NAME).write_text(json.dumps(content, indent=1) + "\n")
    return list(written)


def metadata_index(headers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an index as astro_metadata_translator writes it with ``--content metadata``.

    Parameters
    ----------
    headers
        File name -> header.

    Returns
    -------
    dict
        What all share under ``__COMMON__``, and per file what is its own.
    """
    first = next(iter(headers.values()), {})
    common = {
        key: value
        for key, value in first.items()
        if all(key in h and h[key] == value for h in headers.values())
    }
    if len(headers) == 1:
        common = {}
    own = {
        name: {key: value for key, value in header.items() if key not in common}
        for name, header in headers.items()
    }
    return {"__CONTENT__": "metadata", "__COMMON__": common, **own}


def write_night(
    root: Path,
    day_obs: int = 20241108,
    *,
    seq_nums: Sequence[int] = range(266, 270),
    detectors: Iterable[int] = range(9),
    shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    index: bool = True,
) -> list[Path]:
    """Write the exposures of a night under ``LSSTComCam/<day_obs>/``.

    Parameters
    ----------
    root
        Where ``LSSTComCam`` is made, as at the prefix of a raw storage element.
    seq_nums
        One exposure for each.

    Returns
    -------
    list of Path
        The FITS files of all exposures.
    """
    detectors = list(detectors)
    night = root / "LSSTComCam" / str(day_obs)
    return [
        path
        for seq_num in seq_nums
        for path in write_exposure(
            night, day_obs, seq_num, detectors=detectors, shape=shape, seed=seed, index=index
        )
    ]


def _isot(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def _mjd(when: datetime) -> float:
    return (when - datetime(1858, 11, 17, tzinfo=UTC)) / timedelta(days=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write ComCam-like exposures.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--day-obs", type=int, default=20241108)
    parser.add_argument("--first", type=int, default=266, help="first sequence number")
    parser.add_argument("--exposures", type=int, default=4)
    parser.add_argument("--no-index", action="store_true")
    options = parser.parse_args()
    seq_nums = range(options.first, options.first + options.exposures)
    paths = write_night(options.root, options.day_obs, seq_nums=seq_nums, index=not options.no_index)
    print(f"{len(paths)} files under {options.root / 'LSSTComCam' / str(options.day_obs)}")


if __name__ == "__main__":
    main()
