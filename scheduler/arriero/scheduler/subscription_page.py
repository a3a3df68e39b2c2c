"""What a batch of the subscriptions' queue is about: the DIDs, the subscriptions, and which takes which.

A fixed number of statements, and one more for the sizes where any filter asks for them; the matching is the pure core's.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, exists, func, literal_column, null, or_, select

from arriero.registry.dialect import id_rows
from arriero.registry.errors import InvalidInput
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    accounts,
    did_meta,
    dids,
    scopes,
    subscription_items,
    subscription_matches,
    subscriptions,
)
from arriero.registry.services.context import Actor
from arriero.registry.services.subscription_specs import check_filter
from arriero.registry.store.contents import files_below_each
from arriero.registry.store.did_sets import numbered
from arriero.registry.store.subscription_items import LIVE
from arriero.scheduler.core.subscription_filters import DidFacts, DidFilter, UnusableSubscription
from arriero.scheduler.core.subscriptions import Template, read_templates
from arriero.scheduler.subscription_queue import Batch


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription that is applied, as it was read."""

    id: int
    uuid: UUID
    name: str
    account: str
    actor: Actor | None
    """On whose behalf rules are added; None when the account is suspended or deleted."""
    raw_templates: Sequence[Mapping[str, Any]]
    comments: str | None
    dry_run: bool
    updated_at: Any
    code: str | None
    filter: DidFilter | None = None
    templates: tuple[Template, ...] = ()
    fault: UnusableSubscription | None = None
    """Why it cannot be applied to anything."""

    @property
    def shown(self) -> str:
        """Its name for people."""
        return f"{self.account}/{self.name}"


@dataclass(slots=True)
class Page:
    """DIDs of a batch, and who takes them."""

    subscriptions: tuple[Subscription, ...]
    """By priority."""
    taken: dict[int, list[DidFacts]] = field(default_factory=dict)
    """For each subscription, the DIDs that it takes and was not applied to."""
    looked_to: int | None = None
    """In a range, the last DID that was looked at; None when that is all of it."""


def read_page(connection: Connection, batch: Batch) -> Page:
    """Read what a batch is about, and match it."""
    found = _subscriptions(connection, batch.subscription_id)
    usable = [one for one in found if one.filter is not None and one.fault is None]
    filters = [one.filter for one in usable if one.filter is not None]
    with_files = any(one.wants_files for one in filters)
    # for a subscription that cannot say what it takes, the page ends where it would have
    rows = _dids(
        connection,
        batch,
        with_files=with_files or not filters,
        with_metadata=any(one.needs_metadata for one in filters),
    )
    page = Page(found)
    if batch.span is not None and len(rows) == batch.limit and rows[-1].did_id < batch.span[1]:
        page.looked_to = rows[-1].did_id
    if not rows or not usable:
        return page
    before = set() if batch.again else _applied(connection, rows)
    fits = {one.id: [did for did in rows if _fits(one, did, before)] for one in usable}
    asking = [one.id for one in usable if one.filter is not None and one.filter.needs_sizes]
    sizes = _sizes(connection, sorted({did.did_id for one in asking for did in fits[one]}))
    for one in usable:
        chosen = [did for did in fits[one.id] if _has_size(one, sizes.get(did.did_id, (0, 0)))]
        if chosen:
            page.taken[one.id] = chosen
    return page


def _fits(subscription: Subscription, did: DidFacts, before: Collection[tuple[int, int]]) -> bool:
    """Whether a subscription takes a DID, whatever its size, and was not applied to it before."""
    if (did.did_id, subscription.id) in before or subscription.filter is None:
        return False
    return subscription.filter.refusal(did) is None


def _has_size(subscription: Subscription, size: tuple[int, int]) -> bool:
    return subscription.filter is not None and subscription.filter.size_refusal(*size) is None


def _subscriptions(connection: Connection, subscription_id: int | None) -> tuple[Subscription, ...]:
    query = (
        select(
            subscriptions,
            accounts.c.name.label("account"),
            accounts.c.role,
            or_(accounts.c.suspended_at.is_not(None), accounts.c.deleted_at.is_not(None)).label("is_barred"),
        )
        .join(accounts, accounts.c.id == subscriptions.c.account_id)
        .where(
            subscriptions.c.state.in_(LIVE),
            or_(subscriptions.c.expires_at.is_(None), subscriptions.c.expires_at > now()),
        )
        .order_by(subscriptions.c.priority, subscriptions.c.id)
    )
    if subscription_id is not None:
        query = query.where(subscriptions.c.id == subscription_id)
    return tuple(_read(row) for row in connection.execute(query))


