"""Lists of replicas as Metalink 4 (RFC 5854), with the elements that Rucio's download client reads besides.

Names and PFNs are whatever a storage can hold: everything is escaped, and what XML 1.0 has no way to write is replaced.
"""

import re
from collections.abc import Generator, Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

METALINK_TYPE = "application/metalink4+xml"

_HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="urn:ietf:params:xml:ns:metalink">\n'
_FOOT = b"</metalink>\n"
_FILES_A_WRITE = 200

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def accepts_metalink(accept: str) -> bool:
    """Whether a caller wants a metalink and no JSON."""
    return "metalink" in accept and "json" not in accept


def metalink(files: Iterable[Mapping[str, Any]]) -> Generator[bytes, None, None]:
    """Write files of `arriero.registry.services.replica_lists.list_replicas`.

    Yields
    ------
    bytes
        Pieces, none of them empty; the first once the first file is there.
    """
    iterator = iter(files)
    pieces = [_HEAD]
    for number, file in enumerate(iterator, 1):
        pieces.append(_file(file).encode())
        if number == 1 or number % _FILES_A_WRITE == 0:
            yield b"".join(pieces)
            pieces = []
    yield b"".join([*pieces, _FOOT])


def _text(value: str) -> str:
    return escape(_NOT_IN_XML.sub("\ufffd", value))


def _attribute(value: object) -> str:
    return quoteattr(_NOT_IN_XML.sub("\ufffd", str(value)))


def _file(file: Mapping[str, Any]) -> str:
    did = f"{file['scope']}:{file['name']}"
    lines = [f" <file name={_attribute(file['name'])}>"]
    if file["parents"]:
        lines.append("  <parents>")
        lines += [f"   <did>{_text(parent)}</did>" for parent in file["parents"]]
        lines.append("  </parents>")
    lines.append(f"  <identity>{_text(did)}</identity>")
    for kind in ("adler32", "md5"):
        if file[kind] is not None:
            lines.append(f'  <hash type="{kind}">{_text(file[kind])}</hash>')
    lines.append(f"  <size>{file['bytes']}</size>")
    lines.append(f"  <glfn name={_attribute(f'/generic/rucio/{did}')}></glfn>")
    for pfn, entry in file["pfns"].items():
        extract = str(entry["client_extract"]).lower()
        lines.append(
            f"  <url location={_attribute(entry['rse'])} domain={_attribute(entry['domain'])}"
            f' priority="{entry["priority"]}" client_extract="{extract}">{_text(pfn)}</url>'
        )
    lines.append(" </file>\n")
    return "\n".join(lines)
