"""What a subscription may say: its filter and its rule templates, in Rucio's shapes. What is wrong is named by its key."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput
from arriero.registry.services.rse_names import index_of
from arriero.registry.services.rule_filters import parse_grouping
from arriero.registry.services.rule_specs import (
    MAX_LIFETIME_S,
    check_activity,
    check_copies,
    check_expression,
    check_priority,
)
from arriero.registry.states import DidType
from arriero.registry.store.rses import load_rses

MAX_JSON_BYTES = 64 * 1024
MAX_TEMPLATES = 100
MAX_PATTERN_CHARACTERS = 1000
MAX_VALUES = 1000
ALGORITHMS = ("associated_site", "exclude_site")
"""How a chained template follows from the one before it."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. +-]{0,63}", re.ASCII)


def refused(key: str, what: str) -> InvalidInput:
    """Error for a key that cannot have its value."""
    return InvalidInput(f"{key}: {what}", rucio_class="InvalidObject")


def check_name(name: str) -> str:
    """Give the name of a subscription back if it may be one.

    Raises
    ------
    InvalidInput
        It may not.
    """
    if _NAME.fullmatch(name) is None:
        raise refused("name", "1 to 64 letters, digits, spaces and any of _.+-")
    return name


def check_filter(given: object) -> dict[str, Any]:
    """Give a filter back if it can be applied.

    Parameters
    ----------
    given
        ``scope`` (regular expressions), ``account`` and ``did_type`` (one or a list; without ``did_type`` datasets and
        containers), ``pattern`` and ``excluded_pattern`` (regular expressions for names), ``min_avg_file_size`` and
        ``max_avg_file_size`` (bytes), ``split_rule``, ``is_open``, ``monotonic``, ``name``, and any key of the metadata
        with one value or a list of them (texts are regular expressions). They are held against the beginning of a text.

    Raises
    ------
    InvalidInput
        Names the key that is wrong.
    """
    found = _object("filter", given)
    if not found:
        raise refused("filter", 'it names nothing, and would take every DID: say so with {"pattern": ".*"}')
    for key, value in found.items():
        if _KEY.fullmatch(key) is None:
            raise refused(f"filter: {key[:64]!a}", "no key of a filter or of metadata")
        _FILTER.get(key, _check_metadata)(f"filter: {key}", value)
    low, high = found.get("min_avg_file_size"), found.get("max_avg_file_size")
    if low is not None and high is not None and low > high:
        raise refused("filter: max_avg_file_size", "it is less than min_avg_file_size")
    return found


def wants_files(checked: Mapping[str, Any]) -> bool:
    """Whether a filter takes files: only one that says so does, as in Rucio."""
    types = checked.get("did_type", [])
    return DidType.FILE in [str(one).upper() for one in (types if isinstance(types, list) else [types])]


def check_templates(connection: Connection, given: object) -> list[dict[str, Any]]:
    """Give rule templates back if rules can be made of them.

    Parameters
    ----------
    given
        A list of objects in the words of ``POST /rules/``, without DIDs; ``copies`` may be ``*``: as many as there are
        RSEs.

    Raises
    ------
    InvalidInput
        Names the template, by its number from 1, and the key that is wrong.
    InvalidExpression
        An RSE expression cannot be read, or nothing satisfies it.
    """
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_TEMPLATES:
        raise refused("replication_rules", f"a list of 1 to {MAX_TEMPLATES} rule templates")
    found = [_object(f"replication_rules {number}", one) for number, one in enumerate(given, 1)]
    index = index_of(load_rses(connection))
    for number, template in enumerate(found, 1):
        where = f"replication_rules {number}"
        for key in ("rse_expression", "copies"):
            if template.get(key) is None:
                raise refused(f"{where}: {key}", "missing")
        for key, value in template.items():
            check = _TEMPLATE.get(key)
            if check is None:
                raise refused(f"{where}: {key[:64]!a}", f"unknown; the keys are {', '.join(_TEMPLATE)}")
            if value is not None:
                check(f"{where}: {key}", value)
        _check_chain(where, number, template)
        for key in ("rse_expression", "source_replica_expression"):
            if template.get(key):
                check_expression(index, template[key])
    _bounded("replication_rules", found)
    return found


def _check_chain(where: str, number: int, template: Mapping[str, Any]) -> None:
    """Verify how a template follows from one before it."""
    index = template.get("chained_idx")
    if index is None:
        return
    if not 1 <= index < number:
        raise refused(f"{where}: chained_idx", f"{index} is no template before this one")
    if template.get("algorithm") not in ALGORITHMS:
        raise refused(f"{where}: algorithm", f"a chained template needs one of {', '.join(ALGORITHMS)}")
    if template["algorithm"] == "associated_site" and template.get("associated_site_idx") is None:
        raise refused(f"{where}: associated_site_idx", "missing for associated_site")


