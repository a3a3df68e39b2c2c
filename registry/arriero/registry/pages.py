"""Long work in pages: one is in memory, and in a transaction, at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def pages_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Give items in lists of a size, the last one shorter."""
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page


def pages_by_id(
    read: Callable[[int, int], Sequence[T]],
    id_of: Callable[[T], int],
    *,
    after: int,
    limit: int | None,
    size: int,
) -> Iterator[Sequence[T]]:
    """Read rows page by page in the order of their ids.

    Parameters
    ----------
    read
        Gives the rows whose ids come after the first number, the second number of them at most.
    id_of
        Gives the id of a row.
    after
        The id after which to begin.
    limit
        Rows to give at most; all when None.
    size
        Rows of a page.
    """
    left = limit
    while left is None or left > 0:
        asked = size if left is None else min(size, left)
        page = read(after, asked)
        yield page
        if len(page) < asked:
            return
        after = id_of(page[-1])
        left = None if left is None else left - asked
