"""Learns from copies that have ended: how fast links are, how many slots they get, and which RSEs are down."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import Connection, bindparam, func, null, select, tuple_, update

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import link_totals, links, rse_health
from arriero.registry.states import BreakerState
from arriero.scheduler.core.breaker import DOWN, Health, next_health
from arriero.scheduler.core.links import FIRST, LinkState, decide, is_ripe, resumed
from arriero.scheduler.traffic import Link

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CopyOutcome:
    """How one copy ended."""

    source_id: int
    destination_id: int
    bytes: int = 0
    """Of a copy that succeeded."""
    seconds: float = 0.0
    mode: str | None = None
    """None when it failed."""
    mode_reason: str | None = None
    code: str | None = None
    reason: str | None = None
    blamed_id: int | None = None
    """The RSE that the storage library names as the one that failed."""

    @property
    def link(self) -> Link:
        """From where to where."""
        return self.source_id, self.destination_id

    @property
    def of_the_rse(self) -> bool:
        """Whether the RSE is to blame, and not the file."""
        return self.code in DOWN and self.blamed_id is not None


def record(connection: Connection, outcomes: Sequence[CopyOutcome]) -> frozenset[int]:
    """Count outcomes, and decide about the slots of links and the health of RSEs.

    Parameters
    ----------
    connection
        In a transaction of its own, before the copies are settled: what it holds is asked for by everybody.

    Returns
    -------
    frozenset of int
        RSEs that are down.
    """
    if not outcomes:
        return frozenset()
    _record_links(connection, outcomes)
    _count(connection, outcomes)
    return _record_health(connection, outcomes)


_COUNTED = ("slots", "done", "failed", "bytes", "seconds", "throughput", "duration", "success")


def _record_links(connection: Connection, outcomes: Sequence[CopyOutcome]) -> None:
    by_link: dict[Link, list[CopyOutcome]] = defaultdict(list)
    for one in outcomes:
        # what its RSE is to blame for says nothing about the link
        if not one.of_the_rse:
            by_link[one.link].append(one)
    if not by_link:
        return
    keys = sorted(by_link)
    _have_links(connection, keys)
    held = connection.execute(
        select(
            *(links.c[name] for name in ("source_id", "destination_id", "since", "updated_at", *_COUNTED)),
            now().label("at"),
        )
        .where(tuple_(links.c.source_id, links.c.destination_id).in_(keys))
        .order_by(links.c.source_id, links.c.destination_id)
        .with_for_update()
    ).all()
    changes = [_changed(row, by_link[row.source_id, row.destination_id]) for row in held]
    ripe = [change for change in changes if change["decision"] is not None]
    # a window that goes on keeps its beginning and the decision before
    waiting = [change for change in changes if change["decision"] is None]
    _write(connection, [change for change in waiting if change["elapsed_s"] is None], fields=_WINDOW)
    for change in waiting:
        if change["elapsed_s"] is not None:
            _write(connection, [change], fields=_WINDOW, since=after(-change["elapsed_s"]))
    _write(connection, ripe, fields=(*_WINDOW, "decision"), since=now(), decided_at=now())
    _note_failures(connection, [one for one in outcomes if one.mode is None])
    for change in ripe:
        log.debug(
            "slots of a link decided",
            **{key: change[key] for key in ("from_id", "to_id", "slots", "decision")},
        )


def _have_links(connection: Connection, keys: Iterable[Link]) -> None:
    rows = [
        {
            "source_id": source,
            "destination_id": destination,
            "slots": FIRST,
            "since": now(),
            "updated_at": now(),
        }
        for source, destination in keys
    ]
    connection.execute(insert_into(connection, links).values(rows).on_conflict_do_nothing())


def _changed(row: Any, outcomes: Sequence[CopyOutcome]) -> dict[str, Any]:
    good = [one for one in outcomes if one.mode is not None]
    state = LinkState(
        **{name: getattr(row, name) for name in _COUNTED},
        elapsed_s=max((row.at - row.since).total_seconds(), 0.0),
    )
    seconds = [one.seconds for one in outcomes]
    fresh = resumed(state, seconds, silent_s=(row.at - row.updated_at).total_seconds())
    is_new = fresh is not state
    state = fresh
    state = replace(
        state,
        done=state.done + len(good),
        failed=state.failed + len(outcomes) - len(good),
        bytes=state.bytes + sum(one.bytes for one in good),
        seconds=state.seconds + sum(seconds),
    )
    reason = None
    if is_ripe(state):
        decision = decide(state)
        state, reason = decision.state, decision.reason
    return {
        "from_id": row.source_id,
        "to_id": row.destination_id,
        **{name: getattr(state, name) for name in _COUNTED},
        "elapsed_s": state.elapsed_s if is_new else None,
        "decision": reason,
        "mode": good[-1].mode if good else None,
        "mode_reason": good[-1].mode_reason if good else None,
    }


_WINDOW = (*_COUNTED, "mode", "mode_reason")


def _write(
    connection: Connection, changes: Sequence[dict[str, Any]], *, fields: Sequence[str], **more: Any
) -> None:
    if not changes:
        return
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in fields}
    for name in ("mode", "mode_reason"):
        # what failed says nothing about how others go
        values[name] = func.coalesce(bindparam(f"new_{name}", type_=links.c[name].type), links.c[name])
    statement = (
        update(links)
        .where(links.c.source_id == bindparam("from_id"), links.c.destination_id == bindparam("to_id"))
        .values(**values, **more, updated_at=now())
    )
    connection.execute(
        statement,
        [
            {
                "from_id": one["from_id"],
                "to_id": one["to_id"],
                **{f"new_{name}": one[name] for name in fields},
            }
            for one in changes
        ],
    )


def _note_failures(connection: Connection, failed: Sequence[CopyOutcome]) -> None:
    last = {one.link: one for one in failed if not one.of_the_rse}
    if not last:
        return
    connection.execute(
        update(links)
        .where(links.c.source_id == bindparam("from_id"), links.c.destination_id == bindparam("to_id"))
        .values(code=bindparam("new_code"), reason=bindparam("new_reason"), failed_at=now()),
        [
            {
                "from_id": one.source_id,
                "to_id": one.destination_id,
                "new_code": one.code,
                "new_reason": one.reason,
            }
            for _, one in sorted(last.items())
        ],
    )


def _count(connection: Connection, outcomes: Sequence[CopyOutcome]) -> None:
    """Add to what every link has had since the beginning, for those who measure."""
    sums: dict[tuple[int, int, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for one in outcomes:
        of_its_kind = sums[*one.link, "" if one.mode is not None else (one.code or "unknown")[:64]]
        of_its_kind[0] += 1
        of_its_kind[1] += one.bytes
        of_its_kind[2] += one.seconds
    columns = ("source_id", "destination_id", "code", "copies", "bytes", "seconds")
    rows = [dict(zip(columns, (*key, *sums[key]), strict=True)) for key in sorted(sums)]
    statement = insert_into(connection, link_totals)
    added = {name: link_totals.c[name] + statement.excluded[name] for name in columns[3:]}
    connection.execute(statement.on_conflict_do_update(index_elements=columns[:3], set_=added), rows)


def _record_health(connection: Connection, outcomes: Sequence[CopyOutcome]) -> frozenset[int]:
    good: dict[int, int] = defaultdict(int)
    bad: dict[int, list[CopyOutcome]] = defaultdict(list)
    for one in outcomes:
        if one.mode is not None:
            good[one.source_id] += 1
            good[one.destination_id] += 1
        elif one.of_the_rse and one.blamed_id is not None:
            bad[one.blamed_id].append(one)
    rows = connection.execute(
        select(rse_health.c.rse_id, rse_health.c.breaker, rse_health.c.failures)
        .where(rse_health.c.rse_id.in_(sorted(good.keys() | bad.keys())))
        .order_by(rse_health.c.rse_id)
        .with_for_update()
    ).all()
    before = {row.rse_id: Health(row.breaker is not BreakerState.CLOSED, row.failures) for row in rows}
    down: set[int] = set()
    for rse_id in sorted(good.keys() | bad.keys()):
        was = before.get(rse_id, Health())
        becomes = next_health(was, succeeded=good[rse_id], failed=len(bad[rse_id]))
        if becomes.is_down:
            down.add(rse_id)
        if becomes != was:
            _write_health(connection, rse_id, was, becomes, bad[rse_id])
    return frozenset(down)


def _write_health(
    connection: Connection, rse_id: int, was: Health, becomes: Health, failed: Sequence[CopyOutcome]
) -> None:
    values: dict[str, Any] = {
        "breaker": BreakerState.OPEN if becomes.is_down else BreakerState.CLOSED,
        "failures": becomes.failures,
        "retry_at": null() if becomes.wait_s is None else after(becomes.wait_s),
        "code": failed[-1].code if failed else None,
        "reason": failed[-1].reason if failed else None,
        "updated_at": now(),
    }
    if becomes.is_down != was.is_down:
        values["opened_at"] = now() if becomes.is_down else null()
        said = log.warning if becomes.is_down else log.info
        said("RSE is down" if becomes.is_down else "RSE is back", rse_id=rse_id, code=values["code"])
    statement = insert_into(connection, rse_health).values(rse_id=rse_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["rse_id"], set_=values))
