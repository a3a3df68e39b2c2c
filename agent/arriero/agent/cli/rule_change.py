"""``arriero rule move|reduce|update|boost|suspend|resume|approve|deny``: changing rules that are there."""

from collections.abc import Iterator
from typing import Any

import click

from arriero.agent.cli.options import dry_run_option, rses_option
from arriero.agent.cli.output import Column, Kind, human_bytes
from arriero.agent.cli.session import Session, pass_session

_NONE = "none"

PLAN_COLUMNS = [
    Column("rule_id", "ID"),
    Column("scope"),
    Column("name"),
    Column("state"),
    Column("rse", "RSE"),
    Column("chosen"),
    Column("files", kind=Kind.NUMBER),
    Column("there_files", "THERE", Kind.NUMBER),
    Column("under_way_files", "UNDER WAY", Kind.NUMBER),
    Column("to_move_files", "TO MOVE", Kind.NUMBER),
    Column("to_move_bytes", "SIZE TO MOVE", Kind.BYTES),
    Column("stuck_files", "STUCK", Kind.NUMBER),
    Column("reason"),
]

_REDUCTION_COLUMNS = [
    Column("rse", "RSE"),
    Column("kept_files", "KEPT", Kind.NUMBER),
    Column("kept_bytes", "SIZE KEPT", Kind.BYTES),
    Column("let_go_files", "LET GO", Kind.NUMBER),
    Column("let_go_bytes", "SIZE LET GO", Kind.BYTES),
    Column("unheld_files", "HELD BY NONE", Kind.NUMBER),
    Column("unheld_bytes", "SIZE HELD BY NONE", Kind.BYTES),
]

_INHERITED = ("weight", "grouping", "account", "activity", "source_replica_expression", "ignore_availability")
"""What the plan of a rule that takes another's place takes from it."""


def show_plans(session: Session, plans: list[dict[str, Any]]) -> None:
    """Write what rules would do, an RSE a line, and a sentence about each rule."""
    session.output.rows(PLAN_COLUMNS, _plan_rows(plans))
    for plan in plans:
        moved = sum(rse["to_move_bytes"] for rse in plan["rses"])
        session.output.note(
            f"{plan['scope']}:{plan['name']}: {plan['files']} files, {human_bytes(plan['bytes'])}; "
            f"{human_bytes(moved)} would be copied; the rule would be "
            f"{plan['state']}{': ' + plan['reason'] if plan['reason'] else ''}"
        )


