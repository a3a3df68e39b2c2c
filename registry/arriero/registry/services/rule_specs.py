"""What a rule may ask for: checked before anything is written, against the RSEs as they are now."""

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from arriero.registry.errors import Conflict, InvalidInput
from arriero.registry.states import RuleGrouping
from arriero.registry.store.rses import Rse, load_rses
from arriero.rse.errors import InvalidExpression
from arriero.rse.expression import parse
from arriero.rse.rse_index import RseIndex

DEFAULT_ACTIVITY = "User Subscriptions"
"""Rucio's default."""

MAX_EXPRESSION_CHARACTERS = 1024
MAX_COPIES = 1000
MAX_LIFETIME_S = 10**10
MAX_META_BYTES = 4000
MAX_COMMENT_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """A rule as it is asked for; defaults are those of Rucio's client."""

    rse_expression: str
    copies: int
    account: str | None = None
    """Whose rule it is; None for the caller's."""
    grouping: RuleGrouping = RuleGrouping.DATASET
    weight: str | None = None
    lifetime_s: float | None = None
    priority: int = 3
    activity: str = DEFAULT_ACTIVITY
    source_replica_expression: str | None = None
    notification: str = "N"
    locked: bool = False
    purge_replicas: bool = False
    ignore_availability: bool = False
    ignore_account_limit: bool = False
    ask_approval: bool = False
    delay_injection_s: float = 0
    comment: str | None = None
    meta: Any = None
    subscription: UUID | None = None
    """The subscription that asks for it."""


def check_spec(connection: Connection, spec: RuleSpec) -> None:
    """Verify that a rule could be done on the RSEs that there are.

    Raises
    ------
    InvalidInput
        A figure or text out of its bounds, or a weight that no candidate has.
    InvalidExpression
        The RSE expression cannot be read, or nothing satisfies it.
    Conflict
        Too few RSEs for so many copies, or none of them can be written to.
    """
    _check_figures(spec)
    known = load_rses(connection)
    if spec.source_replica_expression:
        check_sources(known, spec.source_replica_expression)
    names = parse(spec.rse_expression).evaluate(rse.as_info() for rse in known.values())
    candidates = [known[name] for name in sorted(names)]
    if spec.ask_approval:
        _check_approvable(candidates)
    writable = [rse for rse in candidates if rse.writable or spec.ignore_availability]
    if not writable:
        raise Conflict(
            f"{spec.rse_expression}: none of {_shown(candidates)} can be written to now; "
            "unblock one, or set ignore_availability",
            rucio_class="RSEWriteBlocked",
        )
    if spec.copies > len(writable):
        raise Conflict(
            f"{spec.copies} copies need as many RSEs, and {spec.rse_expression} gives {_shown(writable)}",
            rucio_class="InsufficientTargetRSEs",
        )
    _check_weight(spec, writable)


def _check_approvable(candidates: list[Rse]) -> None:
    blocked = [rse for rse in candidates if is_true(rse.attributes.get("block_manual_approval"))]
    if blocked:
        raise Conflict(
            f"rules on {_shown(blocked)} are not for approval by hand (attribute block_manual_approval): "
            "ask for it without ask_approval, or for other RSEs",
            rucio_class="ManualRuleApprovalBlocked",
        )


def _check_figures(spec: RuleSpec) -> None:
    _check_length(spec.rse_expression)
    check_copies(spec.copies)
    check_priority(spec.priority)
    if spec.lifetime_s is not None and not 0 < spec.lifetime_s <= MAX_LIFETIME_S:
        raise InvalidInput("lifetime is a number of seconds above 0", rucio_class="InvalidReplicationRule")
    if not 0 <= spec.delay_injection_s <= MAX_LIFETIME_S:
        raise InvalidInput("delay_injection is a number of seconds", rucio_class="InvalidReplicationRule")
    check_activity(spec.activity)
    check_comment(spec.comment)
    check_meta(spec.meta)


def check_comment(comment: object) -> None:
    """Verify a comment.

    Raises
    ------
    InvalidInput
        It is no text, or too long.
    """
    if comment is not None and (not isinstance(comment, str) or len(comment) > MAX_COMMENT_CHARACTERS):
        raise InvalidInput(f"a comment is a text of at most {MAX_COMMENT_CHARACTERS} characters")


