"""The Python client of a registry: what the CLI, the agents and other people's programs use.

It needs neither the database nor FastAPI: a site installs it with plain ``arriero``. Method names are those of Rucio's
own clients where Rucio has the call. Errors are those of `arriero.registry.errors`.
"""

from arriero.registry.calls.answers import UnexpectedAnswer, Unreachable
from arriero.registry.calls.arrivals import ArrivalCalls
from arriero.registry.calls.audits import AuditCalls
from arriero.registry.calls.deletions import DeletionCalls
from arriero.registry.calls.dids import DidCalls
from arriero.registry.calls.doctor import DoctorCalls
from arriero.registry.calls.movers import MoverCalls
from arriero.registry.calls.rses import RseCalls
from arriero.registry.calls.rules import RuleCalls
from arriero.registry.calls.subscriptions import SubscriptionCalls
from arriero.registry.calls.transfers import TransferCalls

__all__ = ["RegistryClient", "UnexpectedAnswer", "Unreachable"]


class RegistryClient(
    RseCalls,
    DidCalls,
    RuleCalls,
    SubscriptionCalls,
    ArrivalCalls,
    DoctorCalls,
    AuditCalls,
    TransferCalls,
    DeletionCalls,
    MoverCalls,
):
    """Everything that a registry can be asked for.

    Synchronous and thread-safe: one client may serve a whole process. It logs in at the first call that needs it, and
    again when its session has ended. Calls that can do no harm twice are repeated with a growing pause when the
    connection fails; others raise `Unreachable`.

    Examples
    --------
    >>> with RegistryClient("https://arriero.example.org", token_file=Path("agent.token")) as client:
    ...     client.butler("embargo").uri
    """
