"""``arriero audit``: what is at the storages, held against the catalogue."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from typing_extensions import override

from arriero.agent.cli.failures import PartialSuccess
from arriero.agent.cli.options import dry_run_option
from arriero.agent.cli.output import Column, Format, Kind
from arriero.agent.cli.session import Session, pass_session
from arriero.agent.errors import AgentError

if TYPE_CHECKING:
    from arriero.rse.pool import ProtocolPool
    from arriero.rse.protocol import StorageProtocol

_AUDITS = [
    Column("id", kind=Kind.NUMBER),
    Column("rse"),
    Column("source"),
    Column("state"),
    Column("observed_at", "OF", Kind.TIME),
    Column("lines", kind=Kind.NUMBER),
    Column("judged", "REPLICAS", Kind.NUMBER),
    Column("missing", kind=Kind.NUMBER),
    Column("dark", kind=Kind.NUMBER),
    Column("wrong_size", kind=Kind.NUMBER),
    Column("wrong_checksum", kind=Kind.NUMBER),
    Column("declared", "DECLARED BAD", Kind.NUMBER),
    Column("reason"),
]
_FINDINGS = [
    Column("id", kind=Kind.NUMBER),
    Column("rse"),
    Column("kind"),
    Column("state"),
    Column("scope"),
    Column("name"),
    Column("path"),
    Column("bytes", kind=Kind.NUMBER),
    Column("catalogue_bytes", "CATALOGUE", Kind.NUMBER),
    Column("adler32"),
    Column("catalogue_adler32", "CATALOGUE"),
    Column("times", kind=Kind.NUMBER),
    Column("first_seen_at", "FIRST", Kind.TIME),
    Column("last_seen_at", "LAST", Kind.TIME),
    Column("audit", kind=Kind.NUMBER),
    Column("reason"),
]
_KINDS = click.Choice(["missing", "dark", "wrong_size", "wrong_checksum"], case_sensitive=False)
_STATES = click.Choice(["seen", "confirmed", "declared", "suspected"], case_sensitive=False)
_FAILURES_SHOWN = 10


class AuditHeld(AgentError):
    """An audit found more than can be believed, and counts for nothing."""

    code: ClassVar[str] = "audit_held"
    exit_code: ClassVar[int] = 7


class _AuditGroup(click.Group):
    """Takes the name of an RSE for `run` and that name."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group("audit", cls=_AuditGroup)
def command() -> None:
    """What is at the storages, held against the catalogue.

    \b
    arriero audit SLAC_RAW_DISK --dump dump_20261121.csv.gz
    arriero audit SLAC_RAW_DISK --walk
    """  # noqa: D301 - click's mark for lines that stay as they are


def _instant(_ctx: click.Context, _param: click.Parameter, value: datetime | None) -> datetime | None:
    return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)


def _storage_options(function: Any) -> Any:
    for option in (
        click.option("--scheme", help="Use this protocol of the RSE [default: its first to read]."),
        click.option(
            "--credentials",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="YAML: ca_bundle and token_file for each RSE.",
        ),
    ):
        function = option(function)
    return function


@command.command("run")
@click.argument("rse_name", metavar="RSE")
@click.option(
    "--dump",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="CSV with path, bytes and adler32 of a file a line, also gzipped (- is stdin).",
)
@click.option("--walk", is_flag=True, help="List the storage itself, from here.")
@click.option(
    "--date",
    type=click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]),
    callback=_instant,
    help="When the making of the dump began, UTC [default: the day in its name, or the time of the file].",
)
@click.option("--strip", default="", metavar="PREFIX", help="What the paths of the dump begin with.")
@click.option(
    "--resume", type=click.IntRange(min=1), metavar="ID", help="Go on with an audit that broke off."
)
@click.option(
    "--brake",
    type=click.FloatRange(0, 1),
    help="Part that may be missing, wrong or dark, instead of the setting audit_brake_share.",
)
@click.option(
    "--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Folders listed at once."
)
@click.option(
    "--per-second", type=click.FloatRange(min=0), default=0.0, help="Folders listed in a second at most."
)
@_storage_options
@dry_run_option
@pass_session
def run(session: Session, /, *, rse_name: str, dump: Path | None, walk: bool, **order: Any) -> None:
    """Compare what a dump or a walk says is at an RSE with the catalogue.

    Finds replicas that are missing or of another size or checksum, and dark files: of which the catalogue does not know.
    What has changed shortly before the moment of the dump, or since, is not judged. The first time they are only noted; when
    an audit a day later finds the same (audit_confirm_s), replicas are declared bad, and made again from a good copy.
    Dark files are never touched, but by `arriero audit quarantine`. Ends with 7 when so much is wrong that it cannot be true.
    """
    if (dump is None) == (not walk):
        raise click.UsageError("Give either --dump FILE or --walk.")
    if walk and (order["date"] is not None or order["strip"]):
        raise click.UsageError("--date and --strip go with --dump.")
    begun = _begin(session, rse_name, dump, order)
    try:
        passed_over = _send(session, rse_name, begun, dump, order)
    except BaseException:
        session.output.note(f"Not finished: go on with --resume {begun['id']}.")
        raise
    if passed_over:
        session.output.note(passed_over)
    shown = session.client.compare_audit(begun["id"], brake=order["brake"], dry_run=order["dry_run"])
    _tell(session, shown)


def _begin(session: Session, rse_name: str, dump: Path | None, order: Mapping[str, Any]) -> dict[str, Any]:
    from arriero.agent.storage_dump import Dump

    if order["resume"] is not None:
        begun = session.client.resume_audit(order["resume"])
        if begun["rse"] != rse_name:
            raise click.UsageError(f"Audit {begun['id']} is of {begun['rse']}.")
        return begun
    if dump is None:
        return session.client.begin_audit(rse_name, "WALK")
    date = order["date"] or Dump(dump).date()
    if date is None:
        raise click.UsageError("When was it made? Give --date.")
    return session.client.begin_audit(rse_name, "DUMP", date)


