"""``arriero rule``: replication rules."""

from collections.abc import Iterator
from typing import Any

import click

from arriero.agent.cli import rule_change, rule_explain
from arriero.agent.cli.options import DID, DidName, dry_run_option, rses_option
from arriero.agent.cli.output import Column, Format, Kind
from arriero.agent.cli.session import Session, pass_session

_COLUMNS = [
    Column("id"),
    Column("account"),
    Column("scope"),
    Column("name"),
    Column("state"),
    Column("rse_expression", "RSES"),
    Column("copies", kind=Kind.NUMBER),
    Column("locks_ok_cnt", "OK", Kind.NUMBER),
    Column("locks_replicating_cnt", "REPLICATING", Kind.NUMBER),
    Column("locks_stuck_cnt", "STUCK", Kind.NUMBER),
    Column("expires_at"),
    Column("error"),
]

_HISTORY_COLUMNS = [
    Column("at", kind=Kind.TIME),
    Column("account", "WHO"),
    Column("from_state", "FROM"),
    Column("to_state", "TO"),
    Column("code"),
    Column("reason"),
]

_LIVES_COLUMNS = [
    Column("updated_at", "AT", Kind.TIME),
    Column("rule_id", "ID"),
    Column("account"),
    Column("rse_expression", "RSES"),
    Column("state"),
    Column("changed_by", "BY"),
    Column("reason"),
]


@click.group("rule")
def command() -> None:
    """Replication rules: how many copies, and where."""


for part in (
    rule_explain.explain,
    rule_change.move,
    rule_change.reduce,
    rule_change.update,
    rule_change.boost,
    rule_change.suspend,
    rule_change.resume,
    rule_change.approve,
    rule_change.deny,
):
    command.add_command(part)


@command.command("add")
@click.argument("dids", type=DID, nargs=-1, required=True)
@click.option("--copies", type=click.IntRange(min=1), required=True, help="Copies of each file.")
@rses_option(required=True, help_text="Where: an RSE expression.")
@click.option("--weight", metavar="ATTRIBUTE", help="RSE attribute that says how much of the data it takes.")
@click.option("--lifetime", type=click.IntRange(min=1), metavar="SECONDS", help="Until the rule ends.")
@click.option("--grouping", type=click.Choice(["ALL", "DATASET", "NONE"]), help="Which files stay together.")
@click.option("--locked", type=bool, default=None, help="Cannot be removed until unlocked.")
@click.option("--source-rses", "source_replica_expression", metavar="EXPR", help="Copy only from these.")
@click.option(
    "--notify", type=click.Choice(["Y", "N", "C", "P"]), help="Notify: yes, no, when closed, progress."
)
@click.option("--activity", help="Activity that the copies count for.")
@click.option("--comment", help="Why it is there.")
@click.option("--ask-approval", is_flag=True, default=None, help="Wait for someone's approval.")
@click.option("--asynchronous", is_flag=True, default=None, help="As Rucio; rules are evaluated so anyway.")
@click.option("--delay-injection", type=click.IntRange(min=0), metavar="SECONDS", help="Begin later.")
@click.option("--account", help="Whose rule it is [default: yours].")
@click.option("--priority", type=click.IntRange(1, 5), help="5 first, 1 last [default: 3].")
@click.option("--purge-replicas", is_flag=True, default=None, help="Delete at once when the rule ends.")
@click.option("--ignore-availability", is_flag=True, default=None, help="Also RSEs that are blocked.")
@click.option("--skip-duplicates", is_flag=True, help="Pass over DIDs that have this rule already.")
@click.option(
    "--id", "rule_ids", multiple=True, metavar="ID", help="Id of the rule, from a dry run; one for each DID."
)
@dry_run_option
@pass_session
def add(
    session: Session,
    /,
    *,
    dids: tuple[DidName, ...],
    copies: int,
    rses: str,
    skip_duplicates: bool,
    rule_ids: tuple[str, ...],
    dry_run: bool,
    **options: Any,
) -> None:
    """Add a rule to each DID and print its id.

    \b
    arriero rule add raw:Dataset/LSSTComCam/raw/20241108 --copies 1 --rses IN2P3_RAW_DISK

    With --dry-run nothing is added: each RSE is listed with why it was chosen or not, and what would be there, under
    way, to move and stuck. Where RSEs are equally good the choice depends on the id: give it back with --id.
    """  # noqa: D301 - click's mark for lines that stay as they are
    options["rule_ids"] = list(rule_ids) or None
    if dry_run:
        plans = session.client.plan_replication_rule(
            [did.as_dict() for did in dids], copies, rses, **(options | {"rule_ids": None})
        )
        rule_change.show_plans(session, plans)
        return
    if skip_duplicates and rule_ids:
        raise click.UsageError("--id and --skip-duplicates exclude each other.")
    if not skip_duplicates:
        found = session.client.add_replication_rule([did.as_dict() for did in dids], copies, rses, **options)
        session.output.lines("id", found)
        return
    session.output.lines("id", _without_duplicates(session, dids, copies, rses, options))


def _without_duplicates(
    session: Session, dids: tuple[DidName, ...], copies: int, rses: str, options: dict[str, Any]
) -> Iterator[str]:
    from arriero.registry.errors import Conflict

    for did in dids:
        try:
            yield from session.client.add_replication_rule([did.as_dict()], copies, rses, **options)
        except Conflict as error:
            session.output.note(f"Passed over {did}: {error}")


