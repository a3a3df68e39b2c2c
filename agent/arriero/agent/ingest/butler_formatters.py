"""Reads a raw as an astropy `HDUList`, so that `butler.get` works without the Rubin stack.

Why it exists: the stack's own formatters need compiled packages that are not on PyPI. A repository that this
code creates names the formatter below for its storage class; an existing repository keeps its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from astropy.io import fits
from astropy.nddata import CCDData
from lsst.daf.butler import FormatterV2
from lsst.resources import ResourcePath
from typing_extensions import override


class AstropyFitsFormatter(FormatterV2):  # type: ignore[misc]
    """A whole FITS file as `astropy.io.fits.HDUList`, from any scheme that the Butler can download."""

    default_extension = ".fits"
    supported_extensions = frozenset({".fits", ".fits.fz", ".fits.gz", ".fit"})
    can_read_from_local_file = True

    @override
    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        # A remote file is a temporary copy that goes when this returns: nothing may stay lazy.
        with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
            return fits.HDUList([hdu.copy() for hdu in hdus])

    @override
    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        in_memory_dataset.writeto(uri.ospath, overwrite=True)


class DetectorFitsFormatter(AstropyFitsFormatter):
    """The primary HDU and the extension of one detector, out of a file that holds a dataset for each."""

    keyword = "CCDNUM"

    def wanted(self) -> str | int:
        """Return what the keyword says of the detector."""
        return int(self.data_id["detector"])

    @override
    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        wanted = self.wanted()
        with fits.open(path, memmap=False) as hdus:
            found = [hdu for hdu in hdus[1:] if hdu.header.get(self.keyword) == wanted]
            if not found:
                raise LookupError(f"{path} has no extension whose {self.keyword} is {wanted}")
            return fits.HDUList([hdu.copy() for hdu in (hdus[0], *found)])


class NamedDetectorFitsFormatter(DetectorFitsFormatter):
    """The same of a file whose extensions are called after the detectors: ``ccd07``."""

    keyword = "EXTNAME"

    @override
    def wanted(self) -> str | int:
        return f"ccd{self.data_id['detector']:02d}"


class CcdDataFormatter(FormatterV2):  # type: ignore[misc]
    """The image and its header as `astropy.nddata.CCDData`, which has a unit: that of BUNIT, else counts."""

    default_extension = ".fits"
    supported_extensions = AstropyFitsFormatter.supported_extensions
    can_read_from_local_file = True

    @override
    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        with fits.open(path, memmap=False) as hdus:
            image = next(hdu for hdu in hdus if hdu.data is not None)
            unit = image.header.get("BUNIT", "adu")
            return CCDData(image.data.copy(), unit=unit, meta=dict(image.header))

    @override
    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        in_memory_dataset.write(uri.ospath, overwrite=True)


class NotInstalledFormatter(FormatterV2):  # type: ignore[misc]
    """Stands for a formatter whose package is not installed: files are registered under its name, not read."""

    @override
    def validate_write_recipes(self, recipes: Any) -> Any:
        return recipes


@cache
def placeholder(name: str) -> type:
    """Return a class that the Butler records as the formatter `name`, for whoever has that installed."""
    module, _, qualified = name.rpartition(".")
    return type(qualified, (NotInstalledFormatter,), {"__module__": module, "__qualname__": qualified})
