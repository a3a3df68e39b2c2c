"""``arriero arrival``: files on their way into a Butler."""

from typing import Any

import click

from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

_STATES = ["pending", "leased", "parked", "ingested", "failed", "released"]


@click.group("arrival")
def command() -> None:
    """Files on their way into a Butler."""


@command.command("list")
@click.option("--butler", help="On their way into this one.")
@click.option("--state", type=click.Choice(_STATES), help="In this state.")
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
