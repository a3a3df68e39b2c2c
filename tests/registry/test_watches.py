"""Claims that wait share one look at the database, and none waits for a look that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from arriero.registry.api.watches import Watch


class Work:
    """Keys that have work, and who asked."""

    def __init__(self) -> None:
        self.there: set[int] = set()
        self.looks: list[set[int]] = []
        self.trouble: Exception | None = None

    def look(self, keys: Collection[int]) -> set[int]:
        self.looks.append(set(keys))
        if self.trouble is not None:
            raise self.trouble
        return self.there & set(keys)


def test_one_look_is_for_all_that_wait():
    work = Work()
    watch = Watch(work.look, 0.01)

    async def together() -> None:
        work.there = {1, 2}
        await asyncio.gather(*(watch.wait(key, 30) for key in [1] * 20 + [2] * 20))

    asyncio.run(together())
    assert work.looks == [{1, 2}]


def test_who_has_nothing_waits_and_then_nobody_looks():
    work = Work()
    watch = Watch(work.look, 0.01)

    async def one_of_two() -> list[float]:
        work.there = {1}
        begun = time.monotonic()

        async def waited(key: int) -> float:
            await watch.wait(key, 1.5)
            return time.monotonic() - begun

        took = await asyncio.gather(waited(1), waited(2))
        looks = len(work.looks)
        await asyncio.sleep(0.1)
        assert len(work.looks) <= looks + 1
        return took

    first, second = asyncio.run(one_of_two())
    assert first < 1.5 <= second


def test_a_look_that_fails_lets_everybody_see_for_themselves():
    work = Work()
    work.trouble = ConnectionError("no database")
    watch = Watch(work.look, 0.01)

    async def told() -> float:
        begun = time.monotonic()
        await watch.wait(1, 30)
        return time.monotonic() - begun

    assert asyncio.run(told()) < 10


def test_a_nudge_is_a_look_at_once():
    work = Work()
    watch = Watch(work.look, 30)

    async def nudged() -> float:
        begun = time.monotonic()
        waiting = asyncio.create_task(watch.wait(1, 60))
        await asyncio.sleep(0.05)
        work.there = {1}
        watch.nudge()
        await waiting
        return time.monotonic() - begun

    assert asyncio.run(nudged()) < 10
