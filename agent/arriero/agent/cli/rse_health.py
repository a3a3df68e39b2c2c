"""``arriero rse pause|resume|health|retry``: whether an RSE is open, and whether it is up."""

from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.options import F, dry_run_option, rses_option
from arriero.agent.cli.output import Column, Format, Kind
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.registry.operations import RseHealth, StorageAbilities

_OPERATIONS = ("read", "write", "delete")

_COLUMNS = [
    Column("rse", "RSE"),
    Column("availability_read", "READ"),
    Column("availability_write", "WRITE"),
    Column("availability_delete", "DELETE"),
    Column("breaker"),
    Column("failures", kind=Kind.NUMBER),
    Column("down_since", kind=Kind.TIME),
    Column("next_look_at", "NEXT LOOK", Kind.TIME),
    Column("code"),
    Column("reason"),
    Column("closed"),
    Column("can"),
]


def _operation_options(function: F) -> F:
    for name, what in (
        ("delete", "Deleting."),
        ("write", "Writing: copies to it."),
        ("read", "Reading: copies from it."),
    ):
        function = click.option(f"--{name}", is_flag=True, help=what)(function)
    return function


@click.command("pause")
@click.argument("rse_name", metavar="RSE")
@_operation_options
@click.option("--reason", metavar="TEXT", help="Why; shown to whoever asks why something waits.")
@dry_run_option
@pass_session
def pause(
    session: Session, /, *, rse_name: str, reason: str | None, dry_run: bool, **operations: bool
) -> None:
    """Close an RSE for reading, writing or deleting. What is under way goes on; what waits says who has closed it and why.

    \b
    arriero rse pause IN2P3_RAW_DISK --write --reason 'dCache upgrade until Thursday'
    """  # noqa: D301 - click's mark for lines that stay as they are
    chosen = [one for one in _OPERATIONS if operations[one]]
    if not chosen:
        raise click.UsageError("What for? Give --read, --write or --delete.")
    _change(session, rse_name, chosen, is_open=False, reason=reason, dry_run=dry_run)


@click.command("resume")
@click.argument("rse_name", metavar="RSE")
@_operation_options
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit.")
@dry_run_option
@pass_session
def resume(
    session: Session, /, *, rse_name: str, reason: str | None, dry_run: bool, **operations: bool
) -> None:
    """Open an RSE again, for all that it was closed for unless something is named. What waits for it goes on at once."""
    chosen = [one for one in _OPERATIONS if operations[one]] or list(_OPERATIONS)
    _change(session, rse_name, chosen, is_open=True, reason=reason, dry_run=dry_run)


def _change(
    session: Session, rse_name: str, chosen: list[str], *, is_open: bool, reason: str | None, dry_run: bool
) -> None:
    settings: dict[str, Any] = {f"availability_{one}": is_open for one in chosen}
    record = {"rse": rse_name, **settings, "reason": reason}
    if dry_run:
        session.output.record(record)
        return
    session.client.update_rse(rse_name, settings if reason is None else {**settings, "reason": reason})
    session.output.done(f"{rse_name} is {'open' if is_open else 'closed'} for {_listed(chosen)}.", record)


def _listed(chosen: list[str]) -> str:
    words = {"read": "reading", "write": "writing", "delete": "deleting"}
    *first, last = [words[one] for one in chosen]
    return f"{', '.join(first)} and {last}" if first else last


@click.command("health")
@click.argument("rse_name", metavar="[RSE]", required=False)
@rses_option(help_text="Only those of this RSE expression.")
@click.option("--trouble", is_flag=True, help="Only those that are closed for something, or not up.")
@pass_session
def health(session: Session, /, *, rse_name: str | None, rses: str | None, trouble: bool) -> None:
    """Tell whether RSEs are open and up: since when not, why, and when they are looked at again."""
    if rse_name is not None:
        session.output.record(session.client.get_rse_health(rse_name).model_dump(mode="json"))
        return
    found = (one for one in session.client.list_rse_health(rses) if not trouble or is_troubled(one))
    if session.output.format in {Format.TABLE, Format.CSV}:
        session.output.rows(_COLUMNS, map(_row, found))
    else:
        session.output.rows([], (one.model_dump(mode="json") for one in found))


def is_troubled(one: "RseHealth") -> bool:
    """Whether an RSE is closed for something, or not up."""
    is_open = one.availability_read and one.availability_write and one.availability_delete
    return not is_open or one.breaker != "CLOSED"


def _row(one: "RseHealth") -> dict[str, Any]:
    said = (
        f"{pause.operation.lower()} by {pause.account or 'somebody'}"
        + (f": {pause.reason}" if pause.reason else "")
        for pause in one.pauses
    )
    return {
        **one.model_dump(mode="json"),
        "closed": "; ".join(said),
        "can": "; ".join(map(_abilities, one.abilities)),
    }


def _abilities(one: "StorageAbilities") -> str:
    able = (
        ("pull", one.third_party_pull),
        ("push", one.third_party_push),
        ("move", one.move),
        ("ranges", one.ranges),
        ("list", one.list_directory),
    )
    can = [word for word, is_able in able if is_able] + sorted(one.digest_algorithms)
    return f"{one.server or one.origin}: {', '.join(can) or 'nothing more'} ({one.probed_at:%Y-%m-%d %H:%M})"


@click.command("retry")
@click.argument("rse_name", metavar="RSE")
@dry_run_option
@pass_session
def retry(session: Session, /, *, rse_name: str, dry_run: bool) -> None:
    """Have an RSE that is down count as up: what waits for it is tried now. If it is still down, that will show."""
    if dry_run:
        session.output.record(session.client.get_rse_health(rse_name).model_dump(mode="json"))
        return
    done = session.client.retry_rse(rse_name)
    was = "was down" if done["was_down"] else "was not down"
    session.output.done(
        f"{rse_name} {was}; {done['due_now']} transfers that waited are due now.", {"rse": rse_name, **done}
    )
