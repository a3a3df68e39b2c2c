"""Limits of accounts: setting them, and refusing rules that could not be placed within them.

An account without a limit for an RSE may fill it (docs/adr/0012). What counts is what the account's rules lock, and
what those that are not placed yet will lock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Conflict, InvalidInput
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.accounts import account_missing, require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.limit_room import Demand, Room, room_left
from arriero.registry.services.rse_names import index_of, matching, require_rse_id
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.states import DidType, RuleGrouping
from arriero.registry.store import account_limits as store
from arriero.registry.store import account_usage as usage_store
from arriero.registry.store.evaluations import look_at_stuck
from arriero.registry.store.rses import Rse, load_rses
from arriero.rse.expression import parse
from arriero.rse.rse_index import RseIndex

MAX_EXPRESSION_CHARACTERS = 1000
MAX_GLOBAL_LIMITS = 1000
"""Of one account: each is measured at every rule that is added."""


def get_local_limits(context: Context, account: str) -> dict[str, int]:
    """Limits of an account by RSE, bytes; -1 for none."""
    with context.database.snapshot() as connection:
        return store.local_limits(connection, require_account(connection, account))


def get_local_limit(context: Context, account: str, rse: str) -> int | None:
    """Limit of an account at an RSE, bytes; None where none is set."""
    with context.database.snapshot() as connection:
        account_id = require_account(connection, account)
        require_rse_id(connection, rse)
        return store.local_limits(connection, account_id).get(rse)


def get_global_limits(context: Context, account: str) -> dict[str, int]:
    """Limits of an account by RSE expression, bytes; -1 for none."""
    with context.database.snapshot() as connection:
        return store.global_limits(connection, require_account(connection, account))


def set_local_limit(context: Context, actor: Actor, account: str, rse: str, limit: int) -> None:
    """Limit what an account may use at an RSE.

    Parameters
    ----------
    limit
        Bytes; -1 for no limit.
    """

    def change(connection: Connection, account_id: int) -> None:
        store.set_local_limit(connection, account_id, require_rse_id(connection, rse), limit)

    _change(context, actor, account, change, rse=rse, limit=limit)


def delete_local_limit(context: Context, actor: Actor, account: str, rse: str) -> None:
    """Let an account use an RSE without limit. Safe to repeat."""

    def change(connection: Connection, account_id: int) -> None:
        store.delete_local_limit(connection, account_id, require_rse_id(connection, rse))

    _change(context, actor, account, change, rse=rse, limit=None)


def set_global_limit(context: Context, actor: Actor, account: str, expression: str, limit: int) -> None:
    """Limit what an account may use at the RSEs of an expression together.

    Raises
    ------
    InvalidExpression
        It cannot be read, or names what there is not.
    """
    if not 0 < len(expression) <= MAX_EXPRESSION_CHARACTERS:
        raise InvalidInput(
            f"an RSE expression has 1 to {MAX_EXPRESSION_CHARACTERS} characters",
            rucio_class="InvalidRSEExpression",
        )

    def change(connection: Connection, account_id: int) -> None:
        parse(expression).evaluate(rse.as_info() for rse in load_rses(connection).values())
        known = store.global_limits(connection, account_id)
        if expression not in known and len(known) >= MAX_GLOBAL_LIMITS:
            raise Conflict(f"account {account} has {MAX_GLOBAL_LIMITS} global limits: remove one first")
        store.set_global_limit(connection, account_id, expression, limit)

    _change(context, actor, account, change, rse_expression=expression, limit=limit)


def delete_global_limit(context: Context, actor: Actor, account: str, expression: str) -> None:
    """Remove the limit of an account at the RSEs of an expression. Safe to repeat."""

    def change(connection: Connection, account_id: int) -> None:
        store.delete_global_limit(connection, account_id, expression)

    _change(context, actor, account, change, rse_expression=expression, limit=None)


def _change(
    context: Context,
    actor: Actor,
    account: str,
    change: Callable[[Connection, int], None],
    **detail: Any,
) -> None:
    authorize(actor, Action.ACCOUNT_LIMIT_SET, Target(account))

    def work(connection: Connection) -> None:
        account_id = require_account(connection, account)
        # a rule that is being measured sees the limit before or after, not half of it
        store.lock_spending(connection, account_id)
        change(connection, account_id)
        # what found no room may have some now
        look_at_stuck(connection, usage_store.rules_stuck(account_id))
        audit.record(connection, actor, Action.ACCOUNT_LIMIT_SET, account, **detail)

    context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)


@dataclass(frozen=True, slots=True)
class _Measured:
    """All that a measurement needs, read in a fixed number of statements."""

    rses: Mapping[str, Rse]
    index: RseIndex
    sizes: Mapping[int, int]

    def demand(self, did_id: int, did_type: DidType, spec: RuleSpec | RowMapping) -> Demand:
        """Say what a rule on a DID needs, as if nothing were held yet."""
        rule = spec if not isinstance(spec, RuleSpec) else _as_row(spec)
        candidates = [
            rse.id
            for rse in matching(self.rses, self.index, rule["rse_expression"])
            if rse.writable or rule["ignore_availability"]
        ]
        apart = rule["grouping"] is RuleGrouping.NONE or (
            rule["grouping"] is RuleGrouping.DATASET and did_type is DidType.CONTAINER
        )
        return Demand(
            bytes=self.sizes.get(did_id, 0),
            copies=rule["copies"],
            rse_ids=candidates,
            divisible=apart and did_type is not DidType.FILE,
        )


def _as_row(spec: RuleSpec) -> Mapping[str, Any]:
    return {
        "rse_expression": spec.rse_expression,
        "ignore_availability": spec.ignore_availability,
        "grouping": spec.grouping,
        "copies": spec.copies,
    }


def require_room(
    connection: Connection, actor: Actor, account_id: int, spec: RuleSpec, targets: Sequence[RowMapping]
) -> None:
    """Refuse rules that do not fit into their account's limits; hold the account until the transaction ends.

    Call it within the transaction that adds the rules, after the DIDs are locked and before the rules are inserted:
    two calls for the same account then measure one after the other.

    Parameters
    ----------
    account_id
        Whose rules they are.
    spec
        What they ask for.
    targets
        Rows of the DIDs, with ``id``, ``type``, ``scope`` and ``name``.

    Raises
    ------
    Conflict
        No set of RSEs has room for one of them; Rucio's ``InsufficientAccountLimit``.
    NotFound
        The account was deleted meanwhile.
    Denied
        Only an administrator may ignore limits.
    """
    account = store.hold_account(connection, account_id)
    if account is None:
        raise account_missing(spec.account or actor.account)
    if spec.ignore_account_limit:
        authorize(actor, Action.RULE_IGNORE_LIMIT, Target(account.name))
        return
    # who approves it decides about the limit too
    if spec.ask_approval or not account.limited:
        return
    store.lock_spending(connection, account_id)
    to_come = usage_store.rules_to_come(connection, account_id)
    roots = [row["id"] for row in targets] + [row["did_id"] for row in to_come]
    known = load_rses(connection)
    measured = _Measured(known, index_of(known), usage_store.sizes_below(connection, roots))
    coming = [measured.demand(rule["did_id"], rule["did_type"], rule) for rule in to_come]
    asked = [measured.demand(target["id"], target["type"], spec) for target in targets]
    if _fits_anyhow(measure_room(connection, account_id, known, roughly=True), [*coming, *asked]):
        return
    held = usage_store.held_below(connection, account_id, roots)
    room = measure_room(connection, account_id, known)
    for rule, demand in zip(to_come, coming, strict=True):
        room.force(replace(demand, held=held.get(rule["did_id"], {})))
    for target, one in zip(targets, asked, strict=True):
        demand = replace(one, held=held.get(target["id"], {}))
        if not room.take(demand):
            raise _no_room(account.name, target, demand, room, known)


def _fits_anyhow(room: Room, demands: Sequence[Demand]) -> bool:
    """Whether demands fit wherever their files go, even if nothing of them is held yet."""
    copies = max((one.copies for one in demands), default=1)
    if any(len(one.rse_ids) < one.copies for one in demands):
        return False
    return room.takes_anywhere(sum(one.bytes for one in demands), copies)


def measure_room(
    connection: Connection, account_id: int, known: Mapping[str, Rse], *, roughly: bool = False
) -> Room:
    """Measure what is left of an account's limits.

    Parameters
    ----------
    roughly
        At least so much is left: what several rules hold is counted several times, which is quick.
    """
    if roughly:
        used = usage_store.locked_bytes(connection, account_id)
    else:
        used = {rse_id: one.bytes for rse_id, one in usage_store.usage_of(connection, account_id).items()}
    local = store.local_limits(connection, account_id)
    shared = store.global_limits(connection, account_id)
    index = index_of(known)
    return room_left(
        {known[name].id: limit for name, limit in local.items() if limit >= 0 and name in known},
        [
            (expression, frozenset(rse.id for rse in matching(known, index, expression)), limit)
            for expression, limit in shared.items()
            if limit >= 0
        ],
        used,
    )


def _no_room(
    account: str, target: RowMapping, demand: Demand, room: Room, known: Mapping[str, Rse]
) -> Conflict:
    names = {rse.id: name for name, rse in known.items()}
    left = [f"{names[one]} {max(int(room.left[one]), 0)}" for one in demand.rse_ids if one in room.left]
    left += [
        f"{one.expression} {max(int(one.left), 0)}"
        for one in room.shared
        if one.rse_ids & set(demand.rse_ids)
    ]
    shown = "; ".join(left[:10]) + (f"; and {len(left) - 10} more" if len(left) > 10 else "")
    return Conflict(
        f"account {account} has no room for {demand.copies} copies of {target['scope']}:{target['name']} "
        f"({demand.bytes} bytes); bytes left: {shown}; remove rules, ask for approval (--ask-approval), or have an "
        "administrator raise the limit (rucio account limit set)",
        rucio_class="InsufficientAccountLimit",
        code="insufficient_account_limit",
    )
