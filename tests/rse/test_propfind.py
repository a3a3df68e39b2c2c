"""Multi-status documents of several servers, and of nobody's friends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.rse.propfind import MalformedListing, Resource, member_name, parse_multistatus

XROOTD = """<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:">
<D:response xmlns:lp1="DAV:"><D:href>/rucio/d</D:href><D:propstat><D:prop>
<lp1:getcontentlength>4096</lp1:getcontentlength><lp1:resourcetype><D:collection/></lp1:resourcetype>
</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
<D:response xmlns:lp1="DAV:"><D:href>/rucio/d/a%20 é&amp;</D:href><D:propstat><D:prop>
<lp1:getcontentlength>6</lp1:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>""".encode()
APACHE = b"""<?xml version="1.0"?><multistatus xmlns="DAV:"><response><href>http://h/d/a%2520%C3%A9/</href>
<propstat><prop><getcontentlength/></prop><status>HTTP/1.1 404 Not Found</status></propstat>
<propstat><prop><resourcetype><collection/></resourcetype></prop><status>HTTP/1.1 200 OK</status></propstat>
</response></multistatus>"""


def test_xrootd_writes_names_as_they_are() -> None:
    folder, file = parse_multistatus([XROOTD])
    assert folder == Resource("/rucio/d", 4096, is_directory=True)
    assert file == Resource("/rucio/d/a%20 é&", 6, is_directory=False)
    assert file.is_plainly_unquoted
    assert member_name("/rucio/d", folder, quoted=False) is None
    assert member_name("/rucio/d", file, quoted=False) == "a%20 é&"


def test_apache_writes_urls() -> None:
    (folder,) = parse_multistatus([APACHE])
    assert folder.is_directory
    assert folder.bytes is None
    assert not folder.is_plainly_unquoted
    assert member_name("/d", folder, quoted=True) == "a%20é"


@given(st.sampled_from([XROOTD, APACHE]), st.integers(1, 50))
def test_pieces_make_no_difference(document: bytes, size: int) -> None:
    pieces = [document[start : start + size] for start in range(0, len(document), size)]
    assert parse_multistatus(pieces) == parse_multistatus([document])


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<multistatus xmlns="DAV:"><response><href>&b;</href></response></multistatus>"""
ENTITY = (
    b"""<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><multistatus xmlns="DAV:">&f;</multistatus>"""
)


@pytest.mark.parametrize(
    "document",
    [b"", b"<html></html>", b"not xml", XROOTD[:-20], BOMB, ENTITY, b"<multistatus/>", b"\xff\xfe\x00"],
    ids=["empty", "html", "text", "cut", "bomb", "entity", "no-namespace", "bytes"],
)
def test_anything_else_is_refused(document: bytes) -> None:
    with pytest.raises(MalformedListing):
        parse_multistatus([document])


def test_texts_are_bounded() -> None:
    with pytest.raises(MalformedListing, match="longer"):
        parse_multistatus([b'<multistatus xmlns="DAV:"><response><href>', *[b"x" * 1000] * 100])
