"""What the registry needs from the layers above it, which it must not import."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection

from arriero.registry.moving import RequestOrder, RequestOutcome
from arriero.registry.states import RuleState


class Bell(StrEnum):
    """The queues that can be rung."""

    EVALUATIONS = "evaluations"
    REQUESTS = "requests"
    SUBSCRIPTIONS = "subscriptions"
    DELETIONS = "deletions"


class Doorbell(Protocol):
    """Tells whoever works on a queue that there is something to do.

    A hint only: a ring that is lost, doubled or late costs nothing but latency, because the queue is in the database
    and a sweep looks there (DESIGN 4.1). Ring after the commit, never within a transaction. Must not raise.
    """

    def ring(self, bell: Bell) -> None: ...


class SilentDoorbell:
    """Rings nothing: the sweeps find the work."""

    def ring(self, bell: Bell) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class PlannedRse:
    """One RSE of a rule's expression, and what the rule would make of it."""

    rse: str
    chosen: bool
    reason: str
    """Why it was chosen or dropped: of the first group of files for which it was."""
    files: int = 0
    bytes: int = 0
    """Of the locks there would be; those that follow are parts of them."""
    there_files: int = 0
    there_bytes: int = 0
    under_way_files: int = 0
    under_way_bytes: int = 0
    to_move_files: int = 0
    to_move_bytes: int = 0
    stuck_files: int = 0
    stuck_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RulePlan:
    """What an evaluation would do now."""

    state: RuleState
    reason: str | None
    """Why not everything can be done."""
    files: int
    """Files that would be placed, each once."""
    bytes: int
    rses: Sequence[PlannedRse]
    """Those that would have locks first, then those that were dropped."""


@dataclass(frozen=True, slots=True)
class JudgedRse:
    """One RSE of a rule's expression: whether more of the rule could be placed there now."""

    rse_id: int
    rse: str
    code: str | None
    """Why not; None when it could."""
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The RSEs that a rule can choose from now."""

    rses: Sequence[JudgedRse] = ()
    code: str | None = None
    fault: str | None = None
    """Why there are none: the expression cannot be read, or names nothing any more."""


class RuleEngine(Protocol):
    """Decides about rules, as the evaluations in the background do.

    All take a connection within a transaction that the caller has begun. `judge` only reads; the others take a rule
    that was inserted there.
    """

    def judge(self, connection: Connection, rule_id: int) -> Judgement:
        """Tell which RSEs the rule could place more on now, and why not on the others."""
        ...

    def plan(self, connection: Connection, rule_id: int) -> RulePlan:
        """Tell what evaluating the rule would do. Its transaction must be rolled back: it leaves traces."""
        ...

    def place_at_once(self, connection: Connection, rule_id: int, *, instead_of: int) -> str | None:
        """Place a rule on what is AVAILABLE already where another has OK locks.

        Parameters
        ----------
        instead_of
            Id of the other.

        Returns
        -------
        str or None
            Why that cannot be done; the transaction must be rolled back then. None: every lock is OK.
        """
        ...


@dataclass(frozen=True, slots=True)
class SiteMover:
    """The mover of a site that asks."""

    owner: str
    """Who holds what it claims."""
    rse_ids: frozenset[int]
    """RSEs that are left to it."""
    names: str
    """The same for people."""


class TransferDesk(Protocol):
    """Hands out requests to the movers of sites and takes in their reports, as workers of the centre do it.

    It begins its own transactions. ``note`` writes what else belongs into the one that changes something.
    """

    def is_due(self, site: SiteMover) -> bool:
        """Tell whether there may be something for a mover to do."""
        ...

    def claim(
        self, site: SiteMover, *, limit: int, lease_s: float, note: Callable[[Connection, int], None]
    ) -> Sequence[RequestOrder]:
        """Lease due requests to a mover; ``note`` is given how many."""
        ...

    def extend(
        self, site: SiteMover, held: Sequence[tuple[int, int]], *, lease_s: float, copied: Mapping[int, int]
    ) -> frozenset[tuple[int, int]]:
        """Extend leases, and note the bytes that are copied; give the (id, fence) that this mover still holds."""
        ...

    def report(
        self,
        site: SiteMover,
        outcomes: Sequence[RequestOutcome],
        *,
        note: Callable[[Connection, Mapping[str, int]], None],
    ) -> Sequence[int]:
        """Settle what became of requests; give the ids of those that this mover does not hold under that fence."""
        ...
