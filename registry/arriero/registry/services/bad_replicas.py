"""What people and programs say against replicas: bad, suspicious, not to be had for a while.

A declaration counts at once: a BAD replica is no source any more, the locks on it are STUCK and its rules are looked
at, all in the transaction that writes the declaration. What is to be done about it is the evaluation's to decide. A
replica that cannot be declared is named in the answer, as Rucio does, and does not hold up the others.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Busy, InvalidInput
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.pfn_lookup import Prefixes, candidates
from arriero.registry.services.rses import require_rse
from arriero.registry.states import BadReplicaState, ReplicaState
from arriero.registry.store import bad_replicas as store
from arriero.registry.store import dids as did_store
from arriero.registry.store import events, losses
from arriero.registry.store import replica_sets as sets
from arriero.registry.store.arrivals import record_arrivals
from arriero.registry.store.evaluations import look_at_files
from arriero.registry.store.rses import load_rses

MAX_REASON_CHARACTERS = 2000
UNKNOWN = "unknown"
"""Key of the answer for PFNs that are below no RSE's prefix."""

ALREADY = "Already declared"
NO_REPLICA = "Unknown replica"
NO_RSE = "No RSE has this prefix"
"""Rucio's words for why one was not declared; tools compare the first two."""

_TRIES = 20
_DECLARED = {
    BadReplicaState.BAD: ReplicaState.BAD,
    BadReplicaState.TEMPORARY_UNAVAILABLE: ReplicaState.TEMPORARY_UNAVAILABLE,
}
"""What becomes of the replica; one that is merely suspicious stays what it is."""

T = TypeVar("T")

Failures = dict[str, list[str]]
"""By RSE, what could not be declared, each with why."""


@dataclass(frozen=True, slots=True)
class Named:
    """A replica by its RSE, by name or id, and its file."""

    scope: str
    name: str
    rse: str | None = None
    rse_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A replica that was not declared."""

    shown: str
    """PFN, or ``scope:name``."""
    rse: str
    scope: str = ""
    name: str = ""

    @classmethod
    def of(cls, one: "str | Named", rse: str) -> "Refused":
        """Make one of what was sent."""
        if isinstance(one, str):
            return cls(one, rse)
        return cls(f"{one.scope}:{one.name}", rse, one.scope, one.name)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is said.

    Raises
    ------
    InvalidInput
        It cannot be said of a replica.
    """

    state: BadReplicaState
    reason: str | None = None
    expires_at: datetime | None = None
    """When a replica is to be had again; with TEMPORARY_UNAVAILABLE only."""
    force: bool = False
    """Say it again of what is BAD already."""

    def __post_init__(self) -> None:
        if self.state not in (*_DECLARED, BadReplicaState.SUSPICIOUS):
            raise InvalidInput(
                f"a replica is declared BAD, SUSPICIOUS or TEMPORARY_UNAVAILABLE, not {self.state}"
            )
        if self.expires_at is not None and self.state is not BadReplicaState.TEMPORARY_UNAVAILABLE:
            raise InvalidInput("expires_at goes with TEMPORARY_UNAVAILABLE only")

    @property
    def sentence(self) -> str:
        """Why, as replicas and locks carry it."""
        what = f"replica declared {self.state.lower().replace('_', ' ')}"
        return f"{what}: {self.reason}"[:MAX_REASON_CHARACTERS] if self.reason else what

    def fault(self, state: ReplicaState) -> str | None:
        """Why it cannot be said of a replica in a state; None when it can."""
        if state in (ReplicaState.COPYING, ReplicaState.BEING_DELETED):
            return f"is {state}"
        if state is ReplicaState.BAD and not (self.force and self.state is BadReplicaState.BAD):
            return ALREADY
        if self.state is BadReplicaState.TEMPORARY_UNAVAILABLE and state is ReplicaState.UNAVAILABLE:
            return f"is {state}"
        return None


@dataclass(frozen=True, slots=True)
class Sayer:
    """Who says something of replicas: an account, or Arriero itself."""

    account: str | None = None
    account_id: int | None = None


class RulesCame(Exception):
    """A rule has come to one of the replicas before they were held."""


