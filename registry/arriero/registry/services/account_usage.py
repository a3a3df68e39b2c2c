"""What accounts use, against their limits and over time."""

from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy import Connection

from arriero.registry.dialect import write_alone
from arriero.registry.errors import InvalidInput
from arriero.registry.schema.tables import account_usage_history
from arriero.registry.services.account_limits import MAX_EXPRESSION_CHARACTERS
from arriero.registry.services.accounts import require_account
from arriero.registry.services.context import Context
from arriero.registry.services.rse_names import index_of, matching, require_rse_id
from arriero.registry.store import account_limits as limit_store
from arriero.registry.store import account_usage as store
from arriero.registry.store.account_usage import NOTHING, Usage
from arriero.registry.store.rses import load_rses
from arriero.rse.expression import parse

INFINITE = orjson.Fragment(b"1e999")
"""No limit: a number of JSON that its readers take for infinity, as Rucio's client expects it."""


def wire_limit(limit: int | None) -> Any:
    """Write a limit: bytes, or infinity where none is set."""
    return INFINITE if limit is None or limit < 0 else limit


def _row(used: Usage, limit: int | None) -> dict[str, Any]:
    unlimited = limit is None or limit < 0
    return {
        "bytes": used.bytes,
        "files": used.files,
        "bytes_limit": wire_limit(limit),
        "bytes_remaining": INFINITE if unlimited or limit is None else limit - used.bytes,
    }


def list_local_usage(context: Context, account: str, rse: str | None = None) -> Iterator[dict[str, Any]]:
    """List what an account uses at each RSE where it uses anything or has a limit.

    Parameters
    ----------
    rse
        Only there, whatever is used.

    Raises
    ------
    NotFound
        There is no such account or RSE.
    """
    with context.database.snapshot() as connection:
        account_id = require_account(connection, account)
        if rse is not None:
            require_rse_id(connection, rse)
        known = load_rses(connection, None if rse is None else [rse])
        limits = limit_store.local_limits(connection, account_id)
        used = store.usage_of(connection, account_id)
    for name, one in known.items():
        if rse is not None or name in limits or one.id in used:
            yield {"rse_id": str(one.id), "rse": name, **_row(used.get(one.id, NOTHING), limits.get(name))}


def list_global_usage(
    context: Context, account: str, expression: str | None = None
) -> Iterator[dict[str, Any]]:
    """List what an account uses at the RSEs of each of its global limits together.

    Parameters
    ----------
    expression
        Only at the RSEs of this one, whether there is a limit or not.

    Raises
    ------
    NotFound
        There is no such account.
    InvalidExpression
        It cannot be read, or names what there is not.
    """
    if expression is not None and not 0 < len(expression) <= MAX_EXPRESSION_CHARACTERS:
        raise InvalidInput(
            f"an RSE expression has 1 to {MAX_EXPRESSION_CHARACTERS} characters",
            rucio_class="InvalidRSEExpression",
        )
    with context.database.snapshot() as connection:
        account_id = require_account(connection, account)
        known = load_rses(connection)
        index = index_of(known)
        if expression is not None:
            parse(expression).evaluate(index)
        limits = limit_store.global_limits(connection, account_id)
        used = store.usage_of(connection, account_id)
    for one in limits if expression is None else [expression]:
        there = [used[rse.id] for rse in matching(known, index, one) if rse.id in used]
        total = Usage(sum(each.files for each in there), sum(each.bytes for each in there))
        yield {"rse_expression": one, **_row(total, limits.get(one))}


def usage_history(context: Context, account: str, rse: str) -> list[dict[str, Any]]:
    """List what an account has used at an RSE, as it was written down, the oldest first.

    Raises
    ------
    NotFound
        There is no such account or RSE.
    """
    with context.database.snapshot() as connection:
        account_id = require_account(connection, account)
        rse_id = require_rse_id(connection, rse)
        rows = connection.execute(store.history_rows(account_id, rse)).all()
    return [
        {
            "account": account,
            "rse_id": str(rse_id),
            "rse": rse,
            "files": row.files,
            "bytes": row.bytes,
            "updated_at": row.at,
        }
        for row in rows
    ]


def record_account_usage(context: Context) -> int:
    """Write what every account uses into the history, and forget what is too old; for a sweep.

    Returns
    -------
    int
        Rows written; none when it was done not long ago, so that it may be called by many and often.
    """
    settings = context.settings
    interval_s = settings.account_usage_interval_s
    with context.database.snapshot() as connection:
        if store.is_recent(connection, interval_s=interval_s):
            return 0

    def work(connection: Connection) -> int:
        # of two that come at once the second sees what the first has written
        write_alone(connection, account_usage_history)
        if store.is_recent(connection, interval_s=interval_s):
            return 0
        written = store.append_history(connection)
        if written:
            store.drop_history(connection, keep_days=settings.account_usage_keep_days)
        return written

    return context.database.run(work)