def _send(
    session: Session, rse_name: str, begun: dict[str, Any], dump: Path | None, order: Mapping[str, Any]
) -> str | None:
    """Send the lines; give what there is to tell of those that were passed over."""
    from arriero.agent.storage_audit import Upload
    from arriero.agent.storage_dump import Dump
    from arriero.agent.storage_walk import Walk
    from arriero.rse.pool import ProtocolPool

    with session.output.progress("Reading", None) as advance:
        upload = Upload(session.client, begun, advance)
        if dump is not None:
            read = Dump(dump, order["strip"])
            upload.send_dump(read)
            return (
                f"Passed over {read.passed_over} lines that do not begin with it."
                if read.passed_over
                else None
            )
        pool = ProtocolPool()
        try:
            walk = Walk(
                _protocol(session, pool, rse_name, order),
                threads=order["threads"],
                per_second=order["per_second"],
                after=begun["cursor"],
            )
            upload.send_walk(walk)
        finally:
            pool.close()
    return f"Passed over {walk.unusable} names that cannot be those of files." if walk.unusable else None


def _protocol(
    session: Session, pool: "ProtocolPool", rse_name: str, order: Mapping[str, Any]
) -> "StorageProtocol":
    from arriero.agent.storage_files import endpoint_to_read, read_credentials

    rse = session.client.get_rse(rse_name)
    credentials = read_credentials(order["credentials"], rse_name)
    return pool.get(endpoint_to_read(rse_name, rse.get("protocols") or [], credentials, order["scheme"]))


def _tell(session: Session, shown: Mapping[str, Any]) -> None:
    session.output.rows(_AUDITS, [shown])
    if shown["state"] == "HELD":
        raise AuditHeld(f"Audit {shown['id']} of {shown['rse']} counts for nothing: {shown['reason']}")
    found = sum(shown[what] or 0 for what in ("missing", "dark", "wrong_size", "wrong_checksum"))
    if found and session.output.format is Format.TABLE:
        session.output.note(f"See which: arriero audit findings --rse {shown['rse']}")


@command.command("list")
@click.option("--rse", "rse_name", metavar="RSE", help="Only of this one.")
@pass_session
def list_(session: Session, /, *, rse_name: str | None) -> None:
    """List audits, the latest first."""
    session.output.rows(_AUDITS, session.client.list_audits(rse_name))


@command.command("show")
@click.argument("audit_id", metavar="ID", type=click.IntRange(min=1))
@pass_session
def show(session: Session, /, *, audit_id: int) -> None:
    """Show an audit, and how far its lines have come."""
    session.output.record(session.client.get_audit(audit_id))


@command.command("findings")
@click.option("--rse", "rse_name", metavar="RSE", help="Only at this one.")
@click.option("--kind", type=_KINDS, help="Only these.")
@click.option("--state", type=_STATES, help="Only these.")
@click.option(
    "--audit", "audit_id", type=click.IntRange(min=1), metavar="ID", help="Only what this audit saw last."
)
@pass_session
def findings(
    session: Session, /, *, rse_name: str | None, kind: str | None, state: str | None, audit_id: int | None
) -> None:
    """List what was found wrong and is not settled, the oldest first.

    SEEN: not yet long enough; CONFIRMED: dark files that wait for a decision; DECLARED: bad, and to be made again; SUSPECTED:
    no other copy was verified, so the catalogue may be wrong.
    """
    found = session.client.list_findings(
        rse_name, kind=kind and kind.upper(), state=state and state.upper(), audit=audit_id
    )
    session.output.rows(_FINDINGS, found)


@command.command("quarantine")
@click.argument("rse_name", metavar="RSE")
@click.option(
    "--id",
    "ids",
    type=click.IntRange(min=1),
    multiple=True,
    help="Only this finding; may be given several times.",
)
@_storage_options
@dry_run_option
@pass_session
def quarantine(session: Session, /, *, rse_name: str, ids: tuple[int, ...], **order: Any) -> None:
    """Move confirmed dark files of an RSE aside, into its folder .arriero-quarantine. Nothing is removed.

    To keep a file instead, register it: `arriero replica add`.
    """
    from arriero.agent.storage_audit import move_aside
    from arriero.rse.pool import ProtocolPool

    found = [
        one
        for one in session.client.list_findings(rse_name, kind="DARK", state="CONFIRMED")
        if not ids or one["id"] in ids
    ]
    if order["dry_run"]:
        session.output.rows(_FINDINGS, found)
        return
    if not found:
        session.output.done("There are no confirmed dark files.", {"rse": rse_name, "moved": 0})
        session.output.nothing("There are no confirmed dark files.")
        return
    pool = ProtocolPool()
    try:
        protocol = _protocol(session, pool, rse_name, order)
        result = move_aside(session.client, protocol, rse_name, [one["id"] for one in found])
    finally:
        pool.close()
    for path, error in list(result.failures.items())[:_FAILURES_SHOWN]:
        session.output.note(f"Not moved: {path}: {error}")
    session.output.done(
        f"Moved {result.moved} files of {rse_name} aside; {result.gone} were gone, {result.registered} have become replicas.",
        {
            "rse": rse_name,
            "moved": result.moved,
            "gone": result.gone,
            "registered": result.registered,
            "failed": len(result.failures),
        },
    )
    if result.failures:
        raise PartialSuccess(
            f"{len(result.failures)} files were not moved; they are dark again with the next audits."
        )
