"""``arriero rse usage|limit|qos``: how full RSEs are, how full they may become, what they offer."""

import click

from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

_COUNT = click.IntRange(min=0)


@click.group("usage")
def usage() -> None:
    """Space of RSEs: what the catalogue counts and what others have measured."""


@usage.command("list")
@click.argument("rse_name", metavar="RSE")
@click.option("--source", help="Only from this one; rucio is the catalogue itself.")
@click.option("--history", is_flag=True, help="Everything that was ever measured, oldest first.")
@pass_session
def list_usage(session: Session, /, *, rse_name: str, source: str | None, history: bool) -> None:
    """List what is known of the space of an RSE."""
    columns = [
        Column("source"),
        Column("used", kind=Kind.BYTES),
        Column("free", kind=Kind.BYTES),
        Column("total", kind=Kind.BYTES),
        Column("files", kind=Kind.NUMBER),
        Column("updated_at", "AT", kind=Kind.TIME),
    ]
    asked = session.client.list_rse_usage_history if history else session.client.list_rse_usage
    session.output.rows(columns, asked(rse_name, source))


@usage.command("set")
@click.argument("rse_name", metavar="RSE")
@click.option("--source", required=True, help="Who has measured.")
@click.option("--used", type=_COUNT, help="Bytes.")
@click.option("--free", type=_COUNT, help="Bytes.")
@click.option("--files", type=_COUNT, help="Number of files.")
@pass_session
def set_usage(
    session: Session, /, *, rse_name: str, source: str, used: int | None, free: int | None, files: int | None
) -> None:
    """Write what was measured of an RSE."""
    session.client.set_rse_usage(rse_name, source, used=used, free=free, files=files)
    record = {"rse": rse_name, "source": source, "used": used, "free": free, "files": files}
    session.output.done(f"Wrote what {source} has measured of {rse_name}.", record)


@click.group("limit")
def limit() -> None:
    """Limits of RSEs, bytes."""


@limit.command("list")
@click.argument("rse_name", metavar="RSE")
@pass_session
def list_limits(session: Session, /, *, rse_name: str) -> None:
    """List the limits of an RSE."""
    found = session.client.get_rse_limits(rse_name)
    rows = ({"limit": name, "value": value} for name, value in sorted(found.items()))
    session.output.rows([Column("limit"), Column("value", kind=Kind.BYTES)], rows)


@limit.command("set")
@click.argument("rse_name", metavar="RSE")
@click.option(
    "--limit", "setting", type=(str, _COUNT), required=True, help="Name (MinFreeSpace ...) and bytes."
)
@pass_session
def set_limit(session: Session, /, *, rse_name: str, setting: tuple[str, int]) -> None:
    """Set a limit of an RSE."""
    name, value = setting
    session.client.set_rse_limit(rse_name, name, value)
    session.output.done(
        f"Set {name}={value} on {rse_name}.", {"rse": rse_name, "limit": name, "value": value}
    )


@limit.command("unset")
@click.argument("rse_name", metavar="RSE")
@click.option("--limit", "name", required=True, help="Name of the limit.")
@pass_session
def unset_limit(session: Session, /, *, rse_name: str, name: str) -> None:
    """Remove a limit of an RSE."""
    session.client.delete_rse_limit(rse_name, name)
    session.output.done(f"Removed {name} from {rse_name}.", {"rse": rse_name, "limit": name})


@click.group("qos")
def qos() -> None:
    """Classes of service that RSEs offer."""


@qos.command("list")
@click.argument("rse_name", metavar="RSE")
@pass_session
def list_policies(session: Session, /, *, rse_name: str) -> None:
    """List the classes of service of an RSE."""
    session.output.lines("policy", session.client.list_qos_policies(rse_name))


@qos.command("add")
@click.argument("rse_name", metavar="RSE")
@click.option("--policy", required=True, help="Name of the class.")
@pass_session
def add_policy(session: Session, /, *, rse_name: str, policy: str) -> None:
    """Add a class of service."""
    session.client.add_qos_policy(rse_name, policy)
    session.output.done(f"Added {policy} to {rse_name}.", {"rse": rse_name, "policy": policy})


@qos.command("remove")
@click.argument("rse_name", metavar="RSE")
@click.option("--policy", required=True, help="Name of the class.")
@pass_session
def remove_policy(session: Session, /, *, rse_name: str, policy: str) -> None:
    """Remove a class of service."""
    session.client.delete_qos_policy(rse_name, policy)
    session.output.done(f"Removed {policy} from {rse_name}.", {"rse": rse_name, "policy": policy})
