"""``arriero replica``: where files are."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.failures import PartialSuccess
from arriero.agent.cli.files import read_lines
from arriero.agent.cli.options import DID, DidName, dry_run_option, rses_option
from arriero.agent.cli.output import Column, Format, Kind, human_bytes
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.agent.registration import Registered, Registration
    from arriero.agent.storage_files import StoredFile
    from arriero.registry.deletion_words import DeleteOrder

_FAILURES_SHOWN = 10


@click.group("replica")
def command() -> None:
    """Where files are; register files that are there."""


@command.command("add")
@click.argument("patterns", nargs=-1, metavar="NAME|FOLDER|PATTERN...")
@click.option("--rse", "rse_name", required=True, metavar="RSE", help="Where the files are.")
@click.option("--scope", help="Scope of their names [default: that of --dataset].")
@click.option("--dataset", type=DID, help="Attach them to this dataset; made when it is missing.")
@click.option(
    "--from-file",
    type=click.Path(path_type=Path),
    help="File with a name, folder or pattern a line (- is stdin).",
)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML: ca_bundle and token_file for each RSE.",
)
@click.option("--scheme", help="Read with this protocol of the RSE [default: its first].")
@click.option(
    "--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Files read at once."
)
@dry_run_option
@pass_session
def add(session: Session, /, *, patterns: tuple[str, ...], from_file: Path | None, **order: Any) -> None:
    """Register files that lie at an RSE, with the sizes and checksums that the storage gives. Safe to repeat.

    Names are those in the catalogue: at an RSE with the algorithm lsst_butler the path below its prefix, with
    identity the path below the scope's folder. Folders stand for all below them; * and ? match within a folder,
    ** across folders.

    \b
    arriero replica add --rse SLAC_RAW_DISK --dataset raw:Dataset/LSSTComCam/raw/20241108 LSSTComCam/20241108
    """  # noqa: D301 - click's mark for lines that stay as they are
    wanted = [*patterns, *(read_lines(from_file) if from_file is not None else [])]
    if not wanted:
        raise click.UsageError("No names: give names, folders or patterns, or --from-file.")
    dataset: DidName | None = order["dataset"]
    if order["scope"] is None and dataset is None:
        raise click.UsageError("Whose names? Give --scope or --dataset.")
    _register(session, wanted, order)


def _register(session: Session, wanted: list[str], order: dict[str, Any]) -> None:
    """Find the files and register them, over connections that are given up at the end."""
    from arriero.rse.pool import ProtocolPool

    pool = ProtocolPool()
    try:
        registration, files = _prepared(session, pool, wanted, order)
        if order["dry_run"]:
            columns = [Column("scope"), Column("name"), Column("bytes", "SIZE", Kind.BYTES), Column("path")]
            scope = registration.layout.scope
            session.output.rows(
                columns,
                (
                    {"scope": scope, "name": file.name, "bytes": file.bytes, "path": file.path}
                    for file in files
                ),
            )
            return
        total = sum(file.bytes for file in files)
        with session.output.progress("Reading", total, kind=Kind.BYTES) as advance:
            result = registration.run(files, on_digest=lambda file: advance(file.bytes))
        _tell(session, order["rse_name"], result)
    finally:
        pool.close()


def _prepared(
    session: Session, pool: Any, wanted: list[str], order: dict[str, Any]
) -> tuple["Registration", list["StoredFile"]]:
    from arriero.agent.registration import Registration
    from arriero.agent.storage_files import (
        DEFAULT_ALGORITHM,
        Layout,
        endpoint_to_read,
        find_files,
        read_credentials,
    )

    rse_name, dataset = order["rse_name"], order["dataset"]
    rse = session.client.get_rse(rse_name)
    algorithm: str | None = None
    if rse.get("deterministic", True):
        attributes = session.client.list_rse_attributes(rse_name)
        algorithm = str(attributes.get("lfn2pfn_algorithm") or DEFAULT_ALGORITHM)
    credentials = read_credentials(order["credentials"], rse_name)
    endpoint = endpoint_to_read(rse_name, rse.get("protocols") or [], credentials, order["scheme"])
    protocol = pool.get(endpoint)
    layout = Layout(order["scope"] or dataset.scope, algorithm)
    files = find_files(protocol, layout, wanted, threads=order["threads"])
    target = None if dataset is None else (dataset.scope, dataset.name)
    return Registration(session.client, protocol, rse_name, layout, target, order["threads"]), files


def _tell(session: Session, rse: str, result: "Registered") -> None:
    from arriero.agent.registration import worst

    for name, error in list(result.failures.items())[:_FAILURES_SHOWN]:
        session.output.note(f"Not registered: {name}: {error}")
    if len(result.failures) > _FAILURES_SHOWN:
        session.output.note(f"... and {len(result.failures) - _FAILURES_SHOWN} more.")
    if result.failures and not (result.registered or result.known):
        raise worst(list(result.failures.values()))
    session.output.done(
        f"Registered {result.registered} files ({human_bytes(result.bytes)}) at {rse}; "
        f"{result.known} were known, {len(result.failures)} failed.",
        {
            "rse": rse,
            "found": result.found,
            "registered": result.registered,
            "known": result.known,
            "attached": result.attached,
            "failed": len(result.failures),
            "bytes": result.bytes,
        },
    )
    if result.failures:
        raise PartialSuccess(
            f"{len(result.failures)} of {result.found} files were not registered; repair them and run it again."
        )
    if not result.registered:
        session.output.nothing("Everything was registered already.")


@command.command("list")
@click.argument("dids", nargs=-1, required=True, metavar="[file] SCOPE:NAME...")
@rses_option(help_text="Only at the RSEs of this expression.")
@click.option("--all-states", is_flag=True, help="Also replicas that are not AVAILABLE.")
@click.option("--protocols", metavar="SCHEME[,SCHEME]", help="Only PFNs with these schemes.")
@click.option("--pfns", is_flag=True, help="Only the PFNs, one a line.")
@pass_session
def list_(
    session: Session,
    /,
    *,
    dids: tuple[str, ...],
    rses: str | None,
    all_states: bool,
    protocols: str | None,
    pfns: bool,
) -> None:
    """List the replicas of files, or of all files of datasets and containers. The word `file` is Rucio's."""
    given = dids[1:] if dids[0] == "file" else dids
    if not given:
        raise click.UsageError("No DIDs were given.")
    context = click.get_current_context()
    wanted = [DID.convert(text, None, context).as_dict() for text in given]
    for did in wanted:
        # a list leaves out what is not there
        session.client.get_did(did["scope"], did["name"])
    schemes = protocols.split(",") if protocols else None
    found = session.client.list_replicas(wanted, rse_expression=rses, schemes=schemes, all_states=all_states)
    if pfns:
        session.output.lines("pfn", (str(row["pfn"]) for row in _flat(found) if row["pfn"]))
        return
    columns = [
        Column("scope"),
        Column("name"),
        Column("bytes", "SIZE", Kind.BYTES),
        Column("adler32"),
        Column("rse", "RSE"),
        Column("state"),
        Column("pfn", "PFN"),
    ]
    session.output.rows(columns, _flat(found))


