"""Replicas that a call names, as a set in the database: found, held, and asked for what stands against a change.

One temporary table carries them; every statement here works on all of them at once.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    RowMapping,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    select,
    update,
)

from arriero.registry.pages import pages_of
from arriero.registry.schema.tables import accounts, dids, locks, replicas, rses, rules, scopes
from arriero.registry.store.staging import stage

staged_replicas = Table(
    "staged_replicas",
    MetaData(),
    # where in the call it stood: several candidates of one PFN share it
    Column("place", Integer),
    Column("rse_id", Integer),
    Column("scope_id", Integer),
    Column("name", String(1000)),
    # instead of scope and name, at an RSE whose paths do not tell them
    Column("path", Text),
    Column("file_id", BigInteger),
    prefixes=["TEMPORARY"],
)

Candidate = tuple[int, int, int | None, str | None, str | None]
"""Place in the call, RSE, and either scope and name or the path."""

_KEY = and_(replicas.c.file_id == staged_replicas.c.file_id, replicas.c.rse_id == staged_replicas.c.rse_id)
_LOCK = and_(locks.c.file_id == staged_replicas.c.file_id, locks.c.rse_id == staged_replicas.c.rse_id)


def stage_candidates(connection: Connection, candidates: Iterable[Candidate]) -> None:
    """Have what a call names in the table, with the ids of the files that the catalogue knows."""
    stage(connection, staged_replicas, ["place", "rse_id", "scope_id", "name", "path"], candidates)
    connection.execute(
        update(staged_replicas)
        .values(file_id=dids.c.id)
        .where(dids.c.scope_id == staged_replicas.c.scope_id, dids.c.name == staged_replicas.c.name)
    )
    connection.execute(
        update(staged_replicas)
        .values(file_id=replicas.c.file_id)
        .where(replicas.c.rse_id == staged_replicas.c.rse_id, replicas.c.path == staged_replicas.c.path)
    )


def found_replicas(connection: Connection) -> Sequence[RowMapping]:
    """Replicas that the candidates name, in the order of the call.

    Returns
    -------
    rows
        ``place``, ``file_id``, ``rse_id``, ``rse``, ``scope``, ``owner`` (of the scope), ``name``, ``state``, ``bytes``.
    """
    query = (
        select(
            staged_replicas.c.place,
            replicas.c.file_id,
            replicas.c.rse_id,
            rses.c.name.label("rse"),
            scopes.c.name.label("scope"),
            accounts.c.name.label("owner"),
            dids.c.name,
            replicas.c.state,
            replicas.c.bytes,
        )
        .join(replicas, _KEY)
        .join(rses, rses.c.id == replicas.c.rse_id)
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == scopes.c.account_id)
        .order_by(staged_replicas.c.place, replicas.c.rse_id)
    )
    return connection.execute(query).mappings().all()


def keep_only(connection: Connection, chosen: Iterable[tuple[int, int, int]]) -> None:
    """Have these replicas in the table and nothing else: place, file and RSE of each, no two the same."""
    rows = sorted(chosen)
    stage(
        connection,
        staged_replicas,
        ["place", "rse_id", "file_id"],
        ((place, rse_id, file_id) for place, file_id, rse_id in rows),
    )


def forget(connection: Connection, places: Sequence[int]) -> None:
    """Take rows out of the table."""
    for chunk in pages_of(places, 500):
        connection.execute(delete(staged_replicas).where(staged_replicas.c.place.in_(chunk)))


def _locking_rules() -> Select[tuple[int]]:
    return select(locks.c.rule_id).join(staged_replicas, _LOCK)


def hold_rules(connection: Connection) -> frozenset[int]:
    """Hold the rules that have locks on the replicas, and give their ids; before the replicas (DESIGN section 11)."""
    query = (
        select(rules.c.id)
        .where(rules.c.id.in_(_locking_rules()))
        .order_by(rules.c.id)
        .with_for_update(of=rules, key_share=True)
    )
    return frozenset(connection.scalars(query))


def rules_with_locks(connection: Connection) -> frozenset[int]:
    """Ids of the rules that have locks on the replicas now."""
    return frozenset(connection.scalars(_locking_rules().distinct()))


def hold_files(connection: Connection) -> None:
    """Hold the files' rows: nobody else takes a replica of them away meanwhile."""
    query = (
        select(dids.c.id)
        .where(dids.c.id.in_(select(staged_replicas.c.file_id)))
        .order_by(dids.c.id)
        .with_for_update(of=dids, key_share=True)
    )
    connection.execute(select(func.count()).select_from(query.subquery())).all()


def hold_replicas(connection: Connection) -> None:
    """Hold the replicas' rows: from here on no lock can come to them."""
    query = (
        select(replicas.c.file_id)
        .join(staged_replicas, _KEY)
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    connection.execute(select(func.count()).select_from(query.subquery())).all()


def locks_on_them() -> Select[tuple[int, int]]:
    """Query for the locks on the replicas: the rule and the file."""
    return select(locks.c.rule_id, locks.c.file_id).join(staged_replicas, _LOCK)


def their_files() -> Select[tuple[int]]:
    """Query for the files of the replicas, each once."""
    return select(staged_replicas.c.file_id).distinct()
