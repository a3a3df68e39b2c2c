"""Errors are told apart by class, and carry nothing that should not be stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.rse import errors
from arriero.rse.errors import REMOTE_TEXT_LIMIT, RSEError, clean_remote_text

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


@given(st.one_of(st.text(), st.binary()))
def test_remote_text_is_one_short_printable_line(text: str | bytes) -> None:
    cleaned = clean_remote_text(text)
    assert len(cleaned) <= REMOTE_TEXT_LIMIT
    assert cleaned.isprintable()
    assert clean_remote_text(cleaned) == cleaned or "*" in cleaned


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        f"TransferHeaderAuthorization: Bearer {TOKEN} was refused",
        f"authorization: Basic {TOKEN}",
        f"GET /f?authz=Bearer%20{TOKEN}&x=1",
        f"https://storage/f?access_token={TOKEN}",
        f"Bearer {TOKEN}",
        f"the token is {TOKEN}!",
        f"https://user:{TOKEN}@storage/f",
        f"password={TOKEN}",
        f"X-Amz-Signature={TOKEN}",
        f"https://s3/f?X-Amz-Security-Token={TOKEN}&a=b",
    ],
)
def test_credentials_are_masked(text: str) -> None:
    cleaned = clean_remote_text(text)
    assert TOKEN not in cleaned
    assert TOKEN.split(".")[1] not in cleaned
    assert "***" in cleaned


def test_ordinary_text_stays() -> None:
    text = "Unable to open /rucio/a b; no such file or directory (tokens: 3)"
    assert clean_remote_text(text) == text


def test_every_error_has_its_own_code() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RSEError)
    ]
    assert len({kind.code for kind in classes}) == len(classes) > 15
    assert all(400 <= kind.http_status < 600 for kind in classes)
    assert all(kind.exit_code == 5 or not kind.retryable or "mismatch" in kind.code for kind in classes)
