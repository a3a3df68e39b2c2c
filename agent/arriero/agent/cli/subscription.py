"""``arriero subscription``: standing rules for data that is to come."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from arriero.agent.cli.options import DID, JSON, JSON_LIST, DidName, all_of
from arriero.agent.cli.output import Column, Kind
from arriero.agent.cli.session import Session, pass_session

F = TypeVar("F", bound=Callable[..., Any])

_COLUMNS = [
    Column("account"),
    Column("name"),
    Column("state"),
    Column("policyid", "PRIORITY", Kind.NUMBER),
    Column("dry_run"),
    Column("last_processed", kind=Kind.TIME),
    Column("expired_at", "EXPIRES AT", Kind.TIME),
    Column("error"),
]

_RULE_COLUMNS = [
    Column("id"),
    Column("scope"),
    Column("name"),
    Column("state"),
    Column("rse_expression", "RSES"),
    Column("copies", kind=Kind.NUMBER),
    Column("error"),
]

_WAITING_COLUMNS = [
    Column("scope"),
    Column("name"),
    Column("remaining_dids", "REMAINING", Kind.NUMBER),
    Column("attempt", kind=Kind.NUMBER),
    Column("not_before", "NEXT", Kind.TIME),
    Column("code"),
    Column("reason"),
]


def _settings(*, required: bool) -> Callable[[F], F]:
    """Options that both adding and updating have."""
    return all_of(
        click.option(
            "--filter", "did_filter", type=JSON, required=required, help="Which DIDs: a JSON object."
        ),
        click.option(
            "--rule",
            "templates",
            type=JSON_LIST,
            required=required,
            metavar="JSON",
            help="Which rules they get: a JSON list.",
        ),
        click.option("--comment", help="Why it is there."),
        click.option("--lifetime", type=click.FloatRange(min=0), metavar="DAYS", help="Until it rests."),
        click.option("--account", help="Whose it is [default: yours]."),
        click.option("--priority", type=click.IntRange(0, 9), help="0 first, 9 last [default: 3]."),
        click.option(
            "--retroactive", is_flag=True, default=None, help="Look at everything that there is, once."
        ),
        click.option(
            "--dry-run/--no-dry-run",
            "-n",
            default=None,
            help="Only tell what it would do, in events and in its reason.",
        ),
    )


def _account(session: Session, account: str | None) -> str:
    return str(account or session.settings.account or session.client.whoami()["account"])


def _options(
    did_filter: dict[str, Any] | None,
    templates: list[dict[str, Any]] | None,
    comment: str | None,
    **rest: Any,
) -> dict[str, Any]:
    options = {"filter": did_filter, "replication_rules": templates, "comments": comment, **rest}
    return {key: value for key, value in options.items() if value is not None}


@click.group("subscription")
def command() -> None:
    """Standing rules for data that is to come."""


@command.command("add")
@click.argument("name")
@_settings(required=True)
@pass_session
def add(session: Session, /, *, name: str, account: str | None, **given: Any) -> None:
    """Add a subscription and print its id.

    \b
    arriero subscription add nightly --filter '{"scope": ["raw"], "did_type": "DATASET", "night": "2024"}' \\
        --rule '[{"rse_expression": "IN2P3_RAW_DISK", "copies": 1, "activity": "Express"}]'

    Texts in the filter are regular expressions, held against the beginning of names and values. It is applied to what
    appears, to what changes its metadata and to what closes from now on; with --retroactive to what is there too.
    """  # noqa: D301 - click's mark for lines that stay as they are
    added = session.client.add_subscription(name, _account(session, account), _options(**given))
    session.output.lines("id", [added])


@command.command("update")
@click.argument("name")
@_settings(required=False)
@click.option("--state", type=click.Choice(["ACTIVE", "INACTIVE"]), help="INACTIVE: it rests.")
@pass_session
def update(session: Session, /, *, name: str, account: str | None, **given: Any) -> None:
    """Change a subscription; what is not named stays. With --retroactive the past is looked at again."""
    options = _options(**given)
    if not options:
        raise click.UsageError("Say what is to change.")
    owner = _account(session, account)
    session.client.update_subscription(name, owner, options)
    session.output.done(f"Subscription {owner}/{name} is changed.", {"account": owner, "name": name})


@command.command("list")
@click.option("--account", help="Of this account.")
@pass_session
def list_(session: Session, /, *, account: str | None) -> None:
    """List subscriptions."""
    session.output.rows(_COLUMNS, session.client.list_subscriptions(account=account))


@command.command("show")
@click.argument("name")
@click.option("-a", "--account", help="Whose it is [default: yours].")
@click.option("--rules", is_flag=True, help="The rules that came from it instead.")
@click.option("--waiting", is_flag=True, help="What waits for it instead, and why.")
@pass_session
def show(session: Session, /, *, name: str, account: str | None, rules: bool, waiting: bool) -> None:
    """Show a subscription."""
    if rules and waiting:
        raise click.UsageError("--rules and --waiting exclude each other.")
    owner = _account(session, account)
    if rules:
        session.output.rows(_RULE_COLUMNS, session.client.list_subscription_rules(owner, name))
    elif waiting:
        session.output.rows(_WAITING_COLUMNS, session.client.list_subscription_waiting(owner, name))
    else:
        session.output.records(session.client.list_subscriptions(name, owner))


@command.command("touch")
@click.argument("dids", type=DID, nargs=-1, required=True)
@pass_session
def touch(session: Session, /, *, dids: tuple[DidName, ...]) -> None:
    """Have every subscription look at DIDs again, also those that were applied to them before."""
    session.client.touch_dids([did.as_dict() for did in dids])
    for did in dids:
        session.output.done(f"Subscriptions look at {did} again.", did.as_dict())
