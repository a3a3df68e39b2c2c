"""``arriero rse export|import``: the configuration of all RSEs as one JSON document."""

import json
from typing import Any, TextIO

import click

from arriero.agent.cli.options import dry_run_option
from arriero.agent.cli.session import Session, pass_session

_WAYS = click.Choice(["append", "edit", "hard"])


@click.command("export")
@click.option("--to", "target", type=click.File("w", lazy=True), default="-", help="File to write.")
@pass_session
def export(session: Session, /, *, target: TextIO) -> None:
    """Write settings, attributes, protocols, limits and distances of all RSEs as JSON."""
    json.dump(session.client.export_rses(), target, indent=2, sort_keys=True, ensure_ascii=False)
    target.write("\n")


@click.command("import")
@click.argument("document", type=click.File("r"))
@click.option(
    "--attributes", type=_WAYS, default="edit", show_default=True, help="hard: remove what is not named."
)
@click.option(
    "--protocols", type=_WAYS, default="edit", show_default=True, help="hard: remove what is not named."
)
@dry_run_option
@pass_session
def import_(session: Session, /, *, document: TextIO, attributes: str, protocols: str, dry_run: bool) -> None:
    """Bring in what an export has written, whole or not at all; RSEs themselves are not removed."""
    try:
        read: Any = json.load(document)
    except ValueError as error:
        raise click.UsageError(f"{document.name} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise click.UsageError(f"{document.name} is not a JSON object")
    if dry_run:
        known = session.client.export_rses()["rses"]
        wanted = read.get("rses") or {}
        session.output.record(
            {"new": sorted(set(wanted) - set(known)), "known": sorted(set(wanted) & set(known))}
        )
        return
    done = session.client.import_rses(read, attributes=attributes, protocols=protocols)
    session.output.done(
        f"Imported {done['rses']} RSEs ({done['new_rses']} new) and {done['distances']} distances.", done
    )
