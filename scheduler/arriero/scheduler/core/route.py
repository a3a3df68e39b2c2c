"""Ways from RSE to RSE through others, where none is declared from end to end. Pure."""

import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping

PENALTY = 10
"""What each stop on the way counts as, in distance; Rucio's figure."""


def route(
    sources: Collection[int],
    destination: int,
    distances: Mapping[tuple[int, int], int],
    through: Collection[int],
) -> tuple[int, ...] | None:
    """Find the shortest way to an RSE from any of some.

    Parameters
    ----------
    sources
        RSEs that have the file.
    destination
        Where it is wanted.
    distances
        By source and destination: the links that are declared.
    through
        RSEs that files may stop at on their way.

    Returns
    -------
    tuple of int, optional
        From the source to the destination, both included; of ways of one length the one whose ids are smallest. None
        where there is none.
    """
    onward: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (start, end), distance in distances.items():
        onward[start].append((end, max(distance, 0)))
    stops = set(through)
    heap: list[tuple[int, tuple[int, ...]]] = [(0, (source,)) for source in sorted(sources)]
    done: set[int] = set()
    while heap:
        length, way = heapq.heappop(heap)
        here = way[-1]
        if here == destination:
            return way
        if here in done or (len(way) > 1 and here not in stops):
            continue
        done.add(here)
        for end, distance in onward[here]:
            if end not in done:
                stop = PENALTY if end != destination else 0
                heapq.heappush(heap, (length + distance + stop, (*way, end)))
    return None
