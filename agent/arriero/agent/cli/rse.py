"""``arriero rse``: storage elements."""

from typing import Any

import click

from arriero.agent.cli import rse_config, rse_health, rse_space
from arriero.agent.cli.options import JSON, dry_run_option, rses_option
from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

_OFFERED = ("read", "write", "delete")
_THIRD_PARTY = ("third_party_copy_read", "third_party_copy_write")


@click.group("rse")
def command() -> None:
    """Storage elements: attributes, protocols, distances, space."""


for part in (
    rse_space.usage,
    rse_space.limit,
    rse_space.qos,
    rse_config.export,
    rse_config.import_,
    rse_health.pause,
    rse_health.resume,
    rse_health.health,
    rse_health.retry,
):
    command.add_command(part)


@command.command("add")
@click.argument("rse_name", metavar="RSE")
@click.option(
    "--non-deterministic", is_flag=True, help="Paths are registered, they do not follow from names."
)
@click.option("--volatile", is_flag=True, help="Files may go without our doing.")
@click.option("--type", "rse_type", type=click.Choice(["DISK", "TAPE"]), default="DISK", show_default=True)
@pass_session
def add(
    session: Session, /, *, rse_name: str, non_deterministic: bool, volatile: bool, rse_type: str
) -> None:
    """Add an RSE."""
    settings = {"deterministic": not non_deterministic, "volatile": volatile, "rse_type": rse_type}
    session.client.add_rse(rse_name, **settings)
    session.output.done(f"Added RSE {rse_name}.", {"rse": rse_name, **settings})


@command.command("list")
@rses_option(help_text="Only those of this RSE expression.")
@pass_session
def list_(session: Session, /, *, rses: str | None) -> None:
    """List RSEs."""
    columns = [
        Column("rse", "RSE"),
        Column("rse_type", "TYPE"),
        Column("deterministic"),
        Column("availability_read", "READ"),
        Column("availability_write", "WRITE"),
        Column("availability_delete", "DELETE"),
    ]
    session.output.rows(columns, session.client.list_rses(rses))


@command.command("show")
@click.argument("rse_name", metavar="RSE")
@pass_session
def show(session: Session, /, *, rse_name: str) -> None:
    """Show the settings, protocols and attributes of an RSE, and whether it is open and up."""
    record = session.client.get_rse(rse_name)
    attributes = session.client.list_rse_attributes(rse_name)
    health = session.client.get_rse_health(rse_name).model_dump(mode="json")
    session.output.record({**record, "attributes": attributes, "health": health})


@command.command("update")
@click.argument("rse_name", metavar="RSE")
@click.option("--key", required=True, help="Setting: availability_write, volatile, rse_type, city ...")
@click.option("--value", required=True, help="Its value; empty to forget where an RSE is.")
@dry_run_option
@pass_session
def update(session: Session, /, *, rse_name: str, key: str, value: str, dry_run: bool) -> None:
    """Change a setting of an RSE."""
    record = {"rse": rse_name, key: _typed(value) if value else None}
    if dry_run:
        session.output.record(record)
        return
    session.client.update_rse(rse_name, {key: record[key]})
    session.output.done(f"Set {key}={value} on {rse_name}.", record)


@command.command("remove")
@click.argument("rse_name", metavar="RSE")
@dry_run_option
@pass_session
def remove(session: Session, /, *, rse_name: str, dry_run: bool) -> None:
    """Remove an RSE that holds nothing; its name is not given to another one."""
    if dry_run:
        session.output.record(session.client.get_rse(rse_name))
        return
    session.client.delete_rse(rse_name)
    session.output.done(f"Removed RSE {rse_name}.", {"rse": rse_name})


@command.group("attribute")
def attribute() -> None:
    """Attributes of RSEs, which RSE expressions look at."""


def _set_attribute(session: Session, rse_name: str, key: str, value: str) -> None:
    session.client.add_rse_attribute(rse_name, key, _typed(value))
    session.output.done(f"Set {key}={value} on {rse_name}.", {"rse": rse_name, "key": key, "value": value})


