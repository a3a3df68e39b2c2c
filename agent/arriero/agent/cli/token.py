"""``arriero token``: standing tokens of site agents."""

import re

import click

from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group("token")
def command() -> None:
    """Tokens of site agents: bound to RSEs and Butlers, expiring, revocable."""


@command.command("create")
@click.option("--label", required=True, help="What it is for; shown in lists and in the audit.")
@click.option("--butler", "butlers", multiple=True, help="Butler whose arrivals it may claim.")
@click.option("--rse", "rses", multiple=True, help="RSE that it may act for.")
@click.option(
    "--lifetime", default="30d", show_default=True, metavar="DURATION", help="Such as 3600, 12h, 30d."
)
@click.option("--account", help="Account that it acts for [default: yours].")
@pass_session
def create(
    session: Session,
    /,
    *,
    label: str,
    butlers: tuple[str, ...],
    rses: tuple[str, ...],
    lifetime: str,
    account: str | None,
) -> None:
    """Make a token and print it: it cannot be shown again.

    \b
    umask 077; arriero token create --label in2p3-ingest --butler in2p3 > agent.token
    """  # noqa: D301 - click's mark for lines that stay as they are
    from arriero.registry.models import NewToken

    wanted = NewToken(label=label, lifetime_s=_seconds(lifetime), rses=rses, butlers=butlers, account=account)
    issued = session.client.create_token(wanted)
    session.output.note(f"Token {issued.id} holds until {issued.expires_at:%Y-%m-%dT%H:%M:%SZ}.")
    session.output.value("token", issued.token, {"label": label, **issued.model_dump(mode="json")})


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhdw]?)", text.strip())
    if match is None:
        raise click.BadParameter(
            f"{text!r} is not a duration: write 3600, 90m, 12h, 30d or 4w", param_hint="--lifetime"
        )
    return int(match.group(1)) * _UNITS[match.group(2) or "s"]


@command.command("list")
@pass_session
def list_(session: Session) -> None:
    """List tokens, without their secrets."""
    columns = [
        Column("id", "ID", Kind.NUMBER),
        Column("account"),
        Column("label"),
        Column("butlers"),
        Column("rses", "RSES"),
        Column("expires_at"),
        Column("revoked_at"),
    ]
    session.output.rows(columns, (token.model_dump(mode="json") for token in session.client.list_tokens()))


@command.command("revoke")
@click.argument("token_id", type=click.IntRange(min=1), metavar="ID")
@pass_session
def revoke(session: Session, /, *, token_id: int) -> None:
    """Revoke a token, from now on."""
    session.client.revoke_token(token_id)
    session.output.done(f"Revoked token {token_id}.", {"id": token_id})
