"""``arriero butler``: Butler repositories and what belongs in them."""

from typing import Any

import click

from arriero.agent.cli.options import dry_run_option
from arriero.agent.cli.output import Column
from arriero.agent.cli.session import Session, pass_session


@click.group("butler")
def command() -> None:
    """Butler repositories and what belongs in them."""


@command.command("add")
@click.argument("name")
@click.option("--uri", required=True, help="The repository, as the site's agent opens it.")
@click.option(
    "--rse",
    "rses",
    multiple=True,
    required=True,
    metavar="RSE[=URI_PREFIX]",
    help="RSE that feeds it; the prefix takes the place of the RSE's own in the URIs that readers open.",
)
@click.option(
    "--select",
    "selections",
    multiple=True,
    required=True,
    metavar="SCOPE[:PATTERN]",
    help="Files that belong in it (* is any text).",
)
@click.option(
    "--instrument", "instruments", multiple=True, help="Instrument whose declarations describe its files."
)
@click.option(
    "--transfer",
    type=click.Choice(["direct", "link", "symlink", "relsymlink", "hardlink", "copy", "move"]),
    default="direct",
    show_default=True,
    help="In place, or into the Butler's own datastore; move: from staging areas, where they are deleted afterwards.",
)
@dry_run_option
@pass_session
def add(
    session: Session, /, *, rses: tuple[str, ...], selections: tuple[str, ...], dry_run: bool, **rest: Any
) -> None:
    """Add a Butler; what is at its RSEs already is ingested too. Safe to repeat.

    \b
    arriero butler add in2p3 --uri /sps/lsst/butler/main --rse IN2P3_RAW_DISK=file:///sps/lsst/raw \\
        --select 'raw:LSSTComCam/*.fits' --instrument LSSTComCam
    """  # noqa: D301 - click's mark for lines that stay as they are
    from arriero.registry.models import ButlerRse, ButlerSelection, NewButler

    butler = NewButler(
        rses=tuple(ButlerRse(rse=rse, uri_prefix=prefix or None) for rse, prefix in map(_split_rse, rses)),
        selections=tuple(
            ButlerSelection(scope=scope, pattern=pattern or "*")
            for scope, pattern in map(_split_did, selections)
        ),
        **rest,
    )
    if dry_run:
        session.output.record(butler.model_dump(mode="json"))
        return
    session.client.add_butler(butler)
    session.output.done(f"Added Butler {butler.name}.", butler.model_dump(mode="json"))


def _split_rse(text: str) -> tuple[str, str]:
    rse, _, prefix = text.partition("=")
    return rse, prefix


def _split_did(text: str) -> tuple[str, str]:
    scope, _, pattern = text.partition(":")
    return scope, pattern


@command.command("create")
@click.argument("uri", metavar="REPOSITORY")
@click.option(
    "--instrument",
    "instruments",
    required=True,
    multiple=True,
    help="Instrument to register in it, by name or by the path of its declaration; the first one's universe counts.",
)
@click.option(
    "--registry-db", metavar="URL", help="PostgreSQL database for its registry [default: SQLite in it]."
)
@click.option("--namespace", help="Schema in that database.")
@click.option(
    "--datastore",
    "datastore_root",
    metavar="URI",
    help="Where files go that are not ingested in place [default: the repository].",
)
@click.option(
    "--seed-config",
    type=click.Path(exists=True, dir_okay=False),
    help="Seed configuration, as 'butler create' takes it; other options go before what it says.",
)
@pass_session
def create(session: Session, /, *, uri: str, instruments: tuple[str, ...], **rest: str | None) -> None:
    """Create a Butler repository, or complete one. Tell the registry of it with 'butler add'.

    Registers the instruments with their detectors and filters, dataset types, runs and formatters. What a repository has
    already is kept.

    \b
    arriero butler create davs://door.example.org:2880/butler/ccms1 --instrument LSSTComCam --seed-config seed.yaml
    """  # noqa: D301 - click's mark for lines that stay as they are
    from arriero.agent.ingest.butler_repository import create_repository

    made = uri
    for instrument in instruments:
        made = create_repository(uri, instrument, **rest)
    session.output.value("uri", made, {"uri": made, "instrument": ", ".join(instruments)})


@command.command("list")
@pass_session
def list_(session: Session) -> None:
    """List Butlers."""
    columns = [
        Column("name"),
        Column("uri", "URI"),
        Column("transfer"),
        Column("instruments"),
        Column("rses", "RSES"),
    ]
    rows = (butler.model_dump(mode="json") for butler in session.client.list_butlers())
    session.output.rows(columns, rows)


@command.command("show")
@click.argument("name")
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """Show a Butler."""
    session.output.record(session.client.butler(name).model_dump(mode="json"))


@command.command("status")
@click.argument("name")
@click.option("--offline", is_flag=True, help="Only the ledger: the repository is not opened.")
@pass_session
def status(session: Session, /, *, name: str, offline: bool) -> None:
    """Show how a Butler stands: reachable, last ingest, lag, and what waits or has failed for which reason."""
    from arriero.registry.states import ArrivalState

    ledger = session.client.butler_status(name)
    reach: dict[str, Any] = {} if offline else _reach(ledger.uri)

    def because(state: ArrivalState) -> dict[str, int]:
        return {one.code or "-": one.files for one in ledger.reasons if one.state is state}

    shown = ledger.model_dump(mode="json")
    record = {
        "name": ledger.name,
        "uri": ledger.uri,
        **reach,
        **{str(state): ledger.states.get(state, 0) for state in ArrivalState},
        "last_ingest": shown["last_ingest"],
        "oldest_waiting": shown["oldest_waiting"],
        "lag_p50_s": ledger.lag_p50_s,
        "lag_p95_s": ledger.lag_p95_s,
        "lag_files": ledger.lag_files,
        "parked_by_reason": because(ArrivalState.PARKED),
        "failed_by_reason": because(ArrivalState.FAILED),
        "pending_by_reason": because(ArrivalState.PENDING),
    }
    session.output.record(record, sizes=frozenset())


def _reach(uri: str) -> dict[str, Any]:
    """Whether the repository can be opened from here, and what it is."""
    from arriero.agent.butler_contents import ButlerContents
    from arriero.agent.ingest.errors import IngestError

    try:
        with ButlerContents(uri) as contents:
            return {"reachable": True, "universe": contents.universe}
    except IngestError as error:
        return {"reachable": False, "universe": None, "why": str(error)}