@command.command("removable")
@click.option("--rse", "rse_name", required=True, metavar="RSE", help="Where.")
@pass_session
def removable(session: Session, /, *, rse_name: str) -> None:
    """List the replicas that deletion may take: those that go at once first, then the least read. Nothing is deleted."""
    columns = [
        Column("scope"),
        Column("name"),
        Column("bytes", "SIZE", Kind.BYTES),
        Column("state"),
        Column("when"),
        Column("why"),
        Column("tombstone", "SINCE", Kind.TIME),
    ]
    session.output.rows(columns, session.client.list_removable(rse_name))


_JUDGED = [
    Column("scope"),
    Column("name"),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("state"),
    Column("verdict"),
    Column("cause"),
    Column("code"),
    Column("reason"),
]


@command.command("delete")
@click.argument("dids", nargs=-1, type=DID, metavar="SCOPE:NAME...")
@click.option("--rse", "rse_name", required=True, metavar="RSE", help="Where.")
@click.option("--unlocked", is_flag=True, help="Without DIDs: everything there that no rule holds.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit.")
@dry_run_option
@pass_session
def delete(
    session: Session,
    /,
    *,
    dids: tuple[DidName, ...],
    rse_name: str,
    unlocked: bool,
    reason: str | None,
    dry_run: bool,
) -> None:
    """Have the replicas of files at an RSE deleted, bytes and all; a dataset stands for all of its files.

    Nothing goes that a rule or a Butler holds, that a copy is read from, or without another verified copy elsewhere.
    --dry-run shows what would go and what stays, and why; without DIDs, of all that deletion looks at there.

    \b
    arriero replica delete --rse IN2P3_RAW_DISK raw:Dataset/LSSTComCam/raw/20241108 --dry-run
    """  # noqa: D301 - click's mark for lines that stay as they are
    from arriero.registry.deletion_words import DeletedDid, DeleteOrder, PurgeOrder

    if dids and unlocked:
        raise click.UsageError("Either DIDs, or --unlocked for all that no rule holds.")
    chosen = [DeletedDid(scope=did.scope, name=did.name) for did in dids] or None
    if dry_run:
        order = DeleteOrder(rse=rse_name, dids=chosen, reason=reason)
        _show_plan(session, order, everything=unlocked)
        return
    if chosen is None and not unlocked:
        raise click.UsageError(
            "Which? Name files or datasets, or give --unlocked for all that no rule holds there; --dry-run shows what would go."
        )
    done = session.client.purge_replicas(
        PurgeOrder(rse=rse_name, dids=chosen, unlocked=unlocked, reason=reason)
    )
    kept = f" {done.kept} stay: --dry-run says why." if done.kept else ""
    session.output.done(
        f"{done.files} replicas at {rse_name} ({human_bytes(done.bytes)}) are deleted now.{kept}",
        {"rse": rse_name, **done.model_dump(mode="json")},
    )
    if done.kept and not done.files:
        session.output.nothing("Nothing of it may be deleted.")


def _show_plan(session: Session, order: "DeleteOrder", *, everything: bool) -> None:
    """Show what would become of replicas, and how many of each there are."""
    totals: dict[str, list[int]] = {}

    def rows() -> Iterator[dict[str, Any]]:
        for one in session.client.plan_deletions(order):
            row = one.model_dump(mode="json")
            if everything and row["verdict"] == "when_needed":
                row |= {"verdict": "delete", "cause": "purge"}
            total = totals.setdefault(row["verdict"], [0, 0])
            total[0] += 1
            total[1] += one.bytes
            yield row

    session.output.rows(_JUDGED, rows())
    words = {"delete": "would be deleted", "when_needed": "go when space is needed", "keep": "stay"}
    told = [
        f"{totals[verdict][0]} ({human_bytes(totals[verdict][1])}) {said}"
        for verdict, said in words.items()
        if verdict in totals
    ]
    if told and session.output.format is Format.TABLE:
        session.output.note(", ".join(told) + ".")


def _flat(found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each replica and PFN, of Rucio's one object for each file."""
    for file in found:
        common = {key: file.get(key) for key in ("scope", "name", "bytes", "adler32")}
        states = file.get("states") or {}
        for rse, pfns in sorted((file.get("rses") or {}).items()):
            for pfn in pfns or [None]:
                yield {**common, "rse": rse, "state": states.get(rse), "pfn": pfn}
