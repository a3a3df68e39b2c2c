"""Which word may follow which: one table for rules, one for locks, one for requests.

The words are the registry's (`arriero.registry.states`), which this package must not import; a test holds them equal.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar


class Rule(StrEnum):
    """States of a rule."""

    INJECT = "INJECT"
    REPLICATING = "REPLICATING"
    OK = "OK"
    STUCK = "STUCK"
    SUSPENDED = "SUSPENDED"
    WAITING_APPROVAL = "WAITING_APPROVAL"


class RuleEvent(StrEnum):
    """What happens to a rule."""

    APPROVED = "approved"
    MISSING = "missing"
    """Something is under way or still to be placed."""
    COMPLETE = "complete"
    FAILED = "failed"
    """Something cannot be done now."""
    SUSPENDED = "suspended"
    RESUMED = "resumed"


class Lock(StrEnum):
    """States of a lock."""

    REPLICATING = "REPLICATING"
    OK = "OK"
    STUCK = "STUCK"


class LockEvent(StrEnum):
    """What happens to a lock."""

    ARRIVED = "arrived"
    FAILED = "failed"
    RETRIED = "retried"


class Request(StrEnum):
    """States of a request."""

    QUEUED = "QUEUED"
    SUBMITTED = "SUBMITTED"
    DONE = "DONE"
    FAILED = "FAILED"


class RequestEvent(StrEnum):
    """What happens to a request."""

    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    GIVEN_UP = "given_up"
    REVIVED = "revived"


_WORKING = {
    RuleEvent.MISSING: Rule.REPLICATING,
    RuleEvent.COMPLETE: Rule.OK,
    RuleEvent.FAILED: Rule.STUCK,
    RuleEvent.SUSPENDED: Rule.SUSPENDED,
}

RULE_TRANSITIONS: Mapping[Rule, Mapping[RuleEvent, Rule]] = MappingProxyType(
    {
        Rule.WAITING_APPROVAL: {RuleEvent.APPROVED: Rule.INJECT},
        Rule.INJECT: _WORKING,
        Rule.REPLICATING: _WORKING,
        Rule.OK: _WORKING,
        Rule.STUCK: _WORKING,
        Rule.SUSPENDED: {RuleEvent.RESUMED: Rule.INJECT},
    }
)

LOCK_TRANSITIONS: Mapping[Lock, Mapping[LockEvent, Lock]] = MappingProxyType(
    {
        Lock.REPLICATING: {LockEvent.ARRIVED: Lock.OK, LockEvent.FAILED: Lock.STUCK},
        Lock.STUCK: {
            LockEvent.ARRIVED: Lock.OK,
            LockEvent.FAILED: Lock.STUCK,
            LockEvent.RETRIED: Lock.REPLICATING,
        },
        Lock.OK: {LockEvent.ARRIVED: Lock.OK},
    }
)

REQUEST_TRANSITIONS: Mapping[Request, Mapping[RequestEvent, Request]] = MappingProxyType(
    {
        Request.QUEUED: {RequestEvent.CLAIMED: Request.SUBMITTED},
        Request.SUBMITTED: {
            RequestEvent.SUCCEEDED: Request.DONE,
            RequestEvent.RETRIED: Request.QUEUED,
            RequestEvent.GIVEN_UP: Request.FAILED,
        },
        Request.FAILED: {RequestEvent.REVIVED: Request.QUEUED},
        Request.DONE: {},
    }
)

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class IllegalTransition(Exception):
    """That cannot happen to something in that state."""

    def __init__(self, state: StrEnum, event: StrEnum) -> None:
        super().__init__(f"{event.value!r} cannot happen in state {state.value}")
        self.state = state
        self.event = event


def advance(table: Mapping[S, Mapping[E, S]], state: S, event: E) -> S:
    """Give the state that follows.

    Parameters
    ----------
    table
        `RULE_TRANSITIONS`, `LOCK_TRANSITIONS` or `REQUEST_TRANSITIONS`.

    Raises
    ------
    IllegalTransition
        Nothing follows.
    """
    following = table[state].get(event)
    if following is None:
        raise IllegalTransition(state, event)
    return following


def rule_event(*, replicating: int, stuck: int, unplaced: bool, unfinished: bool) -> RuleEvent:
    """Tell what the counts of a rule's locks mean.

    Parameters
    ----------
    replicating, stuck
        Locks in these states.
    unplaced
        A group of the rule has no place.
    unfinished
        There is more to place, in a chunk to come.
    """
    if stuck or unplaced:
        return RuleEvent.FAILED
    if replicating or unfinished:
        return RuleEvent.MISSING
    return RuleEvent.COMPLETE
