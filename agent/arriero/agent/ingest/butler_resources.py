"""Reads the first bytes of a file, or a small file, by the URI under which the Butler reads it.

Why it exists: what the site's Butler clients can read (schemes, certificates, tokens of `lsst.resources`) is
what the ingest must be able to read, with the same settings. It knows nothing of FITS or JSON, and never
reads a whole image.
"""

from __future__ import annotations

import os

import requests
import urllib3
from astropy.io import fits
from lsst.resources import ResourcePath
from lsst.resources.http import HttpResourcePath

from arriero.agent.ingest.butler_private import first_bytes
from arriero.agent.ingest.errors import FileVanished, MalformedFits, StorageUnavailable, UnreadableUri

_AWAY = (
    ConnectionError,
    TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    urllib3.exceptions.HTTPError,
)

_SPECIAL = frozenset("%?#;")


def read_start(uri: str, size: int) -> tuple[bytes, int | None]:
    """Return up to the first `size` bytes of a file, and its whole size where that costs no request.

    Parameters
    ----------
    uri
        Absolute URI; one of a web server is read by one ranged request.
    size
        Most bytes to read.

    Returns
    -------
    tuple of bytes and int or None
        The bytes, and the file's size in bytes (of local files, and where a web server tells it).

    Raises
    ------
    FileVanished
        If there is no such file.
    StorageUnavailable
        If the storage could not be asked, or refused.
    UnreadableUri
        If nothing that is installed reads its scheme.
    """
    try:
        # Parsing a URI costs as much as reading a block; most local ones have nothing to parse.
        local = uri[7:] if uri.startswith("file:///") and not _SPECIAL & set(uri) else None
        if local is None:
            path = ResourcePath(uri, forceDirectory=False)
            if isinstance(path, HttpResourcePath):
                return first_bytes(path, size)
            if not path.isLocal:
                return path.read(size=size), None
            local = path.ospath
        with open(local, "rb", buffering=0) as stream:  # noqa: PTH123 - no Path thousands of times
            return stream.read(size), os.fstat(stream.fileno()).st_size
    except FileNotFoundError as error:
        raise FileVanished(uri) from error
    except (ImportError, NotImplementedError) as error:
        raise UnreadableUri(uri, str(error)) from error
    except StopIteration:
        # requests has no first chunk of an empty body.
        return b"", None
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise StorageUnavailable(
            uri, f"{type(error).__name__}: {error}", away=isinstance(error, _AWAY)
        ) from error


def size_of(uri: str) -> int | None:
    """Return the size of a file in bytes; None if there is no such file.

    Raises
    ------
    StorageUnavailable
        If the storage could not be asked, or refused.
    UnreadableUri
        If nothing that is installed reads its scheme.
    """
    try:
        return int(ResourcePath(uri, forceDirectory=False).size())
    except FileNotFoundError:
        return None
    except (ImportError, NotImplementedError) as error:
        raise UnreadableUri(uri, str(error)) from error
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise StorageUnavailable(
            uri, f"{type(error).__name__}: {error}", away=isinstance(error, _AWAY)
        ) from error


def read_extensions(uri: str, keyword: str) -> tuple[str | int, ...]:
    """Return the values of a keyword in the extensions of a FITS file that have it; their data are passed over.

    Raises
    ------
    FileVanished
        If there is no such file.
    MalformedFits
        If an extension cannot be read.
    StorageUnavailable
        If the storage could not be asked.
    """
    try:
        with (
            ResourcePath(uri, forceDirectory=False).open("rb") as stream,
            # Compressed images are tables to this: nothing is unpacked for a keyword.
            fits.open(stream, memmap=False, disable_image_compression=True) as hdus,
        ):
            values = [hdu.header.get(keyword) for hdu in hdus[1:]]
    except FileNotFoundError as error:
        raise FileVanished(uri) from error
    except (TypeError, LookupError, fits.VerifyError) as error:
        raise MalformedFits(uri, str(error)) from error
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise StorageUnavailable(
            uri, f"{type(error).__name__}: {error}", away=isinstance(error, _AWAY)
        ) from error
    return tuple(value for value in values if isinstance(value, str | int))
