"""The queue of deletions: replicas are taken by sets, each with the proof that its file has another copy (DESIGN 4.7, 11).

A claim holds the RSE's row, then the files, then their replicas; files and replicas that others hold are passed over, so
that it waits for nobody. What stands against a deletion is asked again while they are held.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    String,
    and_,
    cast,
    delete,
    insert,
    literal,
    or_,
    select,
    update,
)

from arriero.registry.dialect import among, id_rows, interpret
from arriero.registry.schema.base import AT_THIS_MOMENT, after, now
from arriero.registry.schema.tables import (
    arrivals,
    deletions,
    dids,
    replicas,
    rse_deletions,
    scopes,
)
from arriero.registry.states import ArrivalState, DeletionPass, ReplicaState
from arriero.registry.store import deletion_guards as guards
from arriero.registry.store.deletion_guards import Place, place_of
from arriero.registry.store.deletion_terms import Terms, hold_rse, read_terms
from arriero.registry.store.replica_removal import in_a_butler
from arriero.scheduler.deletion_holds import (
    CHOSEN,
    MAY_GO,
    choose,
    held_at,
    hold,
    proof,
    proof_verified_at,
    reap_chosen,
)
from arriero.scheduler.deletion_window import begin_pass, come_back_to, look_on, note_pass

ARRIVAL_WAIT_S = 60.0
"""When an arrival is looked at again whose replica is being deleted, seconds."""


@dataclass(frozen=True, slots=True)
class ClaimedDeletion:
    """A deletion that this worker holds until its lease runs out."""

    id: int
    fence: int
    attempt: int
    file_id: int
    scope: str
    name: str
    path: str | None
    """Where it does not follow from the name."""
    bytes: int
    adler32: str | None
    may_go: bool
    """False: the copy that proved it may go is not there any more; see what is left, and remove nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What was taken, and on what terms."""

    terms: Terms
    deletions: Sequence[ClaimedDeletion] = ()
    passed_over: int = 0
    """Replicas that might go and that others hold at this moment, or did."""


def claim_deletions(
    connection: Connection, rse_id: int, owner: str, *, limit: int, most: int, lease_s: float
) -> Claim | None:
    """Take deletions at an RSE: those that have failed and are due, then what goes at once, then what is needed.

    Parameters
    ----------
    owner
        Who takes them; one name for each worker.
    limit
        How many at most.
    most
        How many may wait there after failures; while there are more, nothing new is taken.
    lease_s
        How long they are held without a sign of life, seconds.

    Returns
    -------
    Claim or None
        None: there is no such RSE. Two workers never get the same one, and together no more than is needed.
    """
    interpret(connection)
    hold_rse(connection, rse_id)
    terms = read_terms(connection, rse_id)
    if terms is None:
        return None
    if not terms.is_open or terms.pace_wait_s > 0:
        return Claim(terms)
    claiming = _Claiming(connection, place_of(connection, rse_id), owner, lease_s)
    taken, passed_over = claiming.take(terms, 1 if terms.failures else terms.paced(limit), most)
    if taken and terms.rate is not None:
        connection.execute(
            update(rse_deletions)
            .where(rse_deletions.c.rse_id == rse_id)
            .values(paced_until=terms.paced_after(len(taken)))
        )
    return Claim(terms, taken, passed_over)


@dataclass(frozen=True, slots=True)
class _Claiming:
    """One claim, while the RSE's row is held."""

    connection: Connection
    place: Place
    owner: str
    lease_s: float

    def take(self, terms: Terms, limit: int, most: int) -> tuple[list[ClaimedDeletion], int]:
        taken = self._take_again(limit)
        passed_over = 0
        room = min(limit - len(taken), max(most - terms.waiting, 0))
        need = _less(terms.need, taken)
        for kind in DeletionPass:
            if room <= 0 or (kind is DeletionPass.WHEN_NEEDED and need == 0):
                continue
            new, found = self._take_new(kind, room, need if kind is DeletionPass.WHEN_NEEDED else None)
            passed_over += found - len(new)
            need = _less(need, new)
            room -= len(new)
            taken += new
        return taken, passed_over

    def _take_again(self, limit: int) -> list[ClaimedDeletion]:
        """Take deletions whose time has come again. The proof of each is looked for anew."""
        connection, place = self.connection, self.place
        due = (
            select(deletions.c.id, deletions.c.file_id)
            .where(
                deletions.c.rse_id == place.rse_id,
                deletions.c.lease_owner.is_(None),
                deletions.c.gone_at.is_(None),
                deletions.c.not_before <= AT_THIS_MOMENT,
            )
            .order_by(deletions.c.not_before, deletions.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        files = sorted(row.file_id for row in connection.execute(due))
        held = hold(connection, files, (*guards.MAY_GO, ReplicaState.BEING_DELETED)) if files else []
        if not held:
            return []
        was_bad = deletions.c.was == ReplicaState.BAD
        needs_no_proof = or_(guards.expired(), and_(was_bad, guards.given_up(deletions.c.file_id)))
        same = and_(deletions.c.file_id == replicas.c.file_id, deletions.c.rse_id == replicas.c.rse_id)
        rows = (
            select(
                replicas.c.file_id,
                deletions.c.bytes,
                cast(deletions.c.cause, String),
                cast(deletions.c.was, String),
                proof(place),
                needs_no_proof,
            )
            .join(deletions, same)
            .join(dids, dids.c.id == replicas.c.file_id)
            .where(*held_at(connection, place, held), replicas.c.state == ReplicaState.BEING_DELETED)
        )
        choose(connection, rows)
        connection.execute(
            update(deletions)
            .where(deletions.c.rse_id == place.rse_id, deletions.c.file_id == reap_chosen.c.file_id)
            .values(
                attempt=deletions.c.attempt + 1,
                fence=deletions.c.fence + 1,
                lease_owner=self.owner,
                lease_until=after(literal(self.lease_s)),
                started_at=now(),
                proof_rse_id=reap_chosen.c.proof_rse_id,
                proof_at=proof_verified_at(),
            )
        )
        return self._taken()

    def _take_new(
        self, kind: DeletionPass, limit: int, need: int | None
    ) -> tuple[list[ClaimedDeletion], int]:
        """Take replicas that may go, as far as they are asked for; give how many were found, too."""
        connection, place = self.connection, self.place
        begun = begin_pass(connection, place.rse_id, kind)
        if begun is None:
            return [], 0
        found, at = look_on(connection, place, begun, limit)
        if need is not None:
            wanted = self._first_bytes(found, need)
            if len(wanted) < len(found):
                found, at = wanted, come_back_to(connection, place, at, wanted)
        note_pass(connection, place.rse_id, at)
        held = hold(connection, sorted(found), guards.MAY_GO) if found else []
        if not held:
            return [], len(found)
        columns = (replicas.c.file_id, replicas.c.bytes, guards.cause(), cast(replicas.c.state, String))
        choose(
            connection,
            select(*columns, proof(place), guards.needs_no_proof())
            .join(dids, dids.c.id == replicas.c.file_id)
            .where(
                *held_at(connection, place, held),
                or_(guards.buried(), guards.is_bad()),
                guards.hindrance(place).is_(None),
            ),
        )
        connection.execute(delete(reap_chosen).where(~MAY_GO))
        self._pass_over_ingested()
        self._insert()
        return self._taken(), len(found)

    def _first_bytes(self, file_ids: Sequence[int], need: int) -> list[int]:
        """Those of some files, in their order, whose replicas add up to what is needed."""
        rows = self.connection.execute(
            select(replicas.c.file_id, replicas.c.bytes).where(
                replicas.c.rse_id == self.place.rse_id,
                among(self.connection, replicas.c.file_id, id_rows(self.connection, sorted(file_ids))),
            )
        )
        sizes = {row.file_id: row.bytes for row in rows}
        wanted: list[int] = []
        for file_id in file_ids:
            if need <= 0:
                break
            wanted.append(file_id)
            need -= sizes.get(file_id, 0)
        return wanted

    def _pass_over_ingested(self) -> None:
        """Have agents wait with what is chosen, and leave what one of them has just taken.

        The rows of the arrivals change here: who reads them at this moment does not find them due any more.
        """
        at = arrivals.c.rse_id == self.place.rse_id
        self.connection.execute(
            update(arrivals)
            .where(
                at,
                among(self.connection, arrivals.c.file_id, CHOSEN),
                arrivals.c.state.in_((ArrivalState.PENDING, ArrivalState.PARKED)),
            )
            .values(
                not_before=after(literal(ARRIVAL_WAIT_S)),
                code="replica_not_available",
                reason="the replica is being deleted",
            )
        )
        held = select(replicas.c.file_id).where(self._chosen(), in_a_butler())
        self.connection.execute(delete(reap_chosen).where(reap_chosen.c.file_id.in_(held)))

    def _chosen(self) -> Any:
        return and_(
            replicas.c.rse_id == self.place.rse_id, among(self.connection, replicas.c.file_id, CHOSEN)
        )

    def _insert(self) -> None:
        """Have the chosen replicas BEING_DELETED, each with its deletion."""
        self.connection.execute(
            update(replicas).where(self._chosen()).values(state=ReplicaState.BEING_DELETED, updated_at=now())
        )
        values: dict[str, Any] = {
            "file_id": reap_chosen.c.file_id,
            "rse_id": literal(self.place.rse_id),
            "bytes": reap_chosen.c.bytes,
            "cause": reap_chosen.c.cause,
            "was": reap_chosen.c.was,
            "proof_rse_id": reap_chosen.c.proof_rse_id,
            "proof_at": proof_verified_at(),
            "attempt": literal(1),
            "not_before": now(),
            "fence": literal(1),
            "lease_owner": literal(self.owner),
            "lease_until": after(literal(self.lease_s)),
            "created_at": now(),
            "started_at": now(),
        }
        rows = select(*values.values()).order_by(reap_chosen.c.file_id)
        self.connection.execute(insert(deletions).from_select(list(values), rows, include_defaults=False))

    def _taken(self) -> list[ClaimedDeletion]:
        same = and_(replicas.c.file_id == deletions.c.file_id, replicas.c.rse_id == deletions.c.rse_id)
        rows = self.connection.execute(
            select(
                deletions.c.id,
                deletions.c.fence,
                deletions.c.attempt,
                deletions.c.file_id,
                scopes.c.name.label("scope"),
                dids.c.name,
                replicas.c.path,
                deletions.c.bytes,
                dids.c.adler32,
                MAY_GO.label("may_go"),
            )
            .select_from(reap_chosen)
            .join(deletions, deletions.c.file_id == reap_chosen.c.file_id)
            .join(replicas, same)
            .join(dids, dids.c.id == deletions.c.file_id)
            .join(scopes, scopes.c.id == dids.c.scope_id)
            .where(deletions.c.rse_id == self.place.rse_id)
            .order_by(deletions.c.id)
        )
        return [ClaimedDeletion(*row) for row in rows.all()]


def _less(need: int | None, taken: Collection[ClaimedDeletion]) -> int | None:
    """What is still needed when some deletions are done; None: all that may go."""
    return None if need is None else max(0, need - sum(one.bytes for one in taken))
