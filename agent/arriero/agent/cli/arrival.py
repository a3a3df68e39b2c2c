"""``arriero arrival``: files on their way into a Butler."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.failures import PartialSuccess
from arriero.agent.cli.options import DID, DidName, all_of, dry_run_option
from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.registry.arrival_words import ButlerFile

_STATES = ["pending", "leased", "parked", "ingested", "failed", "released"]


@click.group("arrival")
def command() -> None:
    """Files on their way into a Butler."""


@command.command("list")
@click.option("--butler", help="On their way into this one.")
@click.option("--state", type=click.Choice(_STATES), help="In this state.")
@click.option("--rse", help="From this RSE.")
@click.option("--code", help="With this code: why it failed, or waits.")
@click.option("--scope", help="Of this scope.")
@click.option("--name", metavar="PATTERN", help="Whose names match (* is any text).")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--after", type=click.IntRange(min=0), metavar="ID", help="Go on after this one.")
@pass_session
def list_(session: Session, /, **chosen: Any) -> None:
    """List arrivals: all, or those that all options agree on."""
    columns = [
        Column("id", "ID", Kind.NUMBER),
        Column("butler"),
        Column("scope"),
        Column("name"),
        Column("rse"),
        Column("state"),
        Column("attempt", kind=Kind.NUMBER),
        Column("dataset_id", "DATASET"),
        Column("code"),
        Column("reason"),
        Column("waits_for"),
        Column("not_before", "DUE", Kind.TIME),
        Column("updated_at", "SINCE", Kind.TIME),
    ]
    rows = (arrival.model_dump(mode="json") for arrival in session.client.list_arrivals(**chosen))
    session.output.rows(columns, rows)


@command.command("show")
@click.argument("did", type=DID)
@pass_session
def show(session: Session, /, *, did: DidName) -> None:
    """Show the arrivals of a file, one for each Butler that it belongs in."""
    found = session.client.trace(did.scope, did.name).arrivals
    if not found:
        session.output.nothing(f"{did} is on its way into no Butler.")
        session.output.note(
            f"{did} is on its way into no Butler: it has landed at no RSE that feeds one, or none takes it."
        )
        return
    session.output.records(arrival.model_dump(mode="json") for arrival in found)


_chosen = all_of(
    click.option("--butler", required=True, help="Of this Butler."),
    click.option(
        "--id", "ids", type=click.IntRange(min=1), multiple=True, help="Only this one; may be repeated."
    ),
    click.option("--rse", help="Only from this RSE."),
    click.option("--scope", help="Only of this scope."),
    click.option("--name", metavar="PATTERN", help="Only whose names match (* is any text)."),
    click.option("--code", help="Only with this code, as 'arriero arrival list' shows it."),
)
"""Options that choose arrivals of a Butler; all of them must hold."""


def _change(session: Session, action: str, done: str, *, everything: bool, **chosen: Any) -> None:
    from arriero.registry.arrival_words import ChangeArrivals

    narrowing = ("ids", "rse", "scope", "name", "code", "state")
    if not everything and not any(chosen.get(key) for key in narrowing):
        raise click.UsageError(
            "Say which: --id, --rse, --scope, --name, --code or --state; or --all of the Butler."
        )
    order = ChangeArrivals(action=action, **chosen)
    changed = session.client.change_arrivals(order)
    verb = "Would have" if order.dry_run else "Have"
    record = {"butler": order.butler, "action": action, "changed": changed, "dry_run": order.dry_run}
    session.output.done(f"{verb} {done} {changed} arrivals of {order.butler}.", record)


_ALL = click.option("--all", "everything", is_flag=True, help="All of the Butler.")
_REASON = click.option("--reason", help="Why, for the ledger.")


@command.command("retry")
@_chosen
@click.option(
    "--state", type=click.Choice(["failed", "parked", "pending", "released"]), help="Only in this state."
)
@_ALL
@dry_run_option
@pass_session
def retry(session: Session, /, **chosen: Any) -> None:
    """Have arrivals tried again now, as if for the first time. What was released comes back with --state released."""
    _change(session, "retry", "had tried again", **chosen)


@command.command("park")
@_chosen
@click.option("--state", type=click.Choice(["failed", "pending"]), help="Only in this state.")
@_ALL
@_REASON
@dry_run_option
@pass_session
def park(session: Session, /, **chosen: Any) -> None:
    """Put arrivals aside until 'arriero arrival retry'."""
    _change(session, "park", "parked", **chosen)


@command.command("drop")
@_chosen
@click.option("--state", type=click.Choice(["failed", "parked", "pending"]), help="Only in this state.")
@_ALL
@_REASON
@click.option(
    "--force", is_flag=True, help="Also what the Butler may have: it may then refer to a file that goes."
)
@dry_run_option
@pass_session
def drop(session: Session, /, **chosen: Any) -> None:
    """Leave arrivals out of the Butler for good. What is in it already is let go with 'arriero arrival release'."""
    _change(session, "drop", "left out", **chosen)


@command.command("release")
@click.argument("dids", metavar="[SCOPE:NAME]...", type=DID, nargs=-1)
@_chosen
@_REASON
@click.option("--force", is_flag=True, help="Also members of TAGGED and CALIBRATION collections.")
@dry_run_option
@pass_session
def release(
    session: Session,
    /,
    *,
    dids: tuple[DidName, ...],
    butler: str,
    ids: tuple[int, ...],
    reason: str | None,
    force: bool,
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Take files out of a Butler, so that their replicas may be deleted. The files themselves are not touched.

    Runs where the Butler can be reached; needs ARRIERO_URL and a token bound to the Butler. DIDs may be files, datasets or
    containers. Members of TAGGED collections are kept, unless forced. Interrupted at any moment, do it again.

    \b
    arriero arrival release --butler in2p3 raw:2024-11-08 --dry-run
    arriero arrival release --butler in2p3 --rse IN2P3_RAW_DISK --name 'LSSTComCam/20241108/*'
    """  # noqa: D301 - click's mark for lines that stay as they are
    from arriero.agent.butler_contents import ButlerContents
    from arriero.agent.release import Verdict
    from arriero.agent.release import release as take_out

    if not (dids or ids or any(chosen.values())):
        raise click.UsageError("Say which: SCOPE:NAME, --id, --rse, --scope, --name or --code.")
    known = session.client.butler(butler)
    files = _files(session, butler, dids, ids, chosen)
    counts: dict[str, int] = {}

    def rows(contents: ButlerContents) -> Iterator[dict[str, Any]]:
        for one in take_out(session.client, contents, files, force=force, dry_run=dry_run, reason=reason):
            counts[one.verdict] = counts.get(one.verdict, 0) + 1
            yield {
                "scope": one.file.scope,
                "name": one.file.name,
                "rse": one.file.rse,
                "verdict": one.verdict,
                "datasets": one.datasets,
                "dataset_id": one.file.dataset_id and str(one.file.dataset_id),
                "reason": one.reason,
            }

    columns = [
        Column("scope"),
        Column("name"),
        Column("rse", "RSE"),
        Column("verdict"),
        Column("datasets", kind=Kind.NUMBER),
        Column("reason"),
    ]
    with ButlerContents(known.uri, writeable=not dry_run) as contents:
        session.output.rows(columns, rows(contents))
    said = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in sorted(counts.items()))
    session.output.note(f"{'Would be: ' if dry_run else ''}{said or 'nothing to release'}.")
    left = counts.get(Verdict.KEPT, 0) + counts.get(Verdict.CHANGED, 0)
    if left and not dry_run:
        raise PartialSuccess(f"{left} arrivals are not released; the reasons are above.")


