"""One file that the catalogue refuses costs no other of its batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from arriero.registry.errors import Conflict, InvalidInput

T = TypeVar("T")

Refused = Conflict | InvalidInput


def accepted(
    batch: Sequence[T], send: Callable[[Sequence[T]], object], refused: Callable[[T, Refused], None]
) -> Iterator[T]:
    """Send a batch; one that is refused for something in it is halved until that is alone.

    Parameters
    ----------
    send
        Has the catalogue take all, or none of them.
    refused
        Told of each that is refused by itself.

    Yields
    ------
    T
        What was taken.
    """
    if not batch:
        return
    try:
        send(batch)
    except (Conflict, InvalidInput) as error:
        if len(batch) == 1:
            refused(batch[0], error)
            return
        middle = len(batch) // 2
        yield from accepted(batch[:middle], send, refused)
        yield from accepted(batch[middle:], send, refused)
    else:
        yield from batch
