"""Reading the answer to a PROPFIND, piece by piece: pure, and safe to feed with anything.

The answer of a storage is a stranger's document: a document type declaration, and with it every entity, is
refused outright, so that no expansion can take place; the number of entries and the length of a text are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

MAX_ENTRIES = 1_000_000
MAX_TEXT = 16_384

_SIZE = re.compile(r" *[0-9]{1,19} *", re.ASCII)
_NOT_IN_A_URI = re.compile(r"[^\x21-\x7e]|[<>\"{}|\\^`#]|%(?![0-9A-Fa-f]{2})")


class MalformedListing(ValueError):
    """The answer is not a multi-status document, or exceeds the bounds."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One response of a multi-status document."""

    href: str
    """As the server wrote it: a path or a URL, encoded or (XRootD 5.5.3) not."""
    bytes: int | None
    is_directory: bool

    @property
    def path(self) -> str:
        """Path part of the href, without its last slash, as written."""
        path = self.href if self.href.startswith("/") else urlsplit(self.href).path
        return path.rstrip("/")

    @property
    def is_plainly_unquoted(self) -> bool:
        """True if the href cannot be percent-encoded: it has characters that are never in a URI."""
        return _NOT_IN_A_URI.search(self.href) is not None


@dataclass(slots=True)
class _Reader:
    resources: list[Resource] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    text_length: int = 0
    is_multistatus: bool = False
    href: str | None = None
    size: int | None = None
    status: str = ""
    found_size: int | None = None
    is_directory: bool = False
    found_directory: bool = False

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self.text.clear()
        self.text_length = 0
        if name == "DAV: multistatus":
            self.is_multistatus = True
        elif name == "DAV: response":
            self.href, self.size, self.is_directory = None, None, False
        elif name == "DAV: propstat":
            self.found_size, self.found_directory, self.status = None, False, ""
        elif name == "DAV: collection":
            self.found_directory = True

    def characters(self, text: str) -> None:
        self.text_length += len(text)
        if self.text_length > MAX_TEXT:
            raise MalformedListing(f"a text of the listing is longer than {MAX_TEXT} characters")
        self.text.append(text)

    def end(self, name: str) -> None:
        # Blanks belong to the names of servers that do not encode them.
        text = "".join(self.text).strip("\r\n\t")
        self.text.clear()
        self.text_length = 0
        if name == "DAV: href" and self.href is None:
            self.href = text
        elif name == "DAV: getcontentlength" and _SIZE.fullmatch(text):
            self.found_size = int(text)
        elif name == "DAV: status":
            self.status = text
        elif name == "DAV: propstat" and (not self.status or " 200" in self.status):
            self.size = self.found_size if self.found_size is not None else self.size
            self.is_directory = self.is_directory or self.found_directory
        elif name == "DAV: response" and self.href:
            if len(self.resources) >= MAX_ENTRIES:
                raise MalformedListing(f"the listing has more than {MAX_ENTRIES} entries")
            self.resources.append(Resource(self.href, self.size, self.is_directory))


def _refuse_doctype(*_: object) -> None:
    raise MalformedListing("the listing declares a document type")


def parse_multistatus(pieces: Iterable[bytes]) -> list[Resource]:
    """Read a multi-status document.

    Parameters
    ----------
    pieces
        The document, cut anywhere.

    Returns
    -------
    list of Resource
        Its responses, in their order.

    Raises
    ------
    MalformedListing
        If it is not such a document, declares a document type, or exceeds the bounds.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        for piece in pieces:
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise MalformedListing(f"the listing is not XML: {error}") from error
    if not reader.is_multistatus:
        raise MalformedListing("the listing is not a multi-status document")
    return reader.resources


def member_name(folder: str, resource: Resource, *, quoted: bool) -> str | None:
    """Name of a resource within the folder that was listed.

    Parameters
    ----------
    folder
        Full path of the folder on the server, unquoted, without its last slash.
    resource
        One of the responses.
    quoted
        Whether this server percent-encodes its hrefs.

    Returns
    -------
    str or None
        The name; None for the folder itself and for anything that is not directly in it.
    """
    path = unquote(resource.path) if quoted else resource.path
    parent, _, name = path.rpartition("/")
    return name if name and parent == folder else None
