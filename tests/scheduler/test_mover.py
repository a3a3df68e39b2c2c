"""The mover of threads: what it leaves behind, and what it does when it is told to stop."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from arriero.registry.errors import Busy
from arriero.rse.copy import CopyOrder, temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.held_leases import HeldLeases
from arriero.scheduler.mover import ThreadMover
from arriero.scheduler.plan import PlannedCopy


@pytest.fixture
def copy(tmp_path):
    endpoints = [Endpoint(name, "file", "", 0, str(tmp_path / name)) for name in ("here", "there")]
    for endpoint in endpoints:
        (tmp_path / endpoint.rse).mkdir()
    (tmp_path / "here" / "f").write_bytes(b"bytes")
    order = CopyOrder(endpoints[0], "f", endpoints[1], "f", 5, "066c0228", None, "7-3")
    return PlannedCopy(ClaimedRequest(7, 3, "w", 1, 2, 5, 2, None), order, 1, 0)


def finished(mover: ThreadMover, count: int = 1) -> list:
    ended = []
    until = time.monotonic() + 20
    while len(ended) < count:
        assert time.monotonic() < until
        ended.extend(mover.poll(0.1))
    return ended


def test_what_earlier_attempts_left_is_removed(copy, tmp_path):
    for fence in (1, 2):
        (tmp_path / "there" / temporary_path("f", f"7-{fence}")).write_bytes(b"by")
    (tmp_path / "there" / temporary_path("f", "8-1")).write_bytes(b"another request's")
    mover = ThreadMover(ProtocolPool(), threads=2)
    mover.submit([copy], {copy.link: 1})
    (ended,) = finished(mover)
    mover.close()
    assert ended.result is not None, ended.reason
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["f", temporary_path("f", "8-1")]


def test_an_error_of_the_storage_is_reported_with_its_code(copy, tmp_path):
    (tmp_path / "here" / "f").unlink()
    mover = ThreadMover(ProtocolPool(), threads=2)
    mover.submit([copy], {copy.link: 1})
    (ended,) = finished(mover)
    mover.close()
    assert (ended.result, ended.code, ended.retryable) == (None, "not_found", False)


def test_a_bug_in_one_copy_ends_no_other(copy):
    def explode(order, pool, **_):
        if order.attempt_name == "bad":
            raise ZeroDivisionError("a bug")
        return "copied"

    bad = replace(copy, order=replace(copy.order, attempt_name="bad"))
    mover = ThreadMover(ProtocolPool(), threads=1, copy=explode)
    mover.submit([bad, copy], {copy.link: 1})
    first, second = finished(mover, 2)
    mover.close()
    assert (first.code, first.retryable) == ("unexpected_error", True)
    assert second.result == "copied"


def test_a_link_with_much_to_do_leaves_threads_to_others(copy):
    done: list[str] = []

    def note(order, pool, **_):
        done.append(order.attempt_name)
        return "copied"

    first = [replace(copy, order=replace(copy.order, attempt_name=f"first-{n}")) for n in range(6)]
    other = replace(copy, source_id=9, order=replace(copy.order, attempt_name="other"))
    mover = ThreadMover(ProtocolPool(), threads=1, copy=note)
    hold = threading.Event()
    mover._executor.submit(hold.wait)
    mover.submit([*first, other], {copy.link: 4, other.link: 4})
    hold.set()
    assert len(finished(mover, 7)) == 7
    mover.close()
    assert done[1] == "other", "it waits for a thread, and the thread goes to it next"
    assert sorted(done) == [*(f"first-{n}" for n in range(6)), "other"]


def test_the_lease_of_what_was_just_taken_is_looked_for_and_not_written(copy):
    asked: list[tuple[list[int], frozenset[int]]] = []
    lost: list[set[int]] = []
    answers = iter([{(7, 3)}, {(7, 3)}, {(7, 3)}, Busy("later"), set()])

    def extend(ids: list[int], young: frozenset[int]) -> frozenset[tuple[int, int]]:
        asked.append((ids, young))
        answer = next(answers)
        if isinstance(answer, Busy):
            raise answer
        return frozenset(answer)

    held = HeldLeases(extend, lost.append, lease_s=40)
    held.add([copy.request])
    held.beat()
    held._since[7] -= 11
    held.beat()
    held.beat()
    assert asked == [([7], frozenset({7})), ([7], frozenset()), ([7], frozenset({7}))]
    held._since[7] -= 41
    held.beat()
    assert lost == [{7}], "nobody could be asked for longer than the lease"
    held.beat()
    assert lost == [{7}, {7}], "somebody else has it"


def test_cancelled_copies_end(copy):
    begun = threading.Event()

    def slow(order, pool, *, cancelled, on_progress):
        begun.set()
        on_progress(3)
        while not cancelled():
            time.sleep(0.01)
        from arriero.rse.errors import Cancelled

        raise Cancelled("taken back")

    waiting = replace(copy, request=replace(copy.request, id=8))
    mover = ThreadMover(ProtocolPool(), threads=1, copy=slow)
    mover.submit([copy, waiting], {copy.link: 1})
    begun.wait(10)
    while not mover.progress():
        time.sleep(0.01)
    assert mover.progress() == {7: 3}
    mover.cancel([7, 8])
    assert [ended.code for ended in finished(mover, 2)] == ["cancelled", "cancelled"]
    assert mover.progress() == {}
    mover.close()


def test_no_more_copies_of_a_link_run_at_once_than_it_has_slots(copy):
    running, most, lock = 0, 0, threading.Lock()
    go = threading.Event()

    def held(order, pool, **_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(10)
        with lock:
            running -= 1
        return "copied"

    copies = [replace(copy, request=replace(copy.request, id=number)) for number in range(6)]
    elsewhere = replace(copy, source_id=99)
    mover = ThreadMover(ProtocolPool(), threads=8, copy=held)
    mover.submit([*copies, elsewhere], {copy.link: 2, elsewhere.link: 1})
    while running < 3:
        time.sleep(0.01)
    go.set()
    assert {ended.result for ended in finished(mover, 7)} == {"copied"}
    assert most == 3, "two of the one link, and one of the other"
    mover.close()


def test_what_an_earlier_attempt_left_complete_is_not_copied_again(copy, tmp_path):
    left = tmp_path / "there" / temporary_path("f", "7-2")
    left.write_bytes(b"bytes")
    kept = left.stat().st_ino
    mover = ThreadMover(ProtocolPool(), threads=1)
    mover.submit([copy], {copy.link: 1})
    (ended,) = finished(mover)
    mover.close()
    assert ended.result.mode == "adopted"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["f"]
    assert (tmp_path / "there" / "f").stat().st_ino == kept
