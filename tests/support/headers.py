"""Headers of observatories' raws, as facts: what astro_metadata_translator's public test headers say, and small files of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

HSC = {
    "TIMESYS": "UTC",
    "DATE-OBS": "2015-10-10",
    "UT-STR": "08:20:06.598",
    "MJD-STR": 57305.34729859,
    "MJD-END": 57305.3490561787,
    "AZIMUTH": 115.5571586,
    "ALTITUDE": 52.64958639,
    "PROP-ID": "o15426",
    "FRAMEID": "HSCA04090107",
    "EXP-ID": "HSCA04090000",
    "DATA-TYP": "OBJECT",
    "OBJECT": "SSP-Wide",
    "RA2000": "01:24:37.737",
    "DEC2000": "+01:15:35.13",
    "TELESCOP": "Subaru",
    "FILTER01": "HSC-r",
    "EXPTIME": 150.0,
    "INSTRUME": "Hyper Suprime-Cam",
    "DET-ID": 37,
}

DECAM = {
    "FILENAME": "DECam_00229388.fits",
    "TELESCOP": "CTIO 4.0-m telescope",
    "INSTRUME": "DECam",
    "EXPTIME": 200.0,
    "DARKTIME": 201.15662,
    "OBSID": "ct4m20130901t060255",
    "DATE-OBS": "2013-09-01T06:02:55.753848",
    "MJD-OBS": 56536.25203419,
    "TIMESYS": "UTC",
    "EXPNUM": 229388,
    "OBJECT": "DES supernova hex SN-S1 tiling 22",
    "OBSTYPE": "object",
    "PROPID": "2012B-0001",
    "FILTER": "z DECam SDSS c0004 9260.0 1520.0",
    "TELRA": "02:51:16.790",
    "TELDEC": "-00:00:05.699",
    "ZD": 50.46,
    "AZ": 61.24,
}

MEGAPRIME = {
    "TIMESYS": "UTC",
    "OBJECT": "w2.+2+2",
    "RUNID": "08BL05",
    "FILENAME": "1038843o",
    "DETECTOR": "MegaCam",
    "OBSTYPE": "OBJECT",
    "EXPNUM": 1038843,
    "OBSID": 1038843,
    "EXPTIME": 615.037,
    "EXPREQ": 615.0,
    "DARKTIME": 615.0,
    "INSTRUME": "MegaPrime",
    "FILTER": "i.MP9702",
    "TELESCOP": "CFHT 3.6m",
    "LATITUDE": 19.825252,
    "LONGITUD": -155.468876,
    "DATE-OBS": "2008-11-01",
    "UTC-OBS": "14:33:32.40",
    "UTCEND": "14:44:41.96",
    "MJD-OBS": 54771.606625,
    "MJDEND": 54771.6143746,
    "RADECSYS": "FK5",
    "RA_DEG": 135.409417,
    "DEC_DEG": -2.4,
    "AIRMASS": 1.269,
    "TELALT": 52.02,
    "TELAZ": 122.34,
}

IMSIM = {
    "TESTTYPE": "IMSIM",
    "OBSID": 261426,
    "CHIPID": "R11_S02",
    "RUNNUM": "261426",
    "FILTER": "r",
    "MJD-OBS": 59797.2854090132,
    "EXPTIME": 30.0,
    "RATEL": 55.7,
    "DECTEL": -27.2,
    "ROTANGLE": 43.5,
}

PFS = {
    "TELESCOP": "Subaru 8.2m",
    "INSTRUME": "PFS",
    "W_PFDSGN": -5965967813042197555,
    "W_ENFCAZ": 0.0,
    "TIMESYS": "UTC",
    "MJD-STR": 60600.25,
    "EXPTIME": 900.0,
    "DATA-TYP": "OBJECT",
    "OBJECT": "cosmos",
    "PROP-ID": "o24000",
}


def write_fits(
    path: Path,
    header: Mapping[str, Any],
    extensions: Sequence[Mapping[str, Any]] = ({},),
    *,
    compressed: bool = False,
) -> Path:
    """Write a small file with these cards, and one image with its own cards for each extension."""
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    with fits.conf.set_temp("extension_name_case_sensitive", value=True):
        images = [
            kind(np.full((16, 16), number, dtype=np.int16), header=fits.Header(cards.items()))
            for number, cards in enumerate(extensions, 1)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.HDUList([fits.PrimaryHDU(header=fits.Header(header.items())), *images]).writeto(path)
    return path
