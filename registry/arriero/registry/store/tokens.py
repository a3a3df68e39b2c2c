"""Standing tokens in the database: what they are bound to, and their end."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import accounts, butlers, rses, token_butlers, token_rses, tokens
from arriero.registry.states import TokenKind


def bind_token(
    connection: Connection, token_id: int, rse_ids: Iterable[int], butler_ids: Iterable[int]
) -> None:
    """Bind a token to RSEs and butlers."""
    if rse_rows := [{"token_id": token_id, "rse_id": rse_id} for rse_id in sorted(rse_ids)]:
        connection.execute(insert(token_rses), rse_rows)
    if butler_rows := [{"token_id": token_id, "butler_id": butler_id} for butler_id in sorted(butler_ids)]:
        connection.execute(insert(token_butlers), butler_rows)


def token_row(connection: Connection, token_id: int) -> RowMapping | None:
    """Account and label of a standing token, None when there is none."""
    query = (
        select(tokens.c.id, tokens.c.label, accounts.c.name.label("account"))
        .join(accounts, accounts.c.id == tokens.c.account_id)
        .where(tokens.c.id == token_id, tokens.c.kind == TokenKind.AGENT)
    )
    return connection.execute(query).mappings().one_or_none()


def token_rows(connection: Connection, account_id: int | None = None) -> list[dict[str, Any]]:
    """Standing tokens without their secrets, all or those of one account, in three statements."""
    query = (
        select(
            tokens.c.id,
            accounts.c.name.label("account"),
            tokens.c.label,
            tokens.c.created_at,
            tokens.c.expires_at,
            tokens.c.revoked_at,
        )
        .join(accounts, accounts.c.id == tokens.c.account_id)
        .where(tokens.c.kind == TokenKind.AGENT)
        .order_by(tokens.c.id)
    )
    if account_id is not None:
        query = query.where(tokens.c.account_id == account_id)
    found = {row["id"]: {**row, "rses": [], "butlers": []} for row in connection.execute(query).mappings()}
    shown = query.with_only_columns(tokens.c.id).order_by(None)
    bound_rses = (
        select(token_rses.c.token_id, rses.c.name)
        .join(rses, rses.c.id == token_rses.c.rse_id)
        .where(token_rses.c.token_id.in_(shown))
        .order_by(rses.c.name)
    )
    bound_butlers = (
        select(token_butlers.c.token_id, butlers.c.name)
        .join(butlers, butlers.c.id == token_butlers.c.butler_id)
        .where(token_butlers.c.token_id.in_(shown))
        .order_by(butlers.c.name)
    )
    for key, bound in (("rses", bound_rses), ("butlers", bound_butlers)):
        for row in connection.execute(bound):
            if row.token_id in found:
                found[row.token_id][key].append(row.name)
    return list(found.values())


def revoke_token(connection: Connection, token_id: int) -> None:
    """End a token now; one that is revoked already keeps its time."""
    connection.execute(
        update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None)).values(revoked_at=now())
    )
