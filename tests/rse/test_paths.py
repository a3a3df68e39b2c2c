"""Paths never leave the prefix, whoever decodes and resolves them."""

from __future__ import annotations

import posixpath
import unicodedata
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from arriero.rse.errors import InvalidName
from arriero.rse.paths import MAX_PATH_BYTES, MAX_SEGMENT_BYTES, parent_of, safe_path, temporary_path
from arriero.rse.types import Endpoint

ENDPOINT = Endpoint("X", "davs", "storage.example", 1094, "/rucio/raw")
HOSTILE = st.text(alphabet=st.sampled_from("./\\%2eE?#&;: a\0\r\n~é\u0308\u202e"), max_size=30)


@given(st.one_of(HOSTILE, st.text(max_size=60)))
def test_never_escapes_the_prefix_after_quoting_and_decoding(path: str) -> None:
    try:
        url = ENDPOINT.url(path)
    except InvalidName:
        return
    assert url.startswith("https://storage.example:1094/rucio/raw/")
    assert url.isascii()
    parts = urlsplit(url)
    assert (parts.query, parts.fragment, parts.netloc) == ("", "", "storage.example:1094")
    decoded = unquote(parts.path)
    assert decoded == f"/rucio/raw/{path}"
    assert posixpath.normpath(decoded) == decoded
    assert not any(unicodedata.category(character) == "Cc" for character in decoded)


@given(st.one_of(HOSTILE, st.text(min_size=1, max_size=300)), st.text("ab1-_", min_size=1, max_size=64))
def test_name_of_an_attempt_is_safe_and_beside_the_file(path: str, attempt: str) -> None:
    try:
        safe_path(path)
    except InvalidName:
        assume(False)
    temporary = temporary_path(path, attempt)
    assert safe_path(temporary) != path
    assert parent_of(temporary) == parent_of(path)
    assert temporary.endswith(f".{attempt}.part")


def test_names_of_attempts_at_long_names_differ() -> None:
    first, second = ("x" * 249 + letter for letter in "ab")
    assert temporary_path(first, "r1-1") != temporary_path(second, "r1-1")
    assert temporary_path(first, "r1-1") != temporary_path(first, "r1-2")


@pytest.mark.parametrize("attempt", ["", "a/b", "..", "a b", "é", "x" * 65, "a.b", "a\n"])
def test_name_of_an_attempt_is_checked(attempt: str) -> None:
    with pytest.raises(InvalidName):
        temporary_path("f", attempt)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "empty"),
        ("/a", "begins with"),
        ("a/", "empty"),
        ("a//b", "empty"),
        ("a/../b", "'..'"),
        ("..", "'..'"),
        (".", "'.'"),
        ("a\\b", "backslash"),
        ("a\tb", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("a\u2028b", "separator"),
        ("a\udc80", "surrogate"),
        ("e\u0301", "normal form"),
        ("x" * 251, "250 bytes"),
        ("é" * 126, "250 bytes"),
        ("/".join(["y" * 99] * 11), "1000 bytes"),
    ],
)
def test_refusals_say_why(path: str, says: str) -> None:
    with pytest.raises(InvalidName, match=says) as caught:
        safe_path(path)
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()


def test_limits_themselves_are_accepted() -> None:
    assert safe_path("x" * MAX_SEGMENT_BYTES)
    longest = "/".join(["y" * 99] * 10)
    assert len(safe_path(longest + "z")) == MAX_PATH_BYTES


@pytest.mark.parametrize(
    ("scheme", "hostname", "port", "prefix"),
    [
        ("http", "evil.example/path", 80, "/"),
        ("http", "user@host", 80, "/"),
        ("http", "host?x", 80, "/"),
        ("http", "host#x", 80, "/"),
        ("http", "host\r\nX: y", 80, "/"),
        ("http", "", 80, "/"),
        ("http", "host", 70000, "/"),
        ("http", "host", 80, "/a/../b"),
        ("ht tp", "host", 80, "/"),
        ("file", "elsewhere.example", 0, "/data"),
    ],
)
def test_an_endpoint_cannot_smuggle(scheme: str, hostname: str, port: int, prefix: str) -> None:
    with pytest.raises(InvalidName):
        Endpoint("X", scheme, hostname, port, prefix)


@pytest.mark.parametrize(
    ("endpoint", "url", "pfn"),
    [
        (
            Endpoint("X", "davs", "h.example", 443, "/a b/"),
            "https://h.example:443/a%20b/f%25",
            "davs://h.example:443/a%20b/f%25",
        ),
        (Endpoint("X", "dav", "::1", 0, ""), "http://[::1]/f%25", "dav://[::1]/f%25"),
        (Endpoint("X", "file", "", 0, "/data/raw"), "file:///data/raw/f%25", "file:///data/raw/f%25"),
    ],
)
def test_url_and_pfn(endpoint: Endpoint, url: str, pfn: str) -> None:
    assert endpoint.url("f%") == url
    assert endpoint.pfn("f%") == pfn
    assert endpoint.plain_folder + "f%" == unquote(pfn)