def _plan_rows(plans: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for plan in plans:
        head = {key: plan[key] for key in ("rule_id", "scope", "name", "state")}
        for rse in plan["rses"]:
            yield {**head, **rse}


@click.command("move")
@click.argument("rule_id", metavar="ID")
@rses_option(required=True, help_text="Where to: an RSE expression.")
@click.option("--source-rses", metavar="EXPR", help="Copy only from these; none: from any.")
@click.option("--activity", help="Activity that the copies count for.")
@dry_run_option
@pass_session
def move(
    session: Session,
    /,
    *,
    rule_id: str,
    rses: str,
    source_rses: str | None,
    activity: str | None,
    dry_run: bool,
) -> None:
    """Have a rule replaced by one on other RSEs, and print the new one's id.

    The rule goes when everything that the new one asks for is there. With --dry-run the plan of the new one is shown.
    """
    found = session.client.resolve_rule_id(rule_id)
    override: dict[str, Any] = {}
    if activity is not None:
        override["activity"] = activity
    if source_rses is not None:
        override["source_replica_expression"] = _or_none(source_rses)
    if dry_run:
        rule = session.client.get_replication_rule(found)
        asked = {key: rule[key] for key in _INHERITED} | override
        did = {"scope": rule["scope"], "name": rule["name"]}
        show_plans(session, session.client.plan_replication_rule([did], rule["copies"], rses, **asked))
        return
    child = session.client.move_replication_rule(found, rses, override)
    session.output.lines("id", [child])


@click.command("reduce")
@click.argument("rule_id", metavar="ID")
@click.option(
    "--copies", type=click.IntRange(min=1), required=True, help="Copies of each file, fewer than now."
)
@click.option("--exclude-rses", metavar="EXPR", help="RSEs that are to hold none of them.")
@dry_run_option
@pass_session
def reduce(
    session: Session, /, *, rule_id: str, copies: int, exclude_rses: str | None, dry_run: bool
) -> None:
    """Have a rule replaced, at once, by one with fewer copies of those that are there; print the new one's id.

    With --dry-run it is shown what would be kept and what let go, an RSE a line.
    """
    found = session.client.resolve_rule_id(rule_id)
    if dry_run:
        _show_reduction(session, found, session.client.plan_reduction(found, copies, exclude_rses))
        return
    session.output.lines("id", [session.client.reduce_replication_rule(found, copies, exclude_rses)])


def _show_reduction(session: Session, rule_id: str, plan: dict[str, Any]) -> None:
    session.output.rows(_REDUCTION_COLUMNS, plan["rses"])
    sums = {
        part: (
            sum(rse[f"{part}_files"] for rse in plan["rses"]),
            human_bytes(sum(rse[f"{part}_bytes"] for rse in plan["rses"])),
        )
        for part in ("kept", "let_go", "unheld")
    }
    when = "at once" if plan["purge_replicas"] else "when space is needed"
    session.output.note(
        "{scope}:{name}: a rule for {copies} copies on {rse_expression} would take the place of {old}; it keeps "
        "{kept[0]} copies ({kept[1]}) and lets {let_go[0]} go ({let_go[1]}), of which no other rule holds {unheld[0]} "
        "({unheld[1]}): those may be deleted {when}.".format(**plan, **sums, old=rule_id, when=when)
    )


@click.command("approve")
@click.argument("rule_id", metavar="ID")
@dry_run_option
@pass_session
def approve(session: Session, /, *, rule_id: str, dry_run: bool) -> None:
    """Let a rule that waits for approval go on."""
    found = session.client.resolve_rule_id(rule_id)
    if dry_run:
        session.output.record(session.client.get_replication_rule(found))
        return
    session.client.approve_replication_rule(found)
    session.output.done(f"Rule {found} is approved.", {"id": found})


@click.command("deny")
@click.argument("rule_id", metavar="ID")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
@dry_run_option
@pass_session
def deny(session: Session, /, *, rule_id: str, reason: str | None, dry_run: bool) -> None:
    """Take away a rule that waits for approval."""
    found = session.client.resolve_rule_id(rule_id)
    if dry_run:
        session.output.record(session.client.get_replication_rule(found))
        return
    session.client.deny_replication_rule(found, reason)
    session.output.done(f"Rule {found} is denied and gone.", {"id": found})


@click.command("suspend")
@click.argument("rule_id", metavar="ID")
@click.option("--cancel-requests", is_flag=True, help="Take back the copies that have not begun.")
@dry_run_option
@pass_session
def suspend(session: Session, /, *, rule_id: str, cancel_requests: bool, dry_run: bool) -> None:
    """Have nothing more done for a rule until it is resumed."""
    options: dict[str, Any] = {"state": "SUSPENDED"}
    if cancel_requests:
        options["cancel_requests"] = True
    _change(session, rule_id, options, "is suspended", dry_run=dry_run)


@click.command("resume")
@click.argument("rule_id", metavar="ID")
@dry_run_option
@pass_session
def resume(session: Session, /, *, rule_id: str, dry_run: bool) -> None:
    """Have a suspended rule go on."""
    _change(session, rule_id, {"state": "INJECT"}, "goes on", dry_run=dry_run)


@click.command("boost")
@click.argument("rule_id", metavar="ID")
@dry_run_option
@pass_session
def boost(session: Session, /, *, rule_id: str, dry_run: bool) -> None:
    """Have what is stuck of a rule tried again now."""
    _change(session, rule_id, {"boost_rule": True}, "is tried again now", dry_run=dry_run)


@click.command("update")
@click.argument("rule_id", metavar="ID")
@click.option("--lifetime", metavar="SECONDS|none", help="Until the rule ends, from now; none: never.")
@click.option("--locked", type=bool, default=None, help="Cannot be removed until unlocked.")
@click.option("--source-rses", metavar="EXPR|none", help="Copy only from these.")
@click.option("--activity", help="Activity that the copies count for.")
@click.option("--priority", type=click.IntRange(1, 5), help="5 first, 1 last.")
@click.option("--comment", help="Why it is there.")
@click.option("--account", "owner", help="Whose rule it is to be.")
@click.option("--purge-replicas", type=bool, default=None, help="Delete at once when the rule ends.")
@click.option("--stuck", is_flag=True, help="Set state to STUCK: it is looked at at once.")
@click.option("--suspend", "suspended", is_flag=True, help="Set state to SUSPENDED.")
@click.option(
    "--cancel-requests", is_flag=True, help="With --stuck or --suspend: take back what has not begun."
)
@click.option("--child-rule-id", metavar="ID|none", help="Rule that takes its place when that is OK.")
@click.option("--boost-rule", is_flag=True, help="Try again now what is stuck.")
@dry_run_option
@pass_session
def update(session: Session, /, *, rule_id: str, dry_run: bool, **given: Any) -> None:
    """Change a rule. What is not given stays."""
    options = _options(given)
    if not options:
        raise click.UsageError("nothing to change: see 'arriero rule update -h' for what can be")
    if options.get("child_rule_id") is not None:
        options["child_rule_id"] = session.client.resolve_rule_id(options["child_rule_id"])
    _change(session, rule_id, options, "is changed", dry_run=dry_run)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Say in Rucio's words what is to change."""
    if given["stuck"] and given["suspended"]:
        raise click.UsageError("--stuck and --suspend exclude each other.")
    if given["cancel_requests"] and not (given["stuck"] or given["suspended"]):
        raise click.UsageError("--cancel-requests goes with --stuck or --suspend.")
    options: dict[str, Any] = {
        key: given[key]
        for key in ("locked", "activity", "priority", "comment", "purge_replicas")
        if given[key] is not None
    }
    if given["owner"] is not None:
        options["account"] = given["owner"]
    if given["lifetime"] is not None:
        options["lifetime"] = _seconds(given["lifetime"])
    if given["source_rses"] is not None:
        options["source_replica_expression"] = _or_none(given["source_rses"])
    if given["child_rule_id"] is not None:
        options["child_rule_id"] = _or_none(given["child_rule_id"])
    if given["stuck"] or given["suspended"]:
        options["state"] = "STUCK" if given["stuck"] else "SUSPENDED"
    return options | {key: True for key in ("cancel_requests", "boost_rule") if given[key]}


def _or_none(text: str) -> str | None:
    return None if text.lower() == _NONE else text


def _seconds(text: str) -> int | None:
    if _or_none(text) is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise click.UsageError(f"--lifetime: {text!r} is neither a number of seconds nor none") from error


def _change(session: Session, rule_id: str, options: dict[str, Any], became: str, *, dry_run: bool) -> None:
    found = session.client.resolve_rule_id(rule_id)
    if dry_run:
        # also says so when there is none
        rule = session.client.get_replication_rule(found)
        session.output.record({"id": found, "scope": rule["scope"], "name": rule["name"], **options})
        return
    session.client.update_replication_rule(found, options)
    session.output.done(f"Rule {found} {became}.", {"id": found, **options})
