"""``arriero link``: how copies go between RSEs."""

from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.output import Column, Format, Kind, human_bytes
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.registry.operations import LinkInfo

_COLUMNS = [
    Column("source"),
    Column("destination"),
    Column("distance", kind=Kind.NUMBER),
    Column("under_way", kind=Kind.NUMBER),
    Column("slots", kind=Kind.NUMBER),
    Column("limit"),
    Column("queued", "QUEUED THERE", Kind.NUMBER),
    Column("rate"),
    Column("duration_s", "A COPY TAKES", Kind.SECONDS),
    Column("good", "SUCCESS"),
    Column("mode"),
    Column("can"),
    Column("decided_at", "DECIDED", Kind.TIME),
    Column("decision"),
    Column("failed_at", "LAST FAILURE", Kind.TIME),
    Column("code"),
    Column("reason"),
    Column("in_the_way"),
]

_TOTALS = [
    Column("code"),
    Column("copies", kind=Kind.NUMBER),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("seconds", "TOOK", Kind.SECONDS),
]

_LIMITS = [
    Column("rse", "RSE"),
    Column("direction"),
    Column("activity"),
    Column("expression"),
    Column("under_way", kind=Kind.NUMBER),
    Column("max_transfers", "LIMIT", Kind.NUMBER),
]


@click.group("link")
def command() -> None:
    """How copies go between RSEs: slots, rates, errors, limits."""


@command.command("list")
@click.option("--from", "source", metavar="RSE", help="Those that begin here.")
@click.option("--to", "destination", metavar="RSE", help="Those that end here.")
@pass_session
def list_(session: Session, /, *, source: str | None, destination: str | None) -> None:
    """List the links that copies have gone over, or that have a distance."""
    found = session.client.list_links(source, destination)
    if session.output.format in {Format.TABLE, Format.CSV}:
        session.output.rows(_COLUMNS, map(_row, found))
    else:
        session.output.rows([], (one.model_dump(mode="json") for one in found))


def _row(one: "LinkInfo") -> dict[str, Any]:
    tightest = min(one.limits, key=lambda limit: limit.max_transfers - limit.under_way, default=None)
    return {
        **one.model_dump(mode="json"),
        "limit": "" if tightest is None else f"{tightest.under_way}/{tightest.max_transfers}",
        "rate": "" if one.throughput is None else f"{human_bytes(one.throughput)}/s",
        "good": "" if one.success is None else f"{one.success:.0%}",
        "can": ", ".join(one.ways),
        "in_the_way": "; ".join(one.in_the_way),
    }


@command.command("show")
@click.argument("source")
@click.argument("destination")
@pass_session
def show(session: Session, /, *, source: str, destination: str) -> None:
    """Show all that is known of the link from SOURCE to DESTINATION, and how its attempts have ended since the beginning."""
    one = session.client.show_link(source, destination)
    out = session.output
    if out.format is not Format.TABLE:
        out.record(one.model_dump(mode="json"))
        return
    row = _row(one)
    out.record({column.key: row.get(column.key) for column in _COLUMNS} | {"mode_reason": one.mode_reason})
    for title, columns, rows in (("Limits", _LIMITS, one.limits), ("Attempts", _TOTALS, one.totals)):
        if rows:
            out.lines("line", ["", title])
            out.rows(columns, ({**each.model_dump(mode="json"), **_ended(each)} for each in rows))


def _ended(each: object) -> dict[str, str]:
    return {"code": "succeeded"} if getattr(each, "code", "") is None else {}
