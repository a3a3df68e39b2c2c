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
@click.option("--transfer", type=click.Choice(["direct"]), default="direct", show_default=True)
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
@click.option("--instrument", required=True, help="Instrument to register in it.")
@click.option(
    "--registry-db", metavar="URL", help="PostgreSQL database for its registry [default: SQLite in it]."
)
@click.option("--namespace", help="Schema in that database.")
@pass_session
def create(
    session: Session, /, *, uri: str, instrument: str, registry_db: str | None, namespace: str | None
) -> None:
    """Create a Butler repository on this machine, or complete one. Tell the registry of it with 'butler add'."""
    from arriero.agent.ingest.butler_repository import create_repository

    made = create_repository(uri, instrument, registry_db=registry_db, namespace=namespace)
    session.output.value("uri", made, {"uri": made, "instrument": instrument})


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
