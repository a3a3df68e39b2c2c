"""The words of an evaluation: what it is about, and what can become of a lock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal, or_

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import locks, replicas
from arriero.registry.states import DidType, LockState, ReplicaState, RuleGrouping
from arriero.registry.store.losses import LOST, is_lost
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
    LOST: LockState.STUCK,
}
"""What becomes of a lock with each outcome (DESIGN section 5, "Per (file, RSE)")."""

OUTCOMES = {
    ReplicaState.AVAILABLE: OK,
    ReplicaState.TEMPORARY_UNAVAILABLE: OK,
    ReplicaState.COPYING: WAIT,
    ReplicaState.BEING_DELETED: BEING_DELETED,
}
"""What a replica that is there already decides; without one, or with an UNAVAILABLE or BAD one, it takes a copy."""

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
        """Whether each file is placed by itself. A rule on a file ignores its grouping: the file is its only group."""
        return self.grouping is RuleGrouping.NONE and self.did_type is not DidType.FILE

    @property
    def has_many_groups(self) -> bool:
        """Whether each dataset has a place of its own."""
        return self.grouping is RuleGrouping.DATASET and self.did_type is not DidType.FILE


@dataclass(frozen=True, slots=True)
class Window:
    """The files of one chunk."""

    files: int
    first: int
    last: int
    """Their ids are between these, both included."""
    is_fresh: bool
    """The rule has no lock on any file in between: nothing of it can be gone, and nothing has to be looked at again."""
    is_content: bool
    """All of them were read from the rule's own dataset; whoever detaches one meanwhile adds an item."""


@dataclass(frozen=True, slots=True)
class GroupTotal:
    """A group that has no place yet."""

    group_id: int
    name: str
    bytes: int
    there: Mapping[int, int]
    """Bytes of it that are there already, by RSE."""


def is_due(stuck_retry_s: float, lock: Any = locks.c) -> ColumnElement[bool]:
    """Condition that a STUCK lock, joined with its replica if there is one, is to be tried again.

    One on a lost file is not, until the file is found.
    """
    return or_(
        and_(lock.code == LOST, ~is_lost(lock.file_id)),
        and_(
            func.coalesce(lock.code, "") != LOST,
            or_(
                lock.code.in_(WAITING_CODES),
                replicas.c.file_id.is_(None),
                replicas.c.state != ReplicaState.UNAVAILABLE,
                replicas.c.updated_at <= after(literal(-stuck_retry_s)),
            ),
        ),
    )