def _typed(value: str) -> object:
    """Rucio's truth values as such; the rest as text."""
    return {"true": True, "false": False}.get(value.lower(), value)


def _attribute_setter(name: str, *, hidden: bool) -> None:
    @attribute.command(name, hidden=hidden)
    @click.argument("rse_name", metavar="RSE")
    @click.option("--key", required=True, help="Name of the attribute.")
    @click.option("--value", required=True, help="Its value.")
    @pass_session
    def setter(session: Session, /, *, rse_name: str, key: str, value: str) -> None:
        """Set an attribute."""
        _set_attribute(session, rse_name, key, value)


def _attribute_remover(name: str, *, hidden: bool) -> None:
    @attribute.command(name, hidden=hidden)
    @click.argument("rse_name", metavar="RSE")
    @click.option("--key", "--attribute", "key", required=True, help="Name of the attribute.")
    @pass_session
    def remover(session: Session, /, *, rse_name: str, key: str) -> None:
        """Remove an attribute."""
        session.client.delete_rse_attribute(rse_name, key)
        session.output.done(f"Removed {key} from {rse_name}.", {"rse": rse_name, "key": key})


_attribute_setter("set", hidden=False)
_attribute_setter("add", hidden=True)
_attribute_remover("remove", hidden=False)
_attribute_remover("unset", hidden=True)


@attribute.command("list")
@click.argument("rse_name", metavar="RSE")
@pass_session
def list_attributes(session: Session, /, *, rse_name: str) -> None:
    """List the attributes of an RSE."""
    found = session.client.list_rse_attributes(rse_name)
    rows = ({"key": key, "value": value} for key, value in sorted(found.items()))
    session.output.rows([Column("key"), Column("value")], rows)


@command.group("protocol")
def protocol() -> None:
    """Protocols of RSEs: how their files are reached."""


@protocol.command("add")
@click.argument("rse_name", metavar="RSE")
@click.option("--scheme", required=True, help="davs, https, http, file ...")
@click.option("--hostname", "--host-name", "hostname", default="", help="Host; none for file.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: the default of the scheme.")
@click.option("--prefix", required=True, help="Absolute path on the server under which the RSE's files are.")
@click.option("--impl", default="", help="Implementation; by default that of the scheme.")
@click.option(
    "--domain-json",
    type=JSON,
    help="Priority of each operation in the domains lan and wan (1 is first, 0 is off) "
    "[default: everything that the scheme can do, with priority 1].",
)
@click.option("--extended-attributes-json", type=JSON, help="Further attributes of the protocol.")
@dry_run_option
@pass_session
def add_protocol(
    session: Session,
    /,
    *,
    rse_name: str,
    domain_json: dict[str, Any] | None,
    extended_attributes_json: dict[str, Any] | None,
    dry_run: bool,
    **endpoint: Any,
) -> None:
    """Add a protocol to an RSE.

    \b
    arriero rse protocol add SLAC_RAW_DISK --scheme davs --hostname dav.example.org --port 1094 --prefix /raw
    """  # noqa: D301 - click's mark for lines that stay as they are
    record: dict[str, Any] = {**endpoint, "domains": domain_json or default_domains(endpoint["scheme"])}
    if extended_attributes_json:
        record["extended_attributes"] = extended_attributes_json
    if dry_run:
        session.output.record({"rse": rse_name, **record})
        return
    session.client.add_protocol(rse_name, record)
    session.output.done(f"Added protocol {endpoint['scheme']} to {rse_name}.", {"rse": rse_name, **record})


