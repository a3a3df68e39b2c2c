"""Figures that cost something, for those who ask again and again: made now and then, and given out in between."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from arriero.registry.errors import Busy

REST = 20
"""How many times as long as making them took it rests."""

_WAIT_S = 5.0

T = TypeVar("T")


class Recent(Generic[T]):
    """Makes figures for all who ask: asking again and again costs the database nothing.

    One caller makes them while the others are given those that were made last. What takes long to make is made the less
    often, so that never more than a twentieth of the time is spent on it.

    Parameters
    ----------
    make
        Makes them.
    what
        Is counted, in words.
    kept_s
        How long they are given out at least, seconds.
    """

    def __init__(self, make: Callable[[], T], what: str, *, kept_s: float) -> None:
        self._make = make
        self._what = what
        self._kept_s = kept_s
        self._making = threading.Lock()
        self._made: tuple[T] | None = None
        self._made_again_at = 0.0

    def get(self) -> T:
        """Give figures that are not old, or as new as they can be.

        Raises
        ------
        Busy
            There are none yet, and whoever makes them takes long.
        """
        kept = self._made
        if kept is not None and time.monotonic() < self._made_again_at:
            return kept[0]
        # without any to give out there is nothing but to wait for the first
        if not self._making.acquire(timeout=_WAIT_S if kept is None else 0):
            if kept is None:
                raise Busy(f"{self._what} is being counted for the first time: try again")
            return kept[0]
        try:
            if self._made is not None and self._made is not kept:
                return self._made[0]
            begun = time.monotonic()
            made = self._make()
            ended = time.monotonic()
            self._made = (made,)
            self._made_again_at = ended + max(self._kept_s, REST * (ended - begun))
            return made
        finally:
            self._making.release()
