"""What the account of a rule may still use, while its files are placed: over-quota RSEs drop out (DESIGN section 5).

Whether the rule fits at all was measured when it was added; by now others may have been placed. Two evaluations for the
same account measure one after the other. Accounts without limits cost one statement, and only those that are near
one are measured file by file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from arriero.registry.dialect import join_as_planned, join_as_written
from arriero.registry.services.account_limits import measure_room
from arriero.registry.services.limit_room import Demand, Room
from arriero.registry.store import account_limits as store
from arriero.registry.store.rses import load_rses
from arriero.scheduler import evaluation_groups as groups
from arriero.scheduler.core.choose import Candidate, Choice
from arriero.scheduler.evaluation_rule import RuleFacts


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of the limits of a rule's account."""

    account: str
    room: Room
    held: Mapping[int, Mapping[int, int]]
    """Bytes of each group that the account holds already, by group and RSE."""

    def barred(self, candidates: Sequence[Candidate], demand: Demand) -> list[Candidate]:
        """Mark the RSEs that cannot take a demand."""
        return [
            one
            if demand.missing(one.rse_id) <= (left := self.left(one.rse_id))
            else self._bar(one, demand, left)
            for one in candidates
        ]

    def left(self, rse_id: int) -> float:
        """Bytes that the account may still add at an RSE."""
        return max(self.room.left_at(rse_id), 0.0)

    def without_full(self, weights: Mapping[int, float]) -> dict[int, float]:
        """Leave out the RSEs where nothing may be added."""
        return {rse_id: weight for rse_id, weight in weights.items() if self.left(rse_id) > 0}

    def choose(
        self,
        group: tuple[int, int],
        candidates: Sequence[Candidate],
        copies: int,
        choose: Callable[[Sequence[Candidate]], Choice],
    ) -> Choice:
        """Have RSEs chosen for a group within the limits, and take what it needs.

        Parameters
        ----------
        group
            Its id and bytes.
        choose
            Chooses from candidates.
        """
        group_id, size = group
        demand = Demand(size, copies, [one.rse_id for one in candidates], self.held.get(group_id, {}))
        fit = self.barred(candidates, demand)
        choice = choose(fit)
        if not choice.placed or self.room.take(replace(demand, rse_ids=choice.rse_ids)):
            return choice
        # each alone has room, together they break a limit over several
        free = [one.rse_id for one in fit if one.barred is None]
        among = self.room.set_for(replace(demand, rse_ids=free))
        choice = choose([self._unless(one, among or ()) for one in fit])
        if choice.placed:
            self.room.take(replace(demand, rse_ids=choice.rse_ids))
        return choice

    def _unless(self, candidate: Candidate, among: Sequence[int]) -> Candidate:
        if candidate.rse_id in among or candidate.barred is not None:
            return candidate
        return replace(candidate, barred=f"with others is over a global limit of account {self.account}")

    def _bar(self, candidate: Candidate, demand: Demand, left: float) -> Candidate:
        needed = demand.missing(candidate.rse_id)
        said = (
            f"is over a limit of account {self.account}: {needed} bytes are needed and {int(left)} are left"
        )
        return replace(candidate, barred=said)


def quota_of(tx: Connection, rule: RuleFacts, coming: int) -> Quota | None:
    """Measure what is left to the account of a rule; None where no limit can matter.

    Parameters
    ----------
    coming
        Bytes that are to be placed, without their copies.
    """
    if rule.ignore_limits:
        return None
    account = store.hold_account(tx, rule.account_id)
    if account is None or not account.limited:
        return None
    store.lock_spending(tx, rule.account_id)
    # they begin with the account's rules, not with the files of a chunk
    join_as_planned(tx)
    quota = _measured(tx, rule, account.name, coming)
    join_as_written(tx)
    return quota


def _measured(tx: Connection, rule: RuleFacts, account: str, coming: int) -> Quota | None:
    known = load_rses(tx)
    if measure_room(tx, rule.account_id, known, roughly=True).takes_anywhere(coming, rule.scope.copies):
        return None
    room = measure_room(tx, rule.account_id, known)
    held = {} if rule.scope.by_file else groups.held_bytes(tx, rule.scope, rule.account_id)
    return Quota(account, room, held)