def _files(
    session: Session, butler: str, dids: tuple[DidName, ...], ids: tuple[int, ...], chosen: dict[str, Any]
) -> "Iterator[ButlerFile]":
    """The files that the options choose, each once as far as a DID names it once."""
    for id_ in ids:
        found = session.client.butler_files(butler, after=id_ - 1, limit=1, **chosen)
        yield from (file for file in found if file.id == id_)
    for did in dids:
        yield from session.client.butler_files(butler, dataset=str(did), **chosen)
    if not ids and not dids:
        yield from session.client.butler_files(butler, state="ingested", **chosen)


@command.command("completeness")
@click.option("--butler", required=True, help="In this Butler.")
@click.option("--instrument", required=True, help="Of this instrument.")
@click.option(
    "--day-obs", required=True, type=click.IntRange(19000101, 29991231), help="Of this day, as 20241108."
)
@click.option("--incomplete", is_flag=True, help="Only what is not whole.")
@pass_session
def completeness(
    session: Session, /, *, butler: str, instrument: str, day_obs: int, incomplete: bool
) -> None:
    """Show which exposures of a day are whole in a Butler, and what of the others is missing and why.

    What is there is asked of the Butler, why something is not of the ledger: 'not here' has not landed at the site.
    """
    from arriero.agent.butler_contents import ButlerContents
    from arriero.agent.completeness import as_record
    from arriero.agent.completeness import completeness as compared
    from arriero.agent.ingest.instrument import load_instrument

    known = session.client.butler(butler)
    declared = load_instrument(instrument)
    if not declared.complete_detectors:
        raise click.UsageError(
            f"The declaration of {declared.name} does not say which detectors make an exposure whole (complete_detectors)."
        )
    raw = declared.dataset_type
    with ButlerContents(known.uri) as contents:
        present = contents.detectors(raw.name, raw.run, instrument=declared.name, day_obs=day_obs)
    files = session.client.butler_files(butler, name=f"*{day_obs}*")
    found = [one for one in compared(declared, present, files) if not (incomplete and one.complete)]
    columns = [
        Column("obs_id", "OBSERVATION"),
        Column("exposure"),
        Column("there", kind=Kind.NUMBER),
        Column("expected", kind=Kind.NUMBER),
        Column("said", "DETECTORS"),
    ]
    session.output.rows(columns, map(as_record, found))