def _read(row: Any) -> Subscription:
    did_filter: DidFilter | None = None
    templates: tuple[Template, ...] = ()
    fault: UnusableSubscription | None = None
    try:
        did_filter = DidFilter(row.filter)
        # what an earlier version let in may take for ever, and would hold up all others
        check_filter(row.filter)
        templates = read_templates(row.replication_rules, splits=did_filter.splits)
        if row.is_barred:
            fault = UnusableSubscription("account_barred", f"account {row.account} is suspended or deleted")
    except UnusableSubscription as error:
        fault = error
    except InvalidInput as error:
        fault = UnusableSubscription("invalid_filter", error.message)
    except (AttributeError, TypeError, ValueError) as error:
        # written by another version, or by hand
        fault = UnusableSubscription("unreadable", f"filter or templates cannot be read: {error}")
    return Subscription(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        account=row.account,
        actor=None if row.is_barred else Actor(row.account_id, row.account, row.role),
        raw_templates=row.replication_rules,
        comments=row.comments,
        dry_run=row.dry_run,
        updated_at=row.updated_at,
        code=row.code,
        filter=did_filter,
        templates=templates,
        fault=fault,
    )


def _dids(connection: Connection, batch: Batch, *, with_files: bool, with_metadata: bool) -> list[DidFacts]:
    meta = did_meta.c.meta if with_metadata else null().label("meta")
    query: Select[Any] = (
        select(
            dids.c.id,
            dids.c.name,
            dids.c.type,
            dids.c.is_open,
            dids.c.monotonic,
            dids.c.bytes,
            scopes.c.name.label("scope"),
            accounts.c.name.label("account"),
            meta,
        )
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == dids.c.account_id)
    )
    if with_metadata:
        query = query.outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
    if not with_files:
        # spelt out as the index `ix_dids_collection_ids` has it, so that both databases see that it serves
        query = query.where(dids.c.type.in_([literal_column("'DATASET'"), literal_column("'CONTAINER'")]))
    if batch.span is None:
        query = query.where(dids.c.id.in_(id_rows(connection, batch.did_ids)))
    else:
        query = query.where(dids.c.id.between(*batch.span)).order_by(dids.c.id).limit(batch.limit)
    return [
        DidFacts(
            did_id=row.id,
            scope=row.scope,
            name=row.name,
            type=row.type.value,
            account=row.account,
            is_open=row.is_open,
            monotonic=row.monotonic,
            bytes=row.bytes,
            meta=row.meta or {},
        )
        for row in connection.execute(query)
    ]


def _applied(connection: Connection, rows: Sequence[DidFacts]) -> set[tuple[int, int]]:
    matches = subscription_matches.c
    query = select(matches.did_id, matches.subscription_id).where(
        matches.did_id.in_(id_rows(connection, [row.did_id for row in rows]))
    )
    return {(row.did_id, row.subscription_id) for row in connection.execute(query)}


def _sizes(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Files and bytes that DIDs are or hold, at any depth."""
    if not ids:
        return {}
    each = files_below_each(numbered(connection, ids)).subquery("each")
    query = select(each.c.root, func.count(), func.coalesce(func.sum(each.c.bytes), 0)).group_by(each.c.root)
    return {ids[int(root)]: (int(files), int(size)) for root, files, size in connection.execute(query)}


def still_there(connection: Connection, ids: Collection[int]) -> dict[int, tuple[str, str]]:
    """Scope and name of those of some DIDs that have not been erased."""
    query = (
        select(dids.c.id, scopes.c.name.label("scope"), dids.c.name)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(dids.c.id.in_(id_rows(connection, sorted(ids))))
    )
    return {row.id: (row.scope, row.name) for row in connection.execute(query)}


def is_unchanged(connection: Connection, subscription: Subscription) -> bool:
    """Hold a subscription against changes; False when it was changed, or put to rest, since it was read."""
    query = (
        select(subscriptions.c.id)
        .where(
            subscriptions.c.id == subscription.id,
            subscriptions.c.state.in_(LIVE),
            subscriptions.c.updated_at == subscription.updated_at,
        )
        .with_for_update(read=True, key_share=True)
    )
    return connection.scalar(query) is not None


def has_waiting(connection: Connection, subscription_id: int) -> bool:
    """Whether anything that failed waits for a subscription."""
    items = subscription_items.c
    waits = exists().where(items.subscription_id == subscription_id, items.code.is_not(None))
    return bool(connection.scalar(select(waits)))
