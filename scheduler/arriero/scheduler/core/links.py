"""How many copies a link carries at once: more while that brings more, fewer when copies fail. Pure.

The rules are those of FTS 3's optimizer, by windows of completed copies instead of minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

FIRST = 8
"""Slots of a link of which nothing is known."""
LEAST, MOST = 2, 130
"""Slots of any link; FTS 3's range."""
GOOD = 0.97
"""Share of copies that succeed on a link that may get more; FTS 3's figure."""
POOR = 0.8
"""Below it a link loses a quarter of its slots at once."""
SMOOTHING = 0.3
"""Weight of a window in the moving averages."""
WINDOW_S = 4.0
"""Shortest window, seconds, but for the first one: workers tell of their copies once a second or so."""
FIRST_WINDOW_S = 0.5
"""Shortest window of a link of which nothing is known yet, seconds."""
WINDOW_FILES = 10
"""Fewest copies in a window; a slow link is decided about after `LONG_WINDOW_S` with what there is."""
FIRST_FILES = 30
"""Fewest copies in it, where it is shorter than others."""
LONG_WINDOW_S = 60.0
_FASTER = 1.2
"""From this share of the average on, throughput counts as growing with the slots."""
_STEADY = 0.95
"""Throughput that is not lower than this share of the average counts as steady."""
_AHEAD_S = 4.0
"""How long what has been claimed for a link keeps it busy, seconds."""
_QUEUED = 4
"""Copies that may be claimed for each slot, however long they take: nobody waits for the next claim."""
_UNKNOWN = 1000
"""Copies that may be claimed for a link of which nothing is known yet."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known of a link."""

    slots: int = FIRST
    done: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Wall time of the copies of this window, added up."""
    elapsed_s: float = 0.0
    """Since the window began."""
    throughput: float | None = None
    duration: float | None = None
    success: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the slots, and why."""

    state: LinkState
    """With a new window."""
    reason: str


def is_ripe(state: LinkState) -> bool:
    """Whether the window says enough to decide."""
    files = state.done + state.failed
    least_s = FIRST_WINDOW_S if state.throughput is None and files >= FIRST_FILES else WINDOW_S
    if state.elapsed_s < least_s or not files:
        return False
    return files >= WINDOW_FILES or state.elapsed_s >= LONG_WINDOW_S


def resumed(state: LinkState, seconds: Sequence[float], *, silent_s: float) -> LinkState:
    """Begin a window anew where nothing was under way for a while: that says nothing about what the link carries.

    Parameters
    ----------
    state
        Of the window so far.
    seconds
        What each of the copies took that have ended now.
    silent_s
        Since anything was heard of the link before.
    """
    if silent_s <= WINDOW_S + max(seconds, default=0.0):
        return state
    elapsed_s = max(max(seconds, default=0.0), sum(seconds) / state.slots)
    return replace(state, done=0, failed=0, bytes=0, seconds=0.0, elapsed_s=elapsed_s)


def decide(state: LinkState) -> Decision:
    """Decide about the slots of a link at the end of a window.

    Parameters
    ----------
    state
        `is_ripe`.
    """
    files = state.done + state.failed
    success = state.done / files
    throughput = state.bytes / state.elapsed_s
    before = state.throughput
    slots, reason = _slots(state, success, throughput, before)
    return Decision(
        replace(
            state,
            slots=slots,
            done=0,
            failed=0,
            bytes=0,
            seconds=0.0,
            elapsed_s=0.0,
            throughput=_average(before, throughput),
            duration=_average(state.duration, state.seconds / files),
            success=_average(state.success, success),
        ),
        reason,
    )


def _slots(state: LinkState, success: float, throughput: float, before: float | None) -> tuple[int, str]:
    now = state.slots
    said = f"{success:.0%} of {state.done + state.failed} copies succeeded"
    if success < POOR:
        return max(LEAST, now - max(1, now // 4)), f"fewer: {said}"
    if success < GOOD:
        return max(LEAST, now - 1), f"one less: {said}"
    rate = f"{throughput / 1e6:.1f} MB/s"
    if _busy(state) < now / 2:
        return now, f"unchanged: no more than half of the slots were used, {rate}"
    # as TCP begins: a link that has just been found, or that gives more and more
    grows = before is None or throughput >= _FASTER * before
    if before is None or throughput >= _STEADY * before:
        more = 2 * now if grows else now + max(1, now // 8)
        how = "much more than" if grows else "no less than"
        return min(MOST, more), f"more: {said}, {rate} is {how} before"
    if throughput < before / 10:
        return max(LEAST, now - 1), f"one less: {rate} is a tenth of before"
    return now, f"unchanged: {rate} is less than before, {before / 1e6:.1f} MB/s"


def _busy(state: LinkState) -> float:
    """Slots that were used on average."""
    return state.seconds / state.elapsed_s


def _average(before: float | None, now: float) -> float:
    return now if before is None else (1 - SMOOTHING) * before + SMOOTHING * now


def quota(state: LinkState) -> int:
    """How many copies may be claimed for a link: what fills its slots, and keeps them filled when copies are short."""
    if state.duration is None:
        return _UNKNOWN
    return max(_QUEUED * state.slots, int(state.slots * _AHEAD_S / max(state.duration, 0.001)))


def share(slots: int, *, own: int, total: int) -> int:
    """How many copies of a link one worker runs at once, of those that all workers may.

    Parameters
    ----------
    own, total
        Copies that it, and that all of them together, hold for the link.
    """
    return max(1, round(slots * min(own / max(total, 1), 1.0)))
