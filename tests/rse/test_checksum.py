"""Checksums in one form."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.rse.checksum import Adler32, Md5, adler32_of, canonical_adler32, canonical_md5


@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(0, 8))
def test_every_spelling_of_an_adler32_is_one(value: int, upper: bool, width: int) -> None:
    text = f"{value:0{width}x}"
    assert canonical_adler32(text.upper() if upper else text) == f"{value:08x}"
    assert canonical_adler32(f" 0x{text}\n") == f"{value:08x}"


@pytest.mark.parametrize("text", ["", "0x", "g0000000", "123456789", "-1", "１２", "12 34", "adler32=1"])
def test_what_is_no_adler32_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an adler32"):
        canonical_adler32(text)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "g" * 32])
def test_what_is_no_md5_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an md5"):
        canonical_md5(text)


def test_an_md5_is_lower_case() -> None:
    assert canonical_md5("A" * 32) == "a" * 32


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_incremental_is_the_same_as_at_once(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert adler32_of(pieces) == (f"{zlib.adler32(whole):08x}", len(whole))
    adler32, md5 = Adler32(), Md5()
    for piece in adler32.through(pieces):
        md5.update(piece)
    assert (adler32.hexdigest(), adler32.bytes) == (f"{zlib.adler32(whole):08x}", len(whole))
    assert md5.hexdigest() == hashlib.md5(whole).hexdigest()


def test_of_nothing() -> None:
    assert adler32_of([]) == ("00000001", 0)
