"""What a call may say of a subscription beside its account and name."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, literal

from arriero.registry.schema.base import after
from arriero.registry.services.subscription_specs import check_filter, check_templates, refused, wants_files
from arriero.registry.states import SUBSCRIPTION_LETTERS, SubscriptionState

MAX_COMMENT_CHARACTERS = 4000
MAX_LIFETIME_DAYS = 36_500
PRIORITIES = range(10)
"""Lower goes first."""

_KEYS = frozenset(
    {
        "filter",
        "replication_rules",
        "comments",
        "lifetime",
        "retroactive",
        "dry_run",
        "priority",
        "state",
    }
)


def checked_options(connection: Connection, options: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
    """Give what a call asks for as values of columns.

    Raises
    ------
    InvalidInput, InvalidExpression
        Names the key that is wrong.
    """
    unknown = sorted(set(options) - _KEYS)
    if unknown:
        raise refused(unknown[0][:64], f"unknown; the options are {', '.join(sorted(_KEYS))}")
    values: dict[str, Any] = {}
    if "filter" in options:
        values["filter"] = check_filter(options["filter"])
        values["wants_files"] = wants_files(values["filter"])
    if "replication_rules" in options:
        values["replication_rules"] = check_templates(connection, options["replication_rules"])
    if options.get("lifetime") is not None:
        values["expires_at"] = _expiry(options["lifetime"])
    for key, check in _PLAIN.items():
        if options.get(key) is not None:
            values[key] = check(key, options[key])
    if options.get("state") is not None:
        if is_new:
            raise refused("state", "a new subscription is ACTIVE")
        values |= {"state": _state(options["state"]), "code": None, "reason": None}
    return values


def _expiry(lifetime: object) -> Any:
    if lifetime is False:
        return None
    is_number = isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool)
    if not is_number or not 0 <= float(str(lifetime)) <= MAX_LIFETIME_DAYS:
        raise refused("lifetime", f"a number of days from 0 to {MAX_LIFETIME_DAYS}, or false for ever")
    return after(literal(float(str(lifetime)) * 86_400))


def _comments(key: str, given: object) -> str:
    if not isinstance(given, str) or len(given) > MAX_COMMENT_CHARACTERS:
        raise refused(key, f"a text of at most {MAX_COMMENT_CHARACTERS} characters")
    return given


def _yes_or_no(key: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise refused(key, "true or false")
    return given


def _priority(key: str, given: object) -> int:
    # the official command line sends its option as it was typed
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if isinstance(number, bool) or not isinstance(number, int) or number not in PRIORITIES:
        raise refused(key, f"a whole number from 0 to {PRIORITIES[-1]}, lower goes first")
    return number


_PLAIN: Mapping[str, Callable[[str, object], Any]] = {
    "comments": _comments,
    "retroactive": _yes_or_no,
    "dry_run": _yes_or_no,
    "priority": _priority,
}


def _state(given: object) -> SubscriptionState:
    letters = {letter: state for state, letter in SUBSCRIPTION_LETTERS.items()}
    word = str(given).upper()
    state = letters.get(word) or SubscriptionState.__members__.get(word)
    if state not in (SubscriptionState.ACTIVE, SubscriptionState.INACTIVE):
        raise refused("state", "ACTIVE or INACTIVE")
    return state
