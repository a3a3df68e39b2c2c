"""What the registry needs from the layers above it, which it must not import."""

from enum import StrEnum
from typing import Protocol


class Bell(StrEnum):
    """The queues that can be rung."""

    EVALUATIONS = "evaluations"
    REQUESTS = "requests"


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
