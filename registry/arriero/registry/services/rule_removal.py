"""Taking rules away: as Rucio does, with an hour to think again, then for good.

Nothing is deleted on any storage here: replicas that no rule holds are marked, and what becomes of them is decided
where the other copies of the file are looked at.
"""

from collections.abc import Mapping

import structlog
from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Conflict
from arriero.registry.schema.base import after
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.store import audit as audit_store
from arriero.registry.store import rules as store
from arriero.registry.store.rule_history import append_end, append_history

log = structlog.get_logger(__name__)

GRACE_S = 3600
"""Between a rule's removal and the end of its locks, seconds; Rucio's figure."""


def remove_rule(
    context: Context, actor: Actor, rule_id: str, *, purge_replicas: bool | None = None, now: bool = False
) -> None:
    """Remove a rule.

    Parameters
    ----------
    purge_replicas
        Let go of the replicas that only this rule holds at once, not only when space is needed; None as the rule says.
    now
        Without the hour in which its lifetime can be changed back.

    Raises
    ------
    NotFound
        There is no such rule.
    Conflict
        It is locked.
    """
    uuid = parse_rule_id(rule_id)

    def work(connection: Connection) -> None:
        row = require_rule(connection, uuid, lock=True)
        authorize(actor, Action.RULE_REMOVE, Target(uuid.hex, owner=row["account"]))
        if row["locked"]:
            raise Conflict(
                f"rule {uuid.hex} is locked: unlock it first (rule update --locked False)",
                rucio_class="UnsupportedOperation",
            )
        if row["child_uuid"] is not None:
            raise Conflict(
                f"rule {uuid.hex} goes by itself when rule {row['child_uuid'].hex}, which replaces it, is OK; to "
                "remove it now, part them first (rule update --child-rule-id None)",
                rucio_class="UnsupportedOperation",
            )
        purge = row["purge_replicas"] if purge_replicas is None else purge_replicas
        detail: Mapping[str, object] = {"purge_replicas": purge, "now": now}
        audit.record(connection, actor, Action.RULE_REMOVE, uuid.hex, **detail)
        if now:
            end_rule(connection, row, purge=purge, account=actor.account, reason="removed")
            return
        store.update_rule(connection, row["id"], {"expires_at": after(GRACE_S), "purge_replicas": purge})
        append_history(
            connection,
            uuid,
            account=actor.account,
            from_state=row["state"],
            to_state=row["state"],
            code="removal",
            reason=f"to be removed in {GRACE_S} seconds",
        )

    context.database.run(work)


def remove_expired_rules(context: Context, *, limit: int = 100) -> int:
    """Take away rules whose lifetime is over, each in a transaction of its own; for a sweep.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many were taken away. One that cannot be is logged and passed over, and tried again by the next sweep.
    """
    faulty: set[int] = set()
    chosen: list[int] = []

    def work(connection: Connection) -> bool:
        row = store.one_expired(connection, skip=frozenset(faulty))
        if row is None:
            return False
        chosen[:] = [row["id"]]
        audit_store.append(
            connection,
            account=None,
            action=Action.RULE_REMOVE,
            target=row["uuid"].hex,
            allowed=True,
            detail={"reason": "expired", "owner": row["account"]},
        )
        end_rule(connection, row, purge=row["purge_replicas"], account=None, reason="its lifetime was over")
        return True

    removed = 0
    while removed + len(faulty) < limit:
        chosen.clear()
        try:
            if not context.database.run(work):
                break
            removed += 1
        except Exception:
            # the boundary between rules: one that cannot be ended must not keep the others
            if not chosen:
                raise
            log.exception("rule not removed", rule_id=chosen[0])
            faulty.update(chosen)
    return removed


def end_rule(
    connection: Connection, row: RowMapping, *, purge: bool, account: str | None, reason: str
) -> None:
    """Take a rule away within a transaction that has begun, in a number of statements that no file adds to.

    Parameters
    ----------
    row
        Of `arriero.registry.store.rules.rule_row`, locked.
    purge
        What only this rule held may go at once.
    account
        Who does it; None for a sweep.
    """
    rule_id = row["id"]
    store.lock_replicas_of(connection, rule_id)
    store.release_replicas(connection, rule_id, purge=purge)
    store.cancel_requests(connection, rule_id)
    append_end(connection, rule_id, account=account, reason=reason)
    store.delete_rule(connection, rule_id)