def retried(context: Context, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in a transaction, again when a rule came to its replicas.

    Raises
    ------
    Busy
        Rules kept coming.
    """
    for _ in range(_TRIES):
        try:
            return context.database.run(work)
        except RulesCame:
            continue
    raise Busy("rules keep coming to these replicas: try again")


def declare(
    context: Context, actor: Actor, replicas: Sequence[str | Named], declaration: Declaration
) -> Failures:
    """Declare replicas, by PFN or by RSE and name.

    Returns
    -------
    dict
        By RSE, those that were not declared, each with why; empty when all were.

    Raises
    ------
    NotFound
        An RSE that is named is not there.
    Denied
        One of them is not this account's to declare; then none is.
    """
    most = context.settings.max_bulk_items
    if len(replicas) > most:
        raise InvalidInput(f"at most {most} replicas in one call")

    def work(connection: Connection) -> Failures:
        failures: Failures = defaultdict(list)
        for one, fault in declare_within(connection, actor, replicas, declaration):
            failures[one.rse].append(f"{one.shown} {fault}")
        return dict(failures)

    failures = retried(context, work)
    context.doorbell.ring(Bell.EVALUATIONS)
    return failures


def declare_within(
    connection: Connection, actor: Actor, replicas: Sequence[str | Named], declaration: Declaration
) -> list[tuple[Refused, str]]:
    """Do what `declare` does within a transaction that has begun, by `retried`; ring the bell after the commit.

    Returns
    -------
    list
        Those that were not declared, with why.

    Raises
    ------
    RulesCame
        Begin anew.
    """
    looked_at = _stage(connection, actor, replicas)
    found = sets.found_replicas(connection)
    known = {row["place"] for row in found}
    refused = [
        (Refused.of(one, rse), NO_RSE if rse == UNKNOWN else NO_REPLICA)
        for place, (one, rse) in enumerate(zip(replicas, looked_at, strict=True))
        if place not in known
    ]
    count, faults = _declare_found(connection, actor, found, declaration)
    if replicas:
        detail = {"state": declaration.state, "count": count, "reason": declaration.reason}
        target = Refused.of(replicas[0], looked_at[0]).shown
        audit.record(connection, actor, Action.REPLICA_DECLARE, target, **detail)
    return refused + [(Refused.of(replicas[place], rse), fault) for place, rse, fault in faults]


def _stage(connection: Connection, actor: Actor, replicas: Sequence[str | Named]) -> list[str]:
    """Have candidates in the database; give the RSE of each replica of the call."""
    pfns = {place: one for place, one in enumerate(replicas) if isinstance(one, str)}
    prefixes = Prefixes.load(connection) if pfns else None
    places = [
        [] if prefixes is None or place not in pfns else prefixes.places(pfns[place])
        for place in range(len(replicas))
    ]
    rows = candidates(connection, places)
    looked_at = [found[0].rse.name if found else UNKNOWN for found in places]
    named = [(place, one) for place, one in enumerate(replicas) if isinstance(one, Named)]
    if named:
        rses = load_rses(connection)
        ids = {str(rse.id): name for name, rse in rses.items()}
        scopes = did_store.scopes_by_name(connection, {one.scope for _, one in named})
        for place, one in named:
            rse = ids.get(one.rse_id or "", "") if one.rse is None else one.rse
            if rse not in rses:
                require_rse(connection, one.rse or one.rse_id or "")
            looked_at[place] = rse
            if one.scope in scopes:
                target = Target(f"{one.scope}@{rse}", owner=scopes[one.scope].owner, rse=rse)
                authorize(actor, Action.REPLICA_DECLARE, target)
                rows.append((place, rses[rse].id, scopes[one.scope].id, one.name, None))
    sets.stage_candidates(connection, rows)
    return looked_at


def _declare_found(
    connection: Connection, actor: Actor, found: Sequence[RowMapping], declaration: Declaration
) -> tuple[int, list[tuple[int, str, str]]]:
    """Declare replicas, each once; give how many, and the place in the call, RSE and fault of the others."""
    for (scope, owner, rse), name in _first_of_each(found).items():
        authorize(actor, Action.REPLICA_DECLARE, Target(f"{scope}:{name}@{rse}", owner=owner, rse=rse))
    places: dict[tuple[int, int], int] = {}
    for row in found:
        places.setdefault((row["file_id"], row["rse_id"]), row["place"])
    count, faults = declare_keys(connection, places, declaration, Sayer(actor.account, actor.account_id))
    return count, [(places[row["file_id"], row["rse_id"]], row["rse"], fault) for row, fault in faults]


def declare_keys(
    connection: Connection,
    keys: Iterable[tuple[int, int]],
    declaration: Declaration,
    said_by: Sayer,
    *,
    still: Callable[[Connection], Sequence[int]] | None = None,
) -> tuple[int, list[tuple[RowMapping, str]]]:
    """Declare replicas, each named once by file and RSE, whoever says it has the right to.

    Parameters
    ----------
    connection
        Within a transaction that has begun, by `retried`; ring the bell after the commit.
    still
        Asked when the replicas are held: the places (in ``keys``, from 0) of those that are not to be declared after all.

    Returns
    -------
    tuple
        How many were declared, and those that could not be, with why.

    Raises
    ------
    RulesCame
        Begin anew.
    """
    # numbered anew: a PFN below a prefix that RSEs share is several replicas
    sets.keep_only(connection, ((number, *key) for number, key in enumerate(keys)))
    is_bad = declaration.state is BadReplicaState.BAD
    held = sets.hold_rules(connection) if is_bad else frozenset()
    sets.hold_replicas(connection)
    if is_bad and sets.rules_with_locks(connection) - held:
        raise RulesCame
    if still is not None:
        sets.forget(connection, still(connection))
    rows = sets.found_replicas(connection)
    faults = [(row, fault) for row in rows if (fault := declaration.fault(row["state"]))]
    sets.forget(connection, [row["place"] for row, _ in faults])
    refused = {row["place"] for row, _ in faults}
    chosen = [row for row in rows if row["place"] not in refused]
    if chosen:
        _take_effect(connection, said_by, declaration)
        _tell(connection, declaration.state, chosen, declaration.sentence)
    return len(chosen), faults


def _first_of_each(found: Iterable[RowMapping]) -> dict[tuple[str, str, str], str]:
    first: dict[tuple[str, str, str], str] = {}
    for row in found:
        first.setdefault((row["scope"], row["owner"], row["rse"]), row["name"])
    return first


def _take_effect(connection: Connection, said_by: Sayer, declaration: Declaration) -> None:
    store.declare(
        connection,
        declaration.state,
        reason=declaration.reason,
        account_id=said_by.account_id,
        expires_at=declaration.expires_at,
    )
    if declaration.state is BadReplicaState.BAD:
        store.stop_locks(connection, declaration.sentence, account=said_by.account)
    if declaration.state in _DECLARED:
        code = store.BAD_REPLICA if declaration.state is BadReplicaState.BAD else declaration.state.lower()
        store.set_state(connection, _DECLARED[declaration.state], code=code, reason=declaration.sentence)
    if declaration.state is BadReplicaState.BAD:
        rule_ids = sets.rules_with_locks(connection)
        if losses.note(connection, sets.their_files()):
            losses.name_on_locks(connection, rule_ids, sets.their_files())
        look_at_files(connection, sets.locks_on_them())


def _tell(
    connection: Connection, state: BadReplicaState, rows: Iterable[RowMapping], reason: str | None
) -> None:
    keyed = [
        (
            f"{row['rse']}:{row['scope']}:{row['name']}",
            {
                "scope": row["scope"],
                "name": row["name"],
                "rse": row["rse"],
                "bytes": row["bytes"],
                "reason": reason,
            },
        )
        for row in rows
    ]
    events.append(connection, f"replica-{state.lower().replace('_', '-')}", keyed)


def end_unavailability(context: Context, *, limit: int = 1000) -> int:
    """Have replicas AVAILABLE again whose time of being unavailable is over; for a sweep.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many were looked at.
    """

    def work(connection: Connection) -> int:
        over = connection.execute(store.outlived(limit)).all()
        if not over:
            return 0
        sets.keep_only(connection, ((place, *key) for place, key in enumerate(over)))
        # rules before replicas (DESIGN section 11)
        connection.execute(store.waiting_rules()).all()
        sets.hold_replicas(connection)
        store.end_outlived(connection)
        store.close(connection, BadReplicaState.RECOVERED, (BadReplicaState.TEMPORARY_UNAVAILABLE,))
        rows = [row for row in sets.found_replicas(connection) if row["state"] is ReplicaState.AVAILABLE]
        record_arrivals(connection, store.available_ones(), anew=True)
        look_at_files(connection, store.stuck_locks())
        _tell(connection, BadReplicaState.RECOVERED, rows, None)
        return len(over)

    ended = context.database.run(work)
    if ended:
        context.doorbell.ring(Bell.EVALUATIONS)
    return ended
