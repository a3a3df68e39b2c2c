"""The words of an evaluation: what it is about, and what can become of a lock."""

from dataclasses import dataclass

from arriero.registry.states import DidType, LockState, ReplicaState, RuleGrouping
from arriero.registry.store.rule_work import RETRY_NOW

THERE = (ReplicaState.AVAILABLE, ReplicaState.COPYING)
"""States of a replica that count as bytes of a group at an RSE."""

OK = "ok"
WAIT = "wait"
COPY = "copy"
NO_SOURCE = "no_source"
BEING_DELETED = "being_deleted"
BAD_REPLICA = "bad_replica"

LOCK_STATES = {
    OK: LockState.OK,
    WAIT: LockState.REPLICATING,
    COPY: LockState.REPLICATING,
    NO_SOURCE: LockState.STUCK,
    BEING_DELETED: LockState.STUCK,
    BAD_REPLICA: LockState.STUCK,
}
"""What becomes of a lock with each outcome (DESIGN section 5, "Per (file, RSE)")."""

OUTCOMES = {
    ReplicaState.AVAILABLE: OK,
    ReplicaState.TEMPORARY_UNAVAILABLE: OK,
    ReplicaState.COPYING: WAIT,
    ReplicaState.BEING_DELETED: BEING_DELETED,
    ReplicaState.BAD: BAD_REPLICA,
}
"""What a replica that is there already decides; without one, or with an UNAVAILABLE one, it takes a copy."""

WAITING_CODES = (NO_SOURCE, BEING_DELETED, BAD_REPLICA, RETRY_NOW)
"""Codes of STUCK locks that are tried as soon as they are looked at; others wait out their time."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the statements have to know of the rule."""

    rule_id: int
    did_id: int
    did_type: DidType
    grouping: RuleGrouping
    copies: int
    there: tuple[ReplicaState, ...] = THERE
    """States of a replica that draw a file to its RSE."""

    @property
    def by_file(self) -> bool:
        """Whether each file is placed by itself: a rule on a file ignores its grouping."""
        return self.did_type is DidType.FILE or self.grouping is RuleGrouping.NONE


@dataclass(frozen=True, slots=True)
class Chunk:
    """The files that one transaction places."""

    files: int
    last_file_id: int
    complete: bool
    """Nothing is left to place beyond it."""


@dataclass(frozen=True, slots=True)
class Window:
    """The files that one transaction looks at, and when a failed copy of one is due again."""

    after_file_id: int
    upto: int | None
    """None: all that follow."""
    stuck_retry_s: float


@dataclass(frozen=True, slots=True)
class GroupTotal:
    """A group that has no place yet."""

    group_id: int
    name: str
    files: int
    bytes: int