def check_meta(meta: Any) -> None:
    """Verify what is kept with a rule.

    Raises
    ------
    InvalidInput
        It is no JSON, or too large.
    """
    try:
        size = len(orjson.dumps(meta))
    except orjson.JSONEncodeError as error:
        raise InvalidInput(f"meta of a rule: {error}") from error
    if size > MAX_META_BYTES:
        raise InvalidInput(f"meta of a rule is at most {MAX_META_BYTES} bytes of JSON")


def _check_length(expression: str) -> None:
    if not expression or len(expression) > MAX_EXPRESSION_CHARACTERS:
        raise InvalidInput(
            f"an RSE expression has 1 to {MAX_EXPRESSION_CHARACTERS} characters",
            rucio_class="InvalidRSEExpression",
        )


def check_copies(copies: int) -> int:
    """Give a number of copies back if a rule may ask for so many.

    Raises
    ------
    InvalidInput
        It may not.
    """
    if not 1 <= copies <= MAX_COPIES:
        raise InvalidInput(f"copies is a number from 1 to {MAX_COPIES}", rucio_class="InvalidReplicationRule")
    return copies


def check_priority(priority: int) -> None:
    """Verify a priority.

    Raises
    ------
    InvalidInput
        It is not from 1 to 5.
    """
    if not 1 <= priority <= 5:
        raise InvalidInput("priority is from 1 to 5, the most urgent", rucio_class="InvalidReplicationRule")


def check_activity(activity: object) -> None:
    """Verify the name of an activity.

    Raises
    ------
    InvalidInput
        It is empty, or longer than 50 characters.
    """
    if not isinstance(activity, str) or not 1 <= len(activity) <= 50 or not activity.isprintable():
        raise InvalidInput("an activity has 1 to 50 characters", rucio_class="InvalidReplicationRule")


def check_expression(index: RseIndex, expression: str) -> None:
    """Verify that an expression names RSEs.

    Raises
    ------
    InvalidInput
        It is empty, or longer than an expression may be.
    InvalidExpression
        It cannot be read, or nothing satisfies it.
    """
    _check_length(expression)
    parse(expression).evaluate(index)


def check_sources(known: dict[str, Rse], expression: object) -> None:
    """Verify a source replica expression.

    Raises
    ------
    InvalidInput
        It cannot be read, or nothing satisfies it.
    """
    if not isinstance(expression, str) or len(expression) > MAX_EXPRESSION_CHARACTERS:
        raise InvalidInput(
            f"source_replica_expression is a text of at most {MAX_EXPRESSION_CHARACTERS} characters",
            rucio_class="InvalidSourceReplicaExpression",
        )
    try:
        parse(expression).evaluate(rse.as_info() for rse in known.values())
    except InvalidExpression as error:
        raise InvalidInput(
            f"source_replica_expression: {error.message}", rucio_class="InvalidSourceReplicaExpression"
        ) from error


def is_true(text: str | None) -> bool:
    """Whether an attribute says yes."""
    return text is not None and text.lower() in {"true", "1", "yes"}


def _shown(rses: list[Rse]) -> str:
    names = ", ".join(rse.name for rse in rses[:5])
    return f"{names} and {len(rses) - 5} more" if len(rses) > 5 else names


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and 0 <= float(text) < math.inf
    except ValueError:
        return False


def _check_weight(spec: RuleSpec, writable: list[Rse]) -> None:
    """Verify that enough RSEs have the attribute that weighs them, and that each that has it has a number."""
    if not spec.weight:
        return
    having = [rse for rse in writable if spec.weight in rse.attributes]
    wrong = [rse for rse in having if not _is_number(rse.attributes.get(spec.weight))]
    if wrong or not having:
        said = f"{_shown(wrong)} has no number" if wrong else "no candidate RSE has a number"
        raise InvalidInput(f"{said} as attribute {spec.weight[:80]!a}", rucio_class="InvalidRuleWeight")
    having = [rse for rse in having if float(rse.attributes[spec.weight]) > 0]
    if len(having) < spec.copies:
        raise Conflict(
            f"{spec.copies} copies need as many RSEs, and attribute {spec.weight[:80]!a} is above zero "
            f"at {_shown(having) or 'none'} only",
            rucio_class="InsufficientTargetRSEs",
        )
