"""Lost files: told of once, found again when a good copy appears, and given up by an operator who says so.

Nothing is deleted here. A file is lost when every copy that the catalogue knows of is bad; its locks stay STUCK and no
retry looks at them (DESIGN section 5, "Lost", docs/adr/0020).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select

from arriero.registry.dialect import id_rows
from arriero.registry.errors import Busy, Conflict, InvalidInput
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import contents
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.contents import lock_around
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_dids, require_scopes
from arriero.registry.services.rule_removal import end_rule
from arriero.registry.states import DidType
from arriero.registry.store import attachments as attachment_store
from arriero.registry.store import erasure, events
from arriero.registry.store import losses as store
from arriero.registry.store.evaluations import look_at_contents, look_at_files
from arriero.registry.store.streaming import streamed

MAX_REASON_CHARACTERS = 2000

_RECENT_S = 86400.0
"""Declarations younger than this may be of two transactions that did not see each other, seconds; no sweep is down for longer."""


def sweep_losses(context: Context, *, limit: int = 1000) -> int:
    """Find files that are lost, or found again; for a sweep.

    Parameters
    ----------
    limit
        At most so many of each.

    Returns
    -------
    int
        How many changed.
    """

    def lose(connection: Connection) -> int:
        return len(store.note(connection, store.lately_declared(_RECENT_S, limit)))

    def name(connection: Connection) -> None:
        held = store.hold_rules_to_name(connection, limit=limit)
        store.name_on_locks(connection, held, store.all_files())

    changed = context.database.run(lose)
    context.database.run(name)
    found = context.database.run(lambda connection: _find(connection, limit))
    if found:
        context.doorbell.ring(Bell.EVALUATIONS)
    return changed + found


def _find(connection: Connection, limit: int) -> int:
    found = store.found_again(connection, limit=limit)
    if not found:
        return 0
    store.hold_rules_stuck_on(connection, found)
    keyed = {
        f"{row['scope']}:{row['name']}": {"scope": row["scope"], "name": row["name"]}
        for row in store.described(connection, found)
    }
    store.forget(connection, found)
    events.append(connection, "FOUND", list(keyed.items()))
    look_at_files(connection, store.stuck_on(connection, found))
    return len(found)


def accept_losses(
    context: Context, actor: Actor, dids: Sequence[tuple[str, str]], *, reason: str | None = None
) -> None:
    """Say that lost files are not to be waited for any more: all of them, or none.

    They are detached from their datasets, monotonic and closed ones too, and rules on the files themselves end; so rules
    ask for them no more. The files stay known as lost, and their metadata stays. A copy that is found later is registered as
    any other, and the file attached again by whoever wants it.

    Raises
    ------
    NotFound
        A DID is not there.
    Conflict
        One is not a file that is lost, or a locked rule is on it.
    Busy
        The datasets that hold them keep changing.
    """
    wanted = list(dict.fromkeys(dids))
    if len(wanted) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} files in one call")
    if reason is not None and len(reason) > MAX_REASON_CHARACTERS:
        raise InvalidInput(f"a reason has at most {MAX_REASON_CHARACTERS} characters")

    def work(connection: Connection) -> None:
        scopes = require_scopes(connection, (scope for scope, _ in wanted))
        for scope in scopes.values():
            authorize(actor, Action.DID_ACCEPT_LOSS, Target(scope.name, owner=scope.owner))
        rows = require_dids(connection, wanted)
        ids = {row["id"]: key for key, row in rows.items() if row["type"] is DidType.FILE}
        parents = store.parents_of(connection, list(ids))
        lock_around(connection, parents)
        if store.parents_of(connection, list(ids)) != parents:
            raise Busy("the datasets of these files keep changing: try again")
        open_ones = store.open_among(connection, list(ids))
        for key, row in rows.items():
            if row["id"] not in open_ones:
                raise _not_lost(*key)
        _let_go(connection, actor, list(ids), parents)
        store.accept(connection, list(ids), account_id=actor.account_id, reason=reason)
        payloads = [
            (f"{scope}:{name}", {"scope": scope, "name": name, "reason": reason}) for scope, name in wanted
        ]
        events.append(connection, "loss-accepted", payloads)
        first = f"{wanted[0][0]}:{wanted[0][1]}" if wanted else ""
        audit.record(
            connection,
            actor,
            Action.DID_ACCEPT_LOSS,
            first,
            count=len(wanted),
            datasets=len(parents),
            reason=reason,
        )

    context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)


def _let_go(connection: Connection, actor: Actor, file_ids: Sequence[int], parents: Sequence[int]) -> None:
    for rule in erasure.rules_on_files(connection, file_ids):
        if rule["locked"]:
            raise Conflict(
                f"rule {rule['uuid'].hex} on {rule['scope']}:{rule['name'][:200]} is locked: unlock it first",
                rucio_class="UnsupportedOperation",
            )
        end_rule(
            connection,
            rule,
            purge=rule["purge_replicas"],
            account=actor.account,
            reason="the loss of its file was accepted",
        )
    chosen = contents.c.child_id.in_(id_rows(connection, file_ids))
    # before they go: it reads what is attached
    look_at_contents(connection, parents, select(contents.c.parent_id, contents.c.child_id).where(chosen))
    attachment_store.detach_where(connection, chosen)


def _not_lost(scope: str, name: str) -> Conflict:
    return Conflict(
        f"{scope}:{name[:200]} is no lost file whose loss could be accepted: see `arriero did lost`",
        rucio_class="UnsupportedOperation",
        code="not_lost",
    )


def list_losses(
    context: Context, *, scope: str | None = None, accepted: bool = False
) -> Iterator[dict[str, Any]]:
    """Lost files, the oldest loss first.

    Parameters
    ----------
    scope
        Only of this one.
    accepted
        Also those whose loss was accepted.
    """
    with context.database.snapshot() as connection:
        if scope is not None:
            require_scopes(connection, [scope])
        with streamed(connection, store.losses_query(scope=scope, accepted=accepted)) as rows:
            for row in rows:
                yield dict(row)
