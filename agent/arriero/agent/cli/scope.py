"""``arriero scope``: scopes."""

import click

from arriero.agent.cli.output import Column
from arriero.agent.cli.session import Session, pass_session


@click.group("scope")
def command() -> None:
    """Scopes and the accounts that they belong to."""


@command.command("add")
@click.argument("scope_name", metavar="SCOPE")
@click.option("-a", "--account", help="Owner [default: your account].")
@pass_session
def add(session: Session, /, *, scope_name: str, account: str | None) -> None:
    """Add a scope."""
    owner = account or session.settings.account or str(session.client.whoami()["account"])
    session.client.add_scope(owner, scope_name)
    session.output.done(f"Added scope {scope_name} of {owner}.", {"scope": scope_name, "account": owner})


@command.command("list")
@click.option("-a", "--account", help="Only those of this account.")
@pass_session
def list_(session: Session, /, *, account: str | None) -> None:
    """List scopes."""
    session.output.rows([Column("scope")], ({"scope": name} for name in session.client.list_scopes(account)))