@command.command("list")
@click.option("--did", type=DID, help="On this DID itself.")
@click.option("--file", type=DID, help="That ask for this file, on whatever holds it.")
@click.option("--account", help="Of this account.")
@click.option("--state", help="In this state (OK, REPLICATING, STUCK ...).")
@rses_option(help_text="With exactly this RSE expression.")
@pass_session
def list_(
    session: Session,
    /,
    *,
    did: DidName | None,
    file: DidName | None,
    account: str | None,
    state: str | None,
    rses: str | None,
) -> None:
    """List rules: all, or those that all options agree on."""
    if file is not None:
        found = session.client.list_associated_rules_for_file(file.scope, file.name)
    else:
        filters = {"account": account, "rse_expression": rses}
        if did is not None:
            filters |= {"scope": did.scope, "name": did.name}
        found = session.client.list_replication_rules(filters)
    # what the registry has not narrowed is narrowed here
    wanted = {
        "account": account,
        "rse_expression": rses,
        "state": state.upper() if state else None,
        "scope": did.scope if did else None,
        "name": did.name if did else None,
    }
    agreed = {key: value for key, value in wanted.items() if value is not None}
    rows = (rule for rule in found if all(rule.get(key) == value for key, value in agreed.items()))
    session.output.rows(_COLUMNS, rows)


@command.command("show")
@click.argument("rule_id", metavar="ID")
@click.option("--locks", is_flag=True, help="The lock of each file instead.")
@pass_session
def show(session: Session, /, *, rule_id: str, locks: bool) -> None:
    """Show a rule; the first digits of its id are enough."""
    found = session.client.resolve_rule_id(rule_id)
    if locks:
        columns = [Column("scope"), Column("name"), Column("rse", "RSE"), Column("state")]
        session.output.rows(columns, session.client.list_replica_locks(found))
    else:
        session.output.record(session.client.get_replication_rule(found))


@command.command("history")
@click.argument("rule_id_or_did", metavar="ID|SCOPE:NAME")
@pass_session
def history(session: Session, /, *, rule_id_or_did: str) -> None:
    """List what happened to a rule: when, who and why; also to one that is there no more, by its whole id.

    With a DID, list the rules that are and were on it, as Rucio does.
    """
    if ":" in rule_id_or_did:
        did = DID.convert(rule_id_or_did, None, click.get_current_context())
        found = session.client.list_replication_rule_full_history(did.scope, did.name)
        session.output.rows(_LIVES_COLUMNS, found)
        return
    changes = session.client.list_rule_history(session.client.resolve_rule_id(rule_id_or_did))
    # a change that nobody has asked for is the system's; programs see null
    nobody = "(system)" if session.output.format is Format.TABLE else None
    rows = ({**change, "account": change["account"] or nobody} for change in changes)
    session.output.rows(_HISTORY_COLUMNS, rows)


@command.command("remove")
@click.argument("rule_id_or_did", metavar="ID|SCOPE:NAME")
@rses_option(help_text="With a DID: its rules with exactly this RSE expression.")
@click.option("--account", help="With a DID: rules of this account [default: yours].")
@click.option("--all", "every", is_flag=True, help="With a DID: rules of all accounts.")
@click.option("--purge-replicas", is_flag=True, default=None, help="Delete what no other rule wants at once.")
@click.option("--now", is_flag=True, help="At once, without Rucio's hour in which one may think again.")
@dry_run_option
@pass_session
def remove(
    session: Session,
    /,
    *,
    rule_id_or_did: str,
    rses: str | None,
    account: str | None,
    every: bool,
    purge_replicas: bool | None,
    now: bool,
    dry_run: bool,
) -> None:
    """Remove a rule, or the rules of a DID. As in Rucio the rule ends in an hour, unless --now."""
    if ":" in rule_id_or_did:
        found = _rules_of(session, rule_id_or_did, rses, None if every else account, every=every)
    else:
        found = [session.client.resolve_rule_id(rule_id_or_did)]
    if dry_run:
        session.output.records([session.client.get_replication_rule(rule_id) for rule_id in found])
        return
    for rule_id in found:
        session.client.delete_replication_rule(rule_id, purge_replicas=purge_replicas, now=now)
        when = "is removed" if now else "ends in an hour"
        session.output.done(f"Rule {rule_id} {when}.", {"id": rule_id})


def _rules_of(
    session: Session, text: str, rses: str | None, account: str | None, *, every: bool
) -> list[str]:
    from arriero.registry.errors import NotFound

    if rses is None:
        raise click.UsageError("With a DID, say which of its rules with --rses.")
    did = DID.convert(text, None, click.get_current_context())
    owner = None if every else account or session.settings.account or session.client.whoami()["account"]
    found = [
        str(rule["id"])
        for rule in session.client.list_did_rules(did.scope, did.name)
        if rule["rse_expression"] == rses and owner in {None, rule["account"]}
    ]
    if not found:
        raise NotFound(
            f"No rule with {rses} on {did}; see 'arriero rule list --did {did}'.", code="rule_not_found"
        )
    return found
