"""``arriero event``: what has happened, carried to those who want to be told; on the database of the registry."""

from contextlib import ExitStack
from typing import Any

import click

from arriero.agent.cli.options import BROKER, BROKER_SETTINGS
from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session
from arriero.agent.cli.signals import until_told


@click.group("event")
def command() -> None:
    """Carry events to a broker (ARRIERO_DATABASE_URL).

    \b
    arriero event send kafka --broker kafka:9092 --topic IN2P3_RAW_DISK-raw
    """  # noqa: D301 - click's mark for lines that stay as they are


@command.group("send")
def send() -> None:
    """Send what is written to the outbox, as Rucio's Hermes does."""


@send.command("kafka")
@BROKER
@click.option(
    "--topic", "topics", multiple=True, help="Only these RSE-SCOPE; may be repeated [default: all]."
)
@click.option("--rse", "rses", multiple=True, metavar="RSE", help="Only of this RSE; may be repeated.")
@click.option("--scope", "scopes", multiple=True, help="Only of this scope; may be repeated.")
@click.option(
    "--event-type",
    "event_types",
    multiple=True,
    default=["transfer-done"],
    show_default=True,
    help="Only of this type, and of an RSE and a scope; may be repeated.",
)
@click.option("--any-file", is_flag=True, help="Also copies of files without rubin_butler.")
@click.option("--name", default="kafka", show_default=True, help="Whose place in the outbox is kept.")
@click.option("--from-now", is_flag=True, help="A new name begins now, not with the oldest event kept.")
@BROKER_SETTINGS
@click.option("--once", is_flag=True, help="End when there is nothing more to send.")
@pass_session
def kafka(
    session: Session,
    /,
    *,
    brokers: tuple[str, ...],
    topics: tuple[str, ...],
    rses: tuple[str, ...],
    scopes: tuple[str, ...],
    event_types: tuple[str, ...],
    any_file: bool,
    name: str,
    from_now: bool,
    settings: dict[str, Any],
    once: bool,
) -> None:
    """Send events to Kafka, at least once, in order in each topic RSE-SCOPE (needs arriero[kafka]).

    The place in the outbox is moved when the broker has confirmed. Several processes of one name take turns; one that dies is
    replaced within a minute.
    """
    from arriero.registry.database import Database
    from arriero.registry.migrate import check
    from arriero.scheduler.event_kafka import KafkaBroker
    from arriero.scheduler.event_sender import EventSender, Wanted

    url = session.central_settings.database_url.get_secret_value()
    check(url)
    wanted = Wanted(
        event_types=frozenset(event_types),
        topics=frozenset(topics),
        rses=frozenset(rses),
        scopes=frozenset(scopes),
        any_file=any_file,
    )
    confirmed = refused = 0
    with ExitStack() as stack:
        database = Database(url, pool_size=1)
        stack.callback(database.dispose)
        broker = KafkaBroker(brokers, settings)
        stack.callback(broker.close)
        sender = EventSender(database, name, broker, wanted, from_now=from_now)
        stack.callback(sender.close)
        for sent in sender.run(until_told(), once=once):
            confirmed += sent.confirmed
            refused += sent.refused
    record = {"name": name, "sent": confirmed, "refused": refused}
    session.output.done(f"Kafka has confirmed {confirmed} events; {refused} were refused.", record)


@command.command("senders")
@pass_session
def senders(session: Session) -> None:
    """List who sends events, and how many are written behind their places."""
    from arriero.registry.database import Database
    from arriero.registry.store import event_senders

    database = Database(session.central_settings.database_url.get_secret_value(), pool_size=1)
    try:
        with database.snapshot() as tx:
            found = event_senders.overview(tx)
    finally:
        database.dispose()
    session.output.rows(SENDERS, found)


SENDERS = (
    Column("name"),
    Column("position", kind=Kind.NUMBER),
    Column("behind", kind=Kind.NUMBER),
    Column("owner"),
    Column("leased_until", kind=Kind.TIME),
    Column("updated_at", kind=Kind.TIME),
)