def _object(key: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise refused(key, "an object")
    _bounded(key, given)
    return given


def _bounded(key: str, given: object) -> None:
    try:
        size = len(orjson.dumps(given))
    except orjson.JSONEncodeError as error:
        raise refused(key, str(error)) from error
    if size > MAX_JSON_BYTES:
        raise refused(key, f"more than {MAX_JSON_BYTES} bytes of JSON")


def _text(key: str, value: object) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_PATTERN_CHARACTERS:
        raise refused(key, f"a text of 1 to {MAX_PATTERN_CHARACTERS} characters")


def _texts(key: str, value: object) -> None:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_VALUES:
        raise refused(key, f"1 to {MAX_VALUES} texts")
    for one in values:
        _text(key, one)


def _pattern(key: str, value: object) -> None:
    _text(key, value)
    try:
        re.compile(str(value))
    except (re.error, OverflowError, RecursionError) as error:
        raise refused(key, f"no regular expression: {error}") from error
    if may_take_for_ever(str(value)):
        raise refused(
            key,
            "a repeated group in which something is repeated or may be one of several, or more than "
            f"{MAX_REPEATS} repetitions: on some names it would take for ever; write it without",
        )


MAX_REPEATS = 8
"""Unbounded repetitions in a regular expression."""

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|.", re.DOTALL)


def may_take_for_ever(pattern: str) -> bool:
    """Whether a text that nearly fits could hold up the matching, which nothing can interrupt.

    A repeated group with a repetition or a choice in it may take time that grows exponentially.
    """
    tokens = _TOKEN.findall(pattern)
    repeats, inside = 0, [False]
    for part, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if part == "(":
            inside.append(False)
        elif part == ")" and len(inside) > 1:
            held = inside.pop()
            if held and _repeats(following):
                return True
            inside[-1] = inside[-1] or held
        elif part == "|":
            inside[-1] = True
        elif _repeats(part):
            repeats += 1
            inside[-1] = True
    return repeats > MAX_REPEATS


def _repeats(part: str) -> bool:
    """Whether a part of a pattern repeats what stands before it, many times."""
    if part in ("*", "+"):
        return True
    if not part.startswith("{") or not any(one.isdigit() for one in part):
        return False
    most = part[1:-1].rpartition(",")[2]
    return not most or int(most) > 10


def _patterns(key: str, value: object) -> None:
    _texts(key, value)
    for one in value if isinstance(value, list) else [value]:
        _pattern(key, one)


def _size(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise refused(key, "a number of bytes")


def _yes_or_no(key: str, value: object) -> None:
    if not isinstance(value, bool):
        raise refused(key, "true or false")


def _did_types(key: str, value: object) -> None:
    _texts(key, value)
    for word in value if isinstance(value, list) else [value]:
        if str(word).upper() not in DidType.__members__:
            raise refused(key, f"{str(word)[:40]!a} is none of {', '.join(DidType)}")


def _check_metadata(key: str, value: object) -> None:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_VALUES:
        raise refused(key, f"1 to {MAX_VALUES} values")
    for one in values:
        if isinstance(one, str):
            _pattern(key, one)
        elif not isinstance(one, (bool, int, float)):
            raise refused(key, "a text, a number, true or false, or a list of these")


def _number(least: float, most: float) -> Callable[[str, object], None]:
    def check(key: str, value: object) -> None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= float(str(value)) <= most or not math.isfinite(float(str(value))):
            raise refused(key, f"a number from {least:g} to {most:g}")

    return check


def _copies(key: str, value: object) -> None:
    if value == "*":
        return
    _whole(key, value, check_copies)


def _priority(key: str, value: object) -> None:
    _whole(key, value, check_priority)


def _whole(key: str, value: object, check: Callable[[int], object]) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(key, "a whole number")
    _as_rule(key, lambda: check(value))


def _activity(key: str, value: object) -> None:
    _text(key, value)
    _as_rule(key, lambda: check_activity(str(value)))


def _as_rule(key: str, check: Callable[[], object]) -> None:
    try:
        check()
    except InvalidInput as error:
        raise refused(key, error.message) from error


def _grouping(key: str, value: object) -> None:
    _text(key, value)
    try:
        parse_grouping(str(value))
    except ValueError as error:
        raise refused(key, "ALL, DATASET or NONE") from error


def _notify(key: str, value: object) -> None:
    if value not in ("Y", "N", "C", "P"):
        raise refused(key, "Y, N, C or P")


def _index(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TEMPLATES:
        raise refused(key, f"a whole number from 1 to {MAX_TEMPLATES}")


_FILTER: Mapping[str, Callable[[str, object], None]] = {
    "scope": _patterns,
    "account": _texts,
    "did_type": _did_types,
    "pattern": _pattern,
    "excluded_pattern": _pattern,
    "min_avg_file_size": _size,
    "max_avg_file_size": _size,
    "split_rule": _yes_or_no,
}

_TEMPLATE: Mapping[str, Callable[[str, object], None]] = {
    "rse_expression": _text,
    "copies": _copies,
    "activity": _activity,
    "lifetime": _number(1, MAX_LIFETIME_S),
    "weight": _text,
    "grouping": _grouping,
    "account": _text,
    "priority": _priority,
    "locked": _yes_or_no,
    "notify": _notify,
    "purge_replicas": _yes_or_no,
    "ignore_availability": _yes_or_no,
    "ignore_account_limit": _yes_or_no,
    "ask_approval": _yes_or_no,
    "asynchronous": _yes_or_no,
    "delay_injection": _number(0, MAX_LIFETIME_S),
    "source_replica_expression": _text,
    "comment": _text,
    "comments": _text,
    "meta": _bounded,
    "split_rule": _yes_or_no,
    "split_container": _yes_or_no,
    "chained_idx": _index,
    "algorithm": _text,
    "associated_site_idx": _index,
}
