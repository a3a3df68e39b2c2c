"""What can go wrong in the scheduler.

::

    SchedulerError
    ├── RulesJoined      a rule came to a replica while its arrival was being settled: do it again
    ├── LeaseLost        another worker has taken over
    ├── BrokerAway       a broker has not confirmed what it was sent
    ├── BrokerRefuses    a broker of events cannot be used as it is set up
    └── WorkerNotReady   the embedded worker does not start
"""

from typing import ClassVar


class SchedulerError(Exception):
    """The scheduler could not do what was asked."""

    code: ClassVar[str] = "scheduler_error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class RulesJoined(SchedulerError):
    """A rule has come to a replica meanwhile, and its row is not locked; the transaction has to begin again."""

    code = "rules_joined"
    http_status = 503
    exit_code = 5
    retryable = True


class LeaseLost(SchedulerError):
    """Another worker has this piece of work by now; what was done for it is undone."""

    code = "lease_lost"
    http_status = 409
    exit_code = 5


class WorkerNotReady(SchedulerError):
    """The embedded worker does not take tasks."""

    code = "worker_not_ready"
    http_status = 503
    exit_code = 5


class BrokerAway(SchedulerError):
    """A broker has not confirmed what it was sent; it is sent again."""

    code = "broker_away"
    http_status = 503
    exit_code = 5
    retryable = True


class BrokerRefuses(SchedulerError):
    """A broker of events cannot be used as it is set up."""

    code = "broker_refuses"
    http_status = 500
    exit_code = 2
