"""Rucio's filters of DIDs, read: a list of mappings, any of which may fit, of ``key`` or ``key.operator`` to a value.

The official command line sends every value as text (``night>=20241101,good=true;run=5``), so texts that spell a
number, a boolean or an instant are compared as that.
"""

import ast
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from arriero.registry.errors import InvalidInput
from arriero.registry.states import DidType
from arriero.registry.store.did_search import (
    FLAGS,
    INSTANTS,
    NUMBERS,
    TEXTS,
    Condition,
    Group,
    Operator,
    Value,
)
from arriero.registry.store.json_filters import number_of

TYPES: Mapping[str, tuple[DidType, ...]] = {
    "all": tuple(DidType),
    "collection": (DidType.DATASET, DidType.CONTAINER),
    "dataset": (DidType.DATASET,),
    "container": (DidType.CONTAINER,),
    "file": (DidType.FILE,),
}
"""Rucio's words for the types that are wanted."""

MAX_CHARACTERS = 10_000
MAX_CONDITIONS = 100

_DATES = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S.%fZ",
    "%Y-%m-%dT%H:%M:%S.%fZ",
    "%a, %d %b %Y %H:%M:%S UTC",
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T][\d:.]+Z?)?|[A-Z][a-z]{2}, [\w: ]+ UTC", re.ASCII)
_OLD_WORDS = {"created_after": "created_at.gte", "created_before": "created_at.lte"}
_ORDER = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_MAX_INTEGER = 2**63


def _bad(message: str, *, rucio_class: str = "DIDFilterSyntaxError") -> InvalidInput:
    return InvalidInput(message, rucio_class=rucio_class)


def read_filters(filters: str | None, did_type: str) -> list[Group]:
    """Read the filters of a call.

    Parameters
    ----------
    filters
        JSON, or a Python literal as the official client writes it: a list of mappings, or one.
    did_type
        ``all``, ``collection``, ``dataset``, ``container`` or ``file``; a key ``type`` of a mapping says otherwise.

    Raises
    ------
    InvalidInput
        They cannot be read, or ask for what makes no sense.
    """
    groups = [_group(group, did_type) for group in _mappings(filters)]
    if sum(len(group.conditions) for group in groups) > MAX_CONDITIONS:
        raise _bad(f"at most {MAX_CONDITIONS} conditions in one call")
    return groups or [Group(_types(did_type))]


def _mappings(filters: str | None) -> list[Mapping[Any, Any]]:
    if not filters:
        return []
    if len(filters) > MAX_CHARACTERS:
        raise _bad(f"filters are at most {MAX_CHARACTERS} characters")
    try:
        read = orjson.loads(filters)
    except ValueError:
        try:
            read = ast.literal_eval(filters)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
            raise _bad("filters cannot be read: send a list of objects as JSON") from error
    groups = [read] if isinstance(read, dict) else read
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise _bad("filters are a list of objects")
    if len(groups) > MAX_CONDITIONS:
        raise _bad(f"at most {MAX_CONDITIONS} alternatives in one call")
    return groups


def _types(word: Any) -> tuple[DidType, ...]:
    types = TYPES.get(word.lower()) if isinstance(word, str) else None
    if types is None:
        raise _bad(f"type is one of {', '.join(TYPES)}", rucio_class="UnsupportedOperation")
    return types


def _group(group: Mapping[Any, Any], did_type: str) -> Group:
    types = _types(did_type)
    conditions: dict[tuple[str, Operator], Condition] = {}
    for word, value in group.items():
        key, operator = _key(word)
        if key in ("type", "did_type"):
            if operator is not Operator.EQ:
                raise _bad("a type is asked for with '='")
            types = _types(value)
            continue
        if (key, operator) in conditions:
            raise _bad(f"{key[:80]} is compared twice", rucio_class="DuplicateCriteriaInDIDFilter")
        conditions[key, operator] = _condition(key, operator, value)
    kept = (one for one in conditions.values() if not _is_anything(one))
    return Group(types, tuple(kept))


def _is_anything(one: Condition) -> bool:
    return one.key == "name" and one.operator is Operator.EQ and set(one.spelt) == {"*"}


def _key(word: Any) -> tuple[str, Operator]:
    text = _OLD_WORDS.get(word, word) if isinstance(word, str) else ""
    key, dot, operator = text.rpartition(".")
    if not dot:
        key, operator = text, "eq"
    if not key or len(key) > 255 or not key.isprintable():
        raise _bad(f"{str(word)[:80]!a} cannot be a key of the metadata", rucio_class="KeyNotFound")
    try:
        return key, Operator(operator or "eq")
    except ValueError as error:
        raise _bad(f"{operator[:40]!a} is no operator: {', '.join(Operator)}") from error


def _condition(key: str, operator: Operator, sent: Any) -> Condition:
    if isinstance(sent, bool):
        spelt = "true" if sent else "false"
    elif isinstance(sent, (str, int, float)):
        spelt = str(sent)
    else:
        raise _bad(f"{key[:80]}: a text, a number or a boolean is needed")
    if "\x00" in spelt:
        raise _bad(f"{key[:80]}: a null character can be in no text")
    one = Condition(key, operator, _value(sent) if key not in TEXTS else spelt, spelt)
    if one.is_pattern and operator in _ORDER:
        raise _bad(f"{key[:80]}: a wildcard goes with '=' and '!=' only")
    if key in TEXTS and key != "account" and operator in _ORDER:
        raise _bad(f"{key} is compared with '=' and '!=' only")
    if isinstance(one.value, bool) and operator in _ORDER:
        raise _bad(f"{key[:80]}: true and false have no order")
    _check_column(one)
    return one


def _check_column(one: Condition) -> None:
    if one.key in NUMBERS and (isinstance(one.value, bool) or not isinstance(one.value, (int, float))):
        raise _bad(f"{one.key} is compared with a number")
    if one.key in FLAGS and not isinstance(one.value, bool):
        raise _bad(f"{one.key} is true or false")
    if one.key in INSTANTS and not isinstance(one.value, datetime):
        raise _bad(f"{one.key} is compared with a date, such as 2024-11-08 or 2024-11-08T01:02:03")


def _value(sent: str | float) -> Value:
    if not isinstance(sent, str):
        if isinstance(sent, int) and not -_MAX_INTEGER <= sent < _MAX_INTEGER:
            raise _bad("a number of at most 64 bits is needed")
        if isinstance(sent, float) and not math.isfinite(sent):
            raise _bad("a finite number is needed")
        return sent
    if sent.lower() in ("true", "false"):
        return sent.lower() == "true"
    number = number_of(sent)
    if number is not None:
        return number
    return _instant(sent) or sent


def _instant(text: str) -> datetime | None:
    if _DATE.fullmatch(text) is None:
        return None
    for spelling in _DATES:
        try:
            return datetime.strptime(text, spelling).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
