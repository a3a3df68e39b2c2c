"""What rules can be listed by: Rucio's filters, in the texts of a query."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlalchemy.sql import Select

from arriero.registry.dialect import like_pattern
from arriero.registry.errors import InvalidInput
from arriero.registry.schema.tables import accounts, dids, rules, scopes, subscriptions
from arriero.registry.services.rule_specs import MAX_COPIES
from arriero.registry.states import GROUPING_LETTERS, RULE_LETTERS, DidType, RuleGrouping, RuleState

_RUCIO_DATE = "%a, %d %b %Y %H:%M:%S UTC"


def filtered(query: Select[Any], filters: Mapping[str, str]) -> Select[Any]:
    """Narrow a query for rules.

    Parameters
    ----------
    query
        Of `arriero.registry.store.rules.rule_query`.
    filters
        Any of `FILTERS`; states as words or Rucio's letters, instants as ISO 8601 or as Rucio writes them, ``*`` for
        any text in ``account`` and ``scope``.

    Raises
    ------
    InvalidInput
        A filter that does not exist, or a value that it cannot have.
    """
    for key, text in filters.items():
        condition = FILTERS.get(key)
        if condition is None:
            raise InvalidInput(f"rules cannot be filtered by {key[:80]!a}; they can by {', '.join(FILTERS)}")
        try:
            query = query.where(condition(text))
        except ValueError as error:
            raise InvalidInput(f"{key} cannot be {text[:40]!a}") from error
    return query


def parse_grouping(text: str | None) -> RuleGrouping:
    """Read a grouping: a word, or Rucio's letter; DATASET by default.

    Raises
    ------
    ValueError
        It is neither.
    """
    if text is None:
        return RuleGrouping.DATASET
    letters = {letter: grouping for grouping, letter in GROUPING_LETTERS.items()}
    return letters.get(text) or RuleGrouping(text.upper())


def parse_state(text: str) -> RuleState:
    """Read a rule's state: a word, or Rucio's letter.

    Raises
    ------
    ValueError
        It is neither.
    """
    letters = {letter: state for state, letter in RULE_LETTERS.items()}
    return letters.get(text) or RuleState(text.upper())


def _instant(text: str) -> datetime:
    try:
        return datetime.strptime(text, _RUCIO_DATE).replace(tzinfo=UTC)
    except ValueError:
        found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        # the first and the last hours that there are, elsewhere
        raise ValueError(text) from error


def _yes(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError(text)
    return text.lower() in {"true", "1"}


def _copies(text: str) -> int:
    if not 0 <= int(text) <= MAX_COPIES:
        raise ValueError(text)
    return int(text)


def _equals(column: ColumnElement[Any], read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    return lambda text: column == read(text)


def _like(column: ColumnElement[Any]) -> Callable[[str], Any]:
    def condition(text: str) -> Any:
        return column.like(like_pattern(text), escape="\\") if "*" in text else column == text

    return condition


def _priority(text: str) -> int:
    if not 1 <= int(text) <= 5:
        raise ValueError(text)
    return int(text)


FILTERS: Mapping[str, Callable[[str], ColumnElement[bool]]] = {
    "id": _equals(rules.c.uuid, UUID),
    "account": _like(accounts.c.name),
    "scope": _like(scopes.c.name),
    "name": _equals(dids.c.name),
    "did_type": _equals(dids.c.type, lambda text: DidType(text.upper())),
    "state": _equals(rules.c.state, parse_state),
    "rse_expression": _equals(rules.c.rse_expression),
    "source_replica_expression": _equals(rules.c.source_replica_expression),
    "activity": _equals(rules.c.activity),
    "grouping": _equals(rules.c.grouping, parse_grouping),
    "copies": _equals(rules.c.copies, _copies),
    "priority": _equals(rules.c.priority, _priority),
    "weight": _equals(rules.c.weight),
    "locked": _equals(rules.c.locked, _yes),
    "purge_replicas": _equals(rules.c.purge_replicas, _yes),
    "ignore_availability": _equals(rules.c.ignore_availability, _yes),
    "ignore_account_limit": _equals(rules.c.ignore_account_limit, _yes),
    "comments": _equals(rules.c.comments),
    "subscription_id": _equals(subscriptions.c.uuid, UUID),
    "subscription": _equals(subscriptions.c.name),
    "created_before": lambda text: rules.c.created_at < _instant(text),
    "created_after": lambda text: rules.c.created_at > _instant(text),
    "updated_before": lambda text: rules.c.updated_at < _instant(text),
    "updated_after": lambda text: rules.c.updated_at > _instant(text),
    "expires_before": lambda text: rules.c.expires_at < _instant(text),
    "expires_after": lambda text: rules.c.expires_at > _instant(text),
}
"""Filters by name: each gives the condition for a text, or raises ValueError."""