@protocol.command("update")
@click.argument("rse_name", metavar="RSE")
@click.option("--scheme", required=True, help="Of the protocols to change.")
@click.option("--hostname", help="Only that of this host.")
@click.option("--port", type=click.IntRange(0, 65535), help="And of this port.")
@click.option("--prefix", help="Absolute path on the server under which the RSE's files are.")
@click.option("--impl", help="Implementation.")
@click.option("--domain-json", type=JSON, help="Priorities that change; those not named stay.")
@dry_run_option
@pass_session
def update_protocol(
    session: Session,
    /,
    *,
    rse_name: str,
    scheme: str,
    hostname: str | None,
    port: int | None,
    domain_json: dict[str, Any] | None,
    dry_run: bool,
    **texts: str | None,
) -> None:
    """Change protocols of an RSE."""
    changes: dict[str, Any] = {key: value for key, value in texts.items() if value is not None}
    if domain_json is not None:
        changes["domains"] = domain_json
    if not changes:
        raise click.UsageError("nothing to change: give --prefix, --impl or --domain-json")
    record = {"rse": rse_name, "scheme": scheme, "hostname": hostname, "port": port, **changes}
    if dry_run:
        session.output.record(record)
        return
    session.client.update_protocols(rse_name, scheme, changes, hostname, port)
    session.output.done(f"Changed protocol {scheme} of {rse_name}.", record)


@protocol.command("remove")
@click.argument("rse_name", metavar="RSE")
@click.option("--scheme", required=True, help="Of the protocols to remove.")
@click.option("--hostname", help="Only that of this host.")
@click.option("--port", type=click.IntRange(0, 65535), help="And of this port.")
@dry_run_option
@pass_session
def remove_protocol(
    session: Session,
    /,
    *,
    rse_name: str,
    scheme: str,
    hostname: str | None,
    port: int | None,
    dry_run: bool,
) -> None:
    """Remove protocols of an RSE."""
    record = {"rse": rse_name, "scheme": scheme, "hostname": hostname, "port": port}
    if dry_run:
        session.output.record(record)
        return
    session.client.delete_protocols(rse_name, scheme, hostname, port)
    session.output.done(f"Removed protocol {scheme} of {rse_name}.", record)


def default_domains(scheme: str) -> dict[str, dict[str, int]]:
    """Domains of a protocol for which none were given: all that its scheme can do, first."""
    both = _OFFERED if scheme == "file" else (*_OFFERED, *_THIRD_PARTY)
    return {"lan": dict.fromkeys(_OFFERED, 1), "wan": dict.fromkeys(both, 1)}


@command.group("distance")
def distance() -> None:
    """Distances between RSEs: nearer sources come first."""


def _distance_setter(name: str, *, hidden: bool) -> None:
    @distance.command(name, hidden=hidden)
    @click.argument("source")
    @click.argument("destination")
    @click.option(
        "--distance",
        "value",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Smaller is nearer.",
    )
    @click.option("--bidirectional", is_flag=True, help="The way back too.")
    @pass_session
    def setter(
        session: Session, /, *, source: str, destination: str, value: int, bidirectional: bool
    ) -> None:
        """Set the distance from SOURCE to DESTINATION."""
        session.client.set_distance(source, destination, value)
        if bidirectional:
            session.client.set_distance(destination, source, value)
        arrow = "<->" if bidirectional else "->"
        record = {
            "source": source,
            "destination": destination,
            "distance": value,
            "bidirectional": bidirectional,
        }
        session.output.done(f"Set distance {source} {arrow} {destination} to {value}.", record)


_distance_setter("set", hidden=False)
_distance_setter("add", hidden=True)


@distance.command("show")
@click.argument("source")
@click.argument("destination")
@pass_session
def show_distance(session: Session, /, *, source: str, destination: str) -> None:
    """Show the distance from SOURCE to DESTINATION."""
    found = session.client.get_distance(source, destination)
    rows = [] if found is None else [{"source": source, "destination": destination, "distance": found}]
    session.output.rows([Column("source"), Column("destination"), Column("distance", kind=Kind.NUMBER)], rows)


@distance.command("unset")
@click.argument("source")
@click.argument("destination")
@click.option("--bidirectional", is_flag=True, help="The way back too.")
@pass_session
def unset_distance(session: Session, /, *, source: str, destination: str, bidirectional: bool) -> None:
    """Remove the distance from SOURCE to DESTINATION: copies come this way last."""
    session.client.delete_distance(source, destination)
    if bidirectional:
        session.client.delete_distance(destination, source)
    arrow = "<->" if bidirectional else "->"
    record = {"source": source, "destination": destination, "bidirectional": bidirectional}
    session.output.done(f"Removed the distance {source} {arrow} {destination}.", record)
