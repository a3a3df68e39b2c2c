"""``arriero did``: data identifiers."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from arriero.agent.cli.files import read_lines
from arriero.agent.cli.options import DID, DidName, dry_run_option
from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

_MEMBERS = [
    Column("scope"),
    Column("name"),
    Column("type"),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("adler32"),
]


@click.group("did")
def command() -> None:
    """Files, datasets, containers and what they hold."""


@command.command("add")
@click.argument("did", type=DID)
@click.option(
    "--type",
    "did_type",
    type=click.Choice(["dataset", "container"]),
    default="dataset",
    show_default=True,
    help="What it is to hold: files, or datasets and containers.",
)
@click.option("--monotonic", is_flag=True, help="What is attached stays attached.")
@click.option("--lifetime", type=click.IntRange(min=1), metavar="SECONDS", help="Until it expires.")
@pass_session
def add(session: Session, /, *, did: DidName, did_type: str, monotonic: bool, lifetime: int | None) -> None:
    """Add a dataset or container. Files are added with 'arriero replica add'."""
    session.client.add_did(did.scope, did.name, did_type.upper(), monotonic=monotonic, lifetime=lifetime)
    session.output.done(f"Added {did_type} {did}.", {**did.as_dict(), "type": did_type.upper()})


@command.command("list")
@click.argument("pattern", metavar="SCOPE[:PATTERN]")
@click.option(
    "--type",
    "did_type",
    type=click.Choice(["all", "collection", "dataset", "container", "file"]),
    default="collection",
    show_default=True,
    help="Which of them.",
)
@click.option("--short", is_flag=True, help="Only scope:name, one a line.")
@pass_session
def list_(session: Session, /, *, pattern: str, did_type: str, short: bool) -> None:
    """List the DIDs of a scope whose names match a pattern (* is any text)."""
    scope, _, name = pattern.partition(":")
    found = _records(scope, session.client.list_dids(scope, name or "*", did_type=did_type))
    if short:
        session.output.lines("did", (f"{row['scope']}:{row['name']}" for row in found))
        return
    columns = [
        Column("scope"),
        Column("name"),
        Column("did_type", "TYPE"),
        Column("bytes", "SIZE", Kind.BYTES),
        Column("length", "FILES", Kind.NUMBER),
    ]
    session.output.rows(columns, found)


def _records(scope: str, found: Iterable[dict[str, Any] | str]) -> Iterator[dict[str, Any]]:
    for item in found:
        yield {"scope": scope, "name": item} if isinstance(item, str) else item


@command.command("show")
@click.argument("dids", type=DID, nargs=-1, required=True)
@pass_session
def show(session: Session, /, *, dids: tuple[DidName, ...]) -> None:
    """Show DIDs, with sizes and numbers of files over all that is below them."""
    session.output.records([session.client.get_did(did.scope, did.name, totals=True) for did in dids])


@command.command("update")
@click.argument("dids", type=DID, nargs=-1, required=True)
@click.option("--close", "change", flag_value="close", help="Nothing more can be attached or detached.")
@click.option("--open", "change", flag_value="open", help="Open again (administrators).")
@dry_run_option
@pass_session
def update(session: Session, /, *, dids: tuple[DidName, ...], change: str | None, dry_run: bool) -> None:
    """Close or open datasets and containers."""
    if change is None:
        raise click.UsageError("Nothing to update: give --close or --open.")
    for did in dids:
        record = {**did.as_dict(), "open": change == "open"}
        if dry_run:
            session.output.done(f"Would {change} {did}.", record)
            continue
        session.client.set_status(did.scope, did.name, is_open=change == "open")
        session.output.done(f"{did} is {'open' if change == 'open' else 'closed'}.", record)


@command.command("lost")
@click.option("--scope", help="Only of this scope.")
@click.option("--accepted", is_flag=True, help="Also those whose loss was accepted.")
@pass_session
def lost(session: Session, /, *, scope: str | None, accepted: bool) -> None:
    """List lost files: every copy that is known of them is bad."""
    columns = [
        Column("scope"),
        Column("name"),
        Column("bytes", "SIZE", Kind.BYTES),
        Column("lost_at", "SINCE", Kind.TIME),
        Column("reason"),
    ]
    if accepted:
        columns += [Column("accepted_by", "ACCEPTED BY"), Column("accepted_reason", "BECAUSE")]
    session.output.rows(columns, session.client.list_losses(scope=scope, accepted=accepted))


@command.command("accept-loss")
@click.argument("dids", type=DID, nargs=-1, required=True)
@click.option("--reason", help="Why; it is kept with the files.")
@dry_run_option
@pass_session
def accept_loss(session: Session, /, *, dids: tuple[DidName, ...], reason: str | None, dry_run: bool) -> None:
    """Give lost files up: they leave their datasets, and rules on them end. Nothing is deleted."""
    given = [did.as_dict() for did in dids]
    if dry_run:
        for did in dids:
            session.output.done(f"Would accept the loss of {did}.", did.as_dict())
        return
    session.client.accept_losses(given, reason=reason)
    session.output.done(f"The loss of {len(given)} files is accepted.", {"accepted": len(given)})


@command.group("content")
def content() -> None:
    """What datasets and containers hold."""


@content.command("add")
@click.argument("dids", nargs=-1, metavar="SCOPE:NAME...")
@click.option("-to", "--to-did", "--to", "to_did", type=DID, required=True, help="Where to attach them.")
@click.option(
    "-f", "--from-file", is_flag=True, help="The arguments are files with one DID a line (- is stdin)."
)
@pass_session
def add_content(session: Session, /, *, dids: tuple[str, ...], to_did: DidName, from_file: bool) -> None:
    """Attach DIDs to a dataset or container; what is attached already stays so."""
    members = _given(dids, from_file=from_file)
    sent = session.client.attach_dids(to_did.scope, to_did.name, [did.as_dict() for did in members])
    session.output.done(f"Attached {sent} to {to_did}.", {**to_did.as_dict(), "attached": sent})


@content.command("remove")
@click.argument("dids", nargs=-1, metavar="SCOPE:NAME...")
@click.option("-f", "--from-did", "--from", "from_did", type=DID, required=True, help="Where to detach them.")
@pass_session
def remove_content(session: Session, /, *, dids: tuple[str, ...], from_did: DidName) -> None:
    """Detach DIDs from a dataset or container."""
    members = _given(dids, from_file=False)
    session.client.detach_dids(from_did.scope, from_did.name, [did.as_dict() for did in members])
    record = {**from_did.as_dict(), "detached": len(members)}
    session.output.done(f"Detached {len(members)} from {from_did}.", record)


@content.command("list")
@click.argument("dids", type=DID, nargs=-1, required=True)
@click.option("--short", is_flag=True, help="Only scope:name, one a line.")
@pass_session
def list_content(session: Session, /, *, dids: tuple[DidName, ...], short: bool) -> None:
    """List what datasets and containers hold."""
    found = (member for did in dids for member in session.client.list_content(did.scope, did.name))
    if short:
        session.output.lines("did", (f"{row['scope']}:{row['name']}" for row in found))
    else:
        session.output.rows(_MEMBERS, found)


def _given(arguments: tuple[str, ...], *, from_file: bool) -> list[DidName]:
    texts = [line for path in arguments for line in read_lines(Path(path))] if from_file else list(arguments)
    if not texts:
        raise click.UsageError("No DIDs were given.")
    return [DID.convert(text, None, click.get_current_context()) for text in texts]
