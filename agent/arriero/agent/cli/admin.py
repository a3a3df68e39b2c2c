"""``arriero admin``: what is done beside the running service, on its database."""

from pathlib import Path

import click

from arriero.agent.cli.files import first_line
from arriero.agent.cli.session import Session, pass_session
from arriero.registry.database import Database
from arriero.registry.migrate import check, upgrade
from arriero.registry.services.bootstrap import bootstrap


@click.group("admin")
def command() -> None:
    """Prepare and check the database of the registry (ARRIERO_DATABASE_URL)."""


@command.group("db")
def db() -> None:
    """Look after the schema."""


@db.command("upgrade")
@pass_session
def upgrade_command(session: Session) -> None:
    """Bring the schema to this version's; safe to repeat."""
    upgrade(session.central_settings.database_url.get_secret_value())
    click.echo("The schema is current.")


@db.command("check")
@pass_session
def check_command(session: Session) -> None:
    """Fail when the schema is not this version's."""
    check(session.central_settings.database_url.get_secret_value())
    click.echo("The schema is current.")


@command.command("bootstrap")
@click.option("--username", required=True, help="User name of the account root.")
@click.option(
    "--password-file",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Holds the password, alone on its first line.",
)
@pass_session
def bootstrap_command(session: Session, username: str, password_file: Path) -> None:
    """Create the account root with its first identity; an account that is there keeps its identities and passwords."""
    url = session.central_settings.database_url.get_secret_value()
    check(url)
    database = Database(url, pool_size=1)
    try:
        created = bootstrap(database, username, first_line(password_file, "password file"))
    finally:
        database.dispose()
    click.echo(
        f"The account root can log in as {username}." if created else "The account root is there already."
    )
