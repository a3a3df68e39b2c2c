"""What may be a name: checked at the edge, so that nothing behind it has to.

Scopes, accounts and RSEs have Rucio's alphabets. The name of a DID may hold whatever a path below an RSE's prefix may
(`arriero.rse.paths.safe_path`), because that is what it becomes.
"""

import re
from enum import StrEnum
from typing import TypeVar

from arriero.registry.errors import InvalidInput
from arriero.rse.errors import InvalidName
from arriero.rse.paths import safe_path

W = TypeVar("W", bound=StrEnum)

MAX_NAME_CHARACTERS = 500

_ACCOUNT = re.compile(r"[a-z0-9_][a-z0-9_-]{0,24}", re.ASCII)
_SCOPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,24}", re.ASCII)
_RSE = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", re.ASCII)


_PLAIN_DID = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,199}(?:/[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,199})*", re.ASCII
)
"""Names of which there is nothing to say; the others are looked at closely."""

_NULL_CHARACTER = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of JSON for it, not after a backslash that is itself escaped. As a byte JSON does not allow it."""


def holds_null_character(json: bytes) -> bool:
    """Whether a text or key of some JSON holds a null character, which PostgreSQL takes in none."""
    # looking for what may be one first: the expression takes longer than reading the JSON
    return b"\\u0000" in json and _NULL_CHARACTER.search(json) is not None


def _refuse(kind: str, name: str, rule: str) -> InvalidInput:
    return InvalidInput(f"{name[:80]!a} cannot be the name of {kind}: {rule}", rucio_class="InvalidObject")


def check_account_name(name: str) -> str:
    """Give the name back if it may be an account's."""
    if _ACCOUNT.fullmatch(name) is None:
        raise _refuse("an account", name, "1 to 25 of a-z, 0-9, '_' and '-'")
    return name


def check_scope_name(name: str) -> str:
    """Give the name back if it may be a scope's."""
    if _SCOPE.fullmatch(name) is None:
        raise _refuse("a scope", name, "1 to 25 letters, digits, '_', '.' and '-'")
    return name


def check_rse_name(name: str) -> str:
    """Give the name back if it may be an RSE's: a term of an RSE expression."""
    if len(name) > 255 or _RSE.fullmatch(name) is None:
        raise _refuse("an RSE", name, "letters and digits, joined by single '_' or '-'")
    return name


def check_did_name(name: str) -> str:
    """Give the name back if it may be a DID's.

    Raises
    ------
    InvalidInput
        It is too long, or would not be a safe path.
    """
    if len(name) <= MAX_NAME_CHARACTERS and _PLAIN_DID.fullmatch(name) is not None:
        return name
    if len(name) > MAX_NAME_CHARACTERS:
        raise _refuse("a DID", name, f"at most {MAX_NAME_CHARACTERS} characters")
    try:
        return safe_path(name)
    except InvalidName as error:
        raise InvalidInput(error.message, rucio_class="InvalidObject", code=error.code) from error


def word_of(kind: type[W], text: str, what: str) -> W:
    """Read a word of a state or type.

    Raises
    ------
    InvalidInput
        There is no such word; lists those that there are.
    """
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidInput(f"{what} is one of {', '.join(kind)}, not {text[:40]!a}") from error
