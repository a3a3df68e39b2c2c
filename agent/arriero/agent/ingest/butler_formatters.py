"""Reads a raw as an astropy `HDUList`, so that `butler.get` works without the Rubin stack.

Why it exists: the stack's own formatters need compiled packages that are not on PyPI. A repository that this
code creates names the formatter below for its storage class; an existing repository keeps its own.
"""

from __future__ import annotations

from typing import Any

from astropy.io import fits
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
