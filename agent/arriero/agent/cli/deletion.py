"""``arriero deletion``: what is being deleted, what has been, how it stands with each RSE, and stopping all of it."""

from typing import TYPE_CHECKING

import click

from arriero.agent.cli.options import DID, DidName, dry_run_option, rses_option
from arriero.agent.cli.output import Column, Format, Kind
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.registry.deletion_words import DeletionStop

_COLUMNS = [
    Column("scope"),
    Column("name"),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("rse", "RSE"),
    Column("cause"),
    Column("attempt", kind=Kind.NUMBER),
    Column("code"),
    Column("next_attempt_at", "NEXT", Kind.TIME),
    Column("lease_owner", "WORKER"),
    Column("proof_rse", "COPY AT"),
    Column("created_at", "SINCE", Kind.TIME),
    Column("reason"),
]

_ENDED = [
    Column("ended_at", "ENDED", Kind.TIME),
    Column("scope"),
    Column("name"),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("rse", "RSE"),
    Column("state"),
    Column("cause"),
    Column("attempt", kind=Kind.NUMBER),
    Column("proof_rse", "COPY AT"),
    Column("proof_at", "VERIFIED", Kind.TIME),
    Column("owner", "WORKER"),
    Column("reason"),
]

_SITES = [
    Column("rse", "RSE"),
    Column("is_open", "OPEN"),
    Column("greedy"),
    Column("min_free", "MIN FREE", Kind.BYTES),
    Column("free", kind=Kind.BYTES),
    Column("need", kind=Kind.BYTES),
    Column("under_way", "UNDER WAY", Kind.NUMBER),
    Column("waiting", kind=Kind.NUMBER),
    Column("failures", kind=Kind.NUMBER),
    Column("code"),
    Column("next_look_at", "NEXT LOOK", Kind.TIME),
    Column("reason"),
]


@click.group("deletion")
def command() -> None:
    """Bytes that go: what is being deleted, what has been, and stopping all of it."""


@command.command("list")
@click.option("--rse", "rse_name", metavar="RSE", help="At this RSE.")
@click.option("--code", help="Those that wait for this: unavailable, access_denied, grave ...")
@click.option("--history", is_flag=True, help="Those that have ended, the last first.")
@click.option("--did", type=DID, help="With --history: of this file.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True)
@pass_session
def list_(
    session: Session,
    /,
    *,
    rse_name: str | None,
    code: str | None,
    history: bool,
    did: DidName | None,
    limit: int,
) -> None:
    """List replicas that are being deleted, each with the copy for whose sake it may go, or those that have been."""
    from arriero.registry.deletion_words import DeletionFilter, DeletionHistoryFilter

    if history:
        if code is not None:
            raise click.UsageError("--code goes without --history.")
        scope, name = did or (None, None)
        asked = DeletionHistoryFilter(rse=rse_name, scope=scope, name=name, limit=limit)
        ended = session.client.list_deletion_history(asked)
        session.output.rows(_ENDED, (one.model_dump(mode="json") for one in ended))
        return
    if did is not None:
        raise click.UsageError("--did goes with --history.")
    found = session.client.list_deletions(DeletionFilter(rse=rse_name, code=code, limit=limit))
    session.output.rows(_COLUMNS, (one.model_dump(mode="json") for one in found))


@command.command("status")
@rses_option(help_text="Only the RSEs of this expression.")
@pass_session
def status(session: Session, /, *, rses: str | None) -> None:
    """Show how deletion stands with each RSE: whether it is open, how much has to go, and what hinders it."""
    found = session.client.list_deletion_sites(rses)
    session.output.rows(_SITES, (one.model_dump(mode="json") for one in found))
    if session.output.format is Format.TABLE:
        session.output.note(told(session.client.get_deletion_stop()))


def told(stop: "DeletionStop") -> str:
    """Say whether deletions are stopped."""
    if not stop.stopped:
        return "Deletions are not stopped."
    since = "" if stop.since is None else f" since {stop.since:%Y-%m-%d %H:%M:%S} UTC"
    why = f": {stop.reason}" if stop.reason else ""
    return f"All deletions are stopped by {stop.account or 'somebody'}{since}{why}. arriero deletion go lets them go on."


@command.command("stop")
@click.option("--reason", metavar="TEXT", help="Why; shown to whoever asks.")
@dry_run_option
@pass_session
def stop(session: Session, /, *, reason: str | None, dry_run: bool) -> None:
    """Stop all deletions, at every RSE, within seconds. For one RSE: arriero rse pause RSE --delete."""
    from arriero.registry.deletion_words import StopOrder

    if dry_run:
        session.output.record(session.client.get_deletion_stop().model_dump(mode="json"))
        return
    done = session.client.stop_deletions(StopOrder(reason=reason))
    session.output.done(told(done), done.model_dump(mode="json"))


@command.command("go")
@click.option(
    "--rse", "rse_name", metavar="RSE", help="Only this RSE: forget its failures, and try again now."
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Replace the mark on its storage, whoever has left it there; only when nobody else deletes there.",
)
@dry_run_option
@pass_session
def go(session: Session, /, *, rse_name: str | None, take_over: bool, dry_run: bool) -> None:
    """Let deletions go on: everywhere, or at one RSE that has failed or whose mark was not ours."""
    from arriero.registry.deletion_words import GoOrder

    if take_over and rse_name is None:
        raise click.UsageError("Of which RSE may the mark be replaced? Give --rse.")
    if dry_run:
        found = session.client.list_deletion_sites(rse_name)
        session.output.rows(_SITES, (one.model_dump(mode="json") for one in found))
        return
    done = session.client.let_deletions_go(GoOrder(rse=rse_name, take_over=take_over))
    record = done.model_dump(mode="json")
    if rse_name is None:
        session.output.done(told(done), record)
        return
    session.output.done(f"{rse_name} is looked at now. {told(done)}", {"rse": rse_name, **record})
