"""The words for every state, and Rucio's letters for them.

Inside Arriero a state is a word; Rucio's one-letter codes exist only on the wire, and only this module
knows them (DESIGN section 5).
"""

from collections.abc import Mapping
from enum import StrEnum


class DidType(StrEnum):
    """What a data identifier names."""

    FILE = "FILE"
    DATASET = "DATASET"
    CONTAINER = "CONTAINER"


class ReplicaState(StrEnum):
    """State of one file at one RSE."""

    AVAILABLE = "AVAILABLE"
    UNAVAILABLE = "UNAVAILABLE"
    COPYING = "COPYING"
    BEING_DELETED = "BEING_DELETED"
    BAD = "BAD"
    TEMPORARY_UNAVAILABLE = "TEMPORARY_UNAVAILABLE"


class RuleState(StrEnum):
    """State of a replication rule."""

    INJECT = "INJECT"
    REPLICATING = "REPLICATING"
    OK = "OK"
    STUCK = "STUCK"
    SUSPENDED = "SUSPENDED"
    WAITING_APPROVAL = "WAITING_APPROVAL"


RESTING = (RuleState.SUSPENDED, RuleState.WAITING_APPROVAL)
"""States in which nothing is done for a rule until somebody has it go on; then it is looked at as a whole."""


class LockState(StrEnum):
    """State of one lock: what a rule asks of one file at one RSE."""

    OK = "OK"
    REPLICATING = "REPLICATING"
    STUCK = "STUCK"


class EvaluationItem(StrEnum):
    """What of a rule an evaluation has to look at."""

    FILE = "FILE"
    DATASET = "DATASET"
    CONTAINER = "CONTAINER"
    STUCK = "STUCK"
    """Its STUCK locks, those of them that are due."""


class RuleGrouping(StrEnum):
    """Which files of a rule have to lie together."""

    ALL = "ALL"
    DATASET = "DATASET"
    NONE = "NONE"


class RequestState(StrEnum):
    """State of a request: one file wanted at one RSE."""

    QUEUED = "QUEUED"
    SUBMITTED = "SUBMITTED"
    DONE = "DONE"
    FAILED = "FAILED"


class BreakerState(StrEnum):
    """Whether copies go to and from an RSE."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    """It is down: what needs it waits without an attempt being counted."""
    HALF_OPEN = "HALF_OPEN"
    """One copy is under way, to see whether it is back."""


class RseOperation(StrEnum):
    """What an RSE can be closed for."""

    READ = "READ"
    WRITE = "WRITE"
    DELETE = "DELETE"


class RequestType(StrEnum):
    """What a request asks for."""

    TRANSFER = "TRANSFER"


class ArrivalState(StrEnum):
    """State of one file on its way into one Butler repository (DESIGN section 8)."""

    PENDING = "pending"
    LEASED = "leased"
    PARKED = "parked"
    INGESTED = "ingested"
    FAILED = "failed"
    RELEASED = "released"


class BadReplicaState(StrEnum):
    """What was said against a replica, and how it ended."""

    BAD = "BAD"
    SUSPICIOUS = "SUSPICIOUS"
    TEMPORARY_UNAVAILABLE = "TEMPORARY_UNAVAILABLE"
    LOST = "LOST"
    RECOVERED = "RECOVERED"
    DELETED = "DELETED"


class AuditSource(StrEnum):
    """How an audit learnt what is on a storage."""

    DUMP = "DUMP"
    WALK = "WALK"


class AuditState(StrEnum):
    """State of an audit of a storage."""

    RECEIVING = "RECEIVING"
    COMPARED = "COMPARED"
    HELD = "HELD"
    """It found more than can be believed, and counts for nothing."""
    ABANDONED = "ABANDONED"


class FindingKind(StrEnum):
    """What is wrong at a storage."""

    MISSING = "MISSING"
    DARK = "DARK"
    WRONG_SIZE = "WRONG_SIZE"
    WRONG_CHECKSUM = "WRONG_CHECKSUM"


class FindingState(StrEnum):
    """What has become of a finding."""

    SEEN = "SEEN"
    CONFIRMED = "CONFIRMED"
    """Seen again, long enough after the first time."""
    DECLARED = "DECLARED"
    """Its replica was declared bad."""
    SUSPECTED = "SUSPECTED"
    """Nobody knows yet whether the replica or the catalogue is wrong."""


class DeletionCause(StrEnum):
    """Why a replica may be deleted."""

    EXPIRED = "expired"
    BAD = "bad"
    PURGE = "purge"
    UNLOCKED = "unlocked"


class DeletionPass(StrEnum):
    """When a replica is deleted that may be: now, or when space is needed. The bad ones, which go now, are found apart."""

    AT_ONCE = "at_once"
    BAD = "bad"
    WHEN_NEEDED = "when_needed"


class DeletionOutcome(StrEnum):
    """How a deletion ended."""

    DONE = "DONE"
    NOT_FOUND = "NOT_FOUND"
    """There was nothing to remove, which counts as done."""
    KEPT = "KEPT"
    """Its proof was gone when it was tried again, and the bytes are there: the replica is what it was."""


class SubscriptionState(StrEnum):
    """State of a subscription."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    BROKEN = "BROKEN"


