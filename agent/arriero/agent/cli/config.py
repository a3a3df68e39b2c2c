"""``arriero config``: the settings in force."""

import click

from arriero.agent.cli.output import Column
from arriero.agent.cli.session import Session, pass_session


@click.group("config")
def command() -> None:
    """Show the settings in force."""


@command.command("show")
@click.option("--origin", is_flag=True, help="Also where each comes from.")
@pass_session
def show(session: Session, origin: bool) -> None:
    """Show every client setting; secrets are masked."""
    columns = [Column("setting"), Column("value")]
    rows = session.effective()
    if origin:
        columns.append(Column("origin"))
    else:
        rows = [{key: row[key] for key in ("setting", "value")} for row in rows]
    session.output.rows(columns, rows)
