"""Which DIDs a subscription takes: Rucio's meaning, but for what docs/adr/0017 names. Pure; a refusal says why."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FILE = "FILE"
COLLECTIONS = frozenset({"DATASET", "CONTAINER"})
"""What a filter takes that names no type, as in Rucio."""

MAX_TEXT = 1000
"""Characters of a value of the metadata that an expression is held against: documents are no values to match."""

_OF_EVERY_DID = frozenset(
    {"scope", "pattern", "excluded_pattern", "account", "did_type", "split_rule"}
    | {"min_avg_file_size", "max_avg_file_size", "name", "is_open", "monotonic", "bytes"}
)
"""Keys of a filter that are no metadata."""


class UnusableSubscription(Exception):
    """A subscription's filter or templates cannot be applied to anything."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DidFacts:
    """What a filter is held against."""

    did_id: int
    scope: str
    name: str
    type: str
    account: str
    is_open: bool = True
    monotonic: bool = False
    bytes: int | None = None
    """Of a file."""
    meta: Mapping[str, Any] = field(default_factory=dict)


class DidFilter:
    """A filter, read once and held against many DIDs.

    Parameters
    ----------
    given
        In Rucio's shape.

    Raises
    ------
    UnusableSubscription
        A pattern is no regular expression.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._scopes = [_pattern("scope", one) for one in _several(given.get("scope"))]
        self._pattern = _optional("pattern", given)
        self._excluded = _optional("excluded_pattern", given)
        self._accounts = frozenset(_several(given.get("account")))
        types = frozenset(str(one).upper() for one in _several(given.get("did_type")))
        self.types = types or COLLECTIONS
        self._least = given.get("min_avg_file_size")
        self._most = given.get("max_avg_file_size")
        self.splits = bool(given.get("split_rule"))
        plain = {
            key: _values(key, given[key]) for key in ("name", "is_open", "monotonic", "bytes") if key in given
        }
        own = {key: _values(key, value) for key, value in given.items() if key not in _OF_EVERY_DID}
        self._plain: Mapping[str, Sequence[_Value]] = plain
        self._own: Mapping[str, Sequence[_Value]] = own

    @property
    def needs_sizes(self) -> bool:
        """Whether how many files and bytes a DID holds counts."""
        return self._least is not None or self._most is not None

    @property
    def needs_metadata(self) -> bool:
        """Whether anything but what every DID has counts."""
        return bool(self._own)

    @property
    def wants_files(self) -> bool:
        """Whether files are taken."""
        return FILE in self.types

    def refusal(self, did: DidFacts) -> str | None:
        """Say why a DID is not taken, whatever its size; None when it is."""
        if did.type not in self.types:
            return f"it is a {did.type}"
        if self._scopes and not any(one.match(did.scope) for one in self._scopes):
            return f"scope {did.scope} is none of its scopes"
        if self._pattern is not None and self._pattern.match(did.name) is None:
            return "the name does not fit its pattern"
        if self._excluded is not None and self._excluded.match(did.name) is not None:
            return "the name fits its excluded pattern"
        if self._accounts and did.account not in self._accounts:
            return f"account {did.account} is none of its accounts"
        return self._refusal_of_values(did)

    def _refusal_of_values(self, did: DidFacts) -> str | None:
        for key, wanted in self._plain.items():
            if not _fits(wanted, getattr(did, key)):
                return f"{key} has another value"
        for key, wanted in self._own.items():
            if did.meta.get(key) is None:
                return f"it has no metadata {key}"
            if not _fits(wanted, did.meta[key]):
                return f"metadata {key} has another value"
        return None

    def size_refusal(self, files: int, size: int) -> str | None:
        """Say why so many files and bytes are not taken; None when they are.

        A collection without files has no average, and is looked at again when it closes.
        """
        if not self.needs_sizes:
            return None
        if not files:
            return "it holds no files, so they have no average size"
        if self._least is not None and size < self._least * files:
            return f"its files have {size / files:.0f} bytes on average, less than {self._least}"
        if self._most is not None and size > self._most * files:
            return f"its files have {size / files:.0f} bytes on average, more than {self._most}"
        return None


_Value = re.Pattern[str] | bool | int | float


def _several(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list) else [given]


def _pattern(key: str, text: object) -> re.Pattern[str]:
    try:
        return re.compile(str(text))
    except (re.error, OverflowError, RecursionError) as error:
        raise UnusableSubscription(
            "invalid_pattern", f"filter: {key}: no regular expression: {error}"
        ) from error


def _optional(key: str, given: Mapping[str, Any]) -> re.Pattern[str] | None:
    return None if given.get(key) is None else _pattern(key, given[key])


def _values(key: str, given: Any) -> list[_Value]:
    return [one if isinstance(one, (bool, int, float)) else _pattern(key, one) for one in _several(given)]


def _fits(wanted: Sequence[_Value], found: Any) -> bool:
    """Whether a value, or one of a list of them, is one of those that are wanted."""
    if isinstance(found, (list, tuple)):
        return any(_fits(wanted, one) for one in found)
    return any(_is(one, found) for one in wanted)


def _is(wanted: _Value, found: Any) -> bool:
    if isinstance(wanted, re.Pattern):
        return any(wanted.match(text) for text in _spellings(found))
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(found, str):
        return found == str(wanted)
    return isinstance(found, (int, float)) and found == wanted


def _spellings(found: Any) -> tuple[str, ...]:
    """Texts that a regular expression is held against: booleans as JSON and as Rucio write them."""
    if found is None or isinstance(found, Mapping):
        return ()
    if isinstance(found, bool):
        return ("true", "True") if found else ("false", "False")
    return (str(found)[:MAX_TEXT],)