class TransferDirection(StrEnum):
    """Which end of a copy a limit counts."""

    SOURCE = "SOURCE"
    DESTINATION = "DESTINATION"


class AccountType(StrEnum):
    """Kind of an account, as Rucio has them."""

    USER = "USER"
    GROUP = "GROUP"
    SERVICE = "SERVICE"


class Role(StrEnum):
    """What an account may do (DESIGN section 6)."""

    ADMIN = "admin"
    DATA_MANAGER = "data_manager"
    SITE_AGENT = "site_agent"
    READER = "reader"


class IdentityType(StrEnum):
    """How an identity proves itself."""

    USERPASS = "USERPASS"
    X509 = "X509"
    OIDC = "OIDC"


class TokenKind(StrEnum):
    """A login session, or the standing token of a site agent."""

    SESSION = "session"
    AGENT = "agent"


class RseType(StrEnum):
    """Medium of an RSE."""

    DISK = "DISK"
    TAPE = "TAPE"


REPLICA_LETTERS: Mapping[ReplicaState, str] = {
    ReplicaState.AVAILABLE: "A",
    ReplicaState.UNAVAILABLE: "U",
    ReplicaState.COPYING: "C",
    ReplicaState.BEING_DELETED: "B",
    ReplicaState.BAD: "D",
    ReplicaState.TEMPORARY_UNAVAILABLE: "T",
}

RULE_LETTERS: Mapping[RuleState, str] = {
    RuleState.INJECT: "I",
    RuleState.REPLICATING: "R",
    RuleState.OK: "O",
    RuleState.STUCK: "S",
    RuleState.SUSPENDED: "U",
    RuleState.WAITING_APPROVAL: "W",
}

GROUPING_LETTERS: Mapping[RuleGrouping, str] = {
    RuleGrouping.ALL: "A",
    RuleGrouping.DATASET: "D",
    RuleGrouping.NONE: "N",
}

REQUEST_LETTERS: Mapping[RequestState, str] = {
    RequestState.QUEUED: "Q",
    RequestState.SUBMITTED: "S",
    RequestState.DONE: "D",
    RequestState.FAILED: "F",
}

RUCIO_REQUEST_LETTERS = frozenset("QGSFDLNOAMUWP")
"""Letters of Rucio's request states; those that are not in `REQUEST_LETTERS` name what no request of ours ever is."""

DIRECTION_LETTERS: Mapping[TransferDirection, str] = {
    TransferDirection.SOURCE: "S",
    TransferDirection.DESTINATION: "D",
}

BAD_REPLICA_LETTERS: Mapping[BadReplicaState, str] = {
    BadReplicaState.BAD: "B",
    BadReplicaState.SUSPICIOUS: "S",
    BadReplicaState.TEMPORARY_UNAVAILABLE: "T",
    BadReplicaState.LOST: "L",
    BadReplicaState.RECOVERED: "R",
    BadReplicaState.DELETED: "D",
}

SUBSCRIPTION_LETTERS: Mapping[SubscriptionState, str] = {
    SubscriptionState.ACTIVE: "A",
    SubscriptionState.INACTIVE: "I",
    SubscriptionState.BROKEN: "B",
}
