"""``arriero ping`` and ``arriero whoami``."""

import click

from arriero.agent.cli.session import Session, pass_session


@click.command("ping")
@pass_session
def command(session: Session) -> None:
    """Ask the registry for its version; needs no credentials."""
    session.output.record(session.client.ping())


@click.command("whoami")
@pass_session
def whoami(session: Session) -> None:
    """Ask for whom the registry takes you."""
    session.output.record(session.client.whoami())
