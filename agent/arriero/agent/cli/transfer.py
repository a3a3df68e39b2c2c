"""``arriero transfer``: copies that are wanted, under way, or given up."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.options import DID, DidName, F, dry_run_option
from arriero.agent.cli.output import Column, Format, Kind, human_bytes
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.registry.operations import TransferDetail, TransferFilter, TransferTotal

_STATES = ("QUEUED", "SUBMITTED", "FAILED")

_COLUMNS = [
    Column("scope"),
    Column("name"),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("source", "FROM"),
    Column("destination", "TO"),
    Column("state"),
    Column("copied", "THERE", Kind.BYTES),
    Column("code"),
    Column("attempt", kind=Kind.NUMBER),
    Column("priority", kind=Kind.NUMBER),
    Column("activity"),
    Column("created_at", "ASKED FOR", Kind.TIME),
    Column("next_attempt_at", "NEXT", Kind.TIME),
    Column("reason"),
]

TOTALS = [
    Column("files", kind=Kind.NUMBER),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("destination", "TO"),
    Column("state"),
    Column("code"),
    Column("attempts", kind=Kind.NUMBER),
    Column("oldest_at", "OLDEST", Kind.TIME),
    Column("next_attempt_at", "NEXT", Kind.TIME),
    Column("reason"),
]

_ATTEMPTS = [
    Column("ended_at", "ENDED", Kind.TIME),
    Column("source", "FROM"),
    Column("state"),
    Column("attempt", kind=Kind.NUMBER),
    Column("mode"),
    Column("mode_reason", "WHY SO"),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("seconds", "TOOK", Kind.SECONDS),
    Column("code"),
    Column("reason"),
]

_LOCKS = [Column("rule_id", "RULE"), Column("account"), Column("state"), Column("code"), Column("reason")]


@click.group("transfer")
def command() -> None:
    """Copies that are wanted, under way, or given up."""


def _choice_options(function: F) -> F:
    """Which transfers are meant."""
    for option in (
        click.option("--to", "destination", metavar="RSE", help="Those to this RSE."),
        click.option("--rule", metavar="ID", help="Those that this rule wants; its first digits are enough."),
    ):
        function = option(function)
    return function


def _filter_options(function: F) -> F:
    for option in (
        click.option("--code", help="Those that wait for this: queued, copying, blocked, timed_out ..."),
        click.option("--activity", help="Those of this activity."),
        click.option(
            "--state",
            "states",
            type=click.Choice(_STATES, case_sensitive=False),
            multiple=True,
            help="Those in this state.",
        ),
        click.option("--from", "source", metavar="RSE", help="Those that are read from this RSE."),
        click.option("--did", type=DID, help="Those of this file, or of what this DID holds."),
    ):
        function = option(function)
    return _choice_options(function)


@command.command("list")
@_filter_options
@click.option("--problems", is_flag=True, help="What has gone wrong last first, instead of the oldest.")
@click.option("--totals", is_flag=True, help="Count them by what they wait for, and where they go.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True)
@click.option("--watch", is_flag=True, help="Show the totals again and again, until nothing is left to copy.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often, with --watch.",
)
@pass_session
def list_(
    session: Session,
    /,
    *,
    problems: bool,
    totals: bool,
    limit: int,
    watch: bool,
    every: float,
    **given: Any,
) -> None:
    """List transfers, and what each waits for: the source, a turn, an RSE that is closed or down, a full link.

    With --watch a table and a progress bar on a terminal, elsewhere a line a round. It ends when nothing is left to copy:
    with 8 when some were given up.
    """
    chosen = _filter(session, given)
    if watch:
        from arriero.agent.cli.transfer_watch import watch_transfers

        watch_transfers(session, chosen, every_s=every)
        return
    if totals:
        found = session.client.total_transfers(chosen)
        session.output.rows(TOTALS, (one.model_dump(mode="json") for one in found))
        return
    from arriero.registry.operations import TransferPage

    page = TransferPage(**chosen.model_dump(), order="problem" if problems else "age", limit=limit)
    rows = (one.model_dump(mode="json") for one in session.client.list_transfers(page))
    count = session.output.rows(_COLUMNS, rows)
    if session.output.format is Format.TABLE and count:
        session.output.note(summed(session.client.total_transfers(chosen)))
        if count == limit:
            session.output.note(f"Only the first {limit} are listed; --limit says how many.")


def _filter(session: Session, given: dict[str, Any]) -> "TransferFilter":
    from arriero.registry.operations import TransferFilter

    return TransferFilter(
        **_choice(session, given["rule"], given["did"], given["destination"]),
        source=given["source"],
        state=[state.upper() for state in given["states"]],
        activity=given["activity"],
        code=given["code"],
    )


def _choice(
    session: Session, rule: str | None, did: DidName | None, destination: str | None
) -> dict[str, str | None]:
    return {
        "rule": None if rule is None else session.client.resolve_rule_id(rule),
        "scope": None if did is None else did.scope,
        "name": None if did is None else did.name,
        "destination": destination,
    }


def summed(totals: "Iterable[TransferTotal]") -> str:
    """Say in a sentence how much there is."""
    files = dict.fromkeys(_STATES, 0)
    left = 0
    for one in totals:
        files[one.state.value] += one.files
        left += one.bytes if one.state.value != "FAILED" else 0
    queued, under_way, given_up = files.values()
    return f"{under_way} under way, {queued} in the queue ({human_bytes(left)} to copy), {given_up} given up."


@command.command("show")
@click.argument("did", type=DID)
@click.option("--to", "destination", metavar="RSE", help="Only to this RSE.")
@pass_session
def show(session: Session, /, *, did: DidName, destination: str | None) -> None:
    """Show all that is known of the copies of a file: the request, who has it, the rules that wait, what was tried."""
    found = session.client.show_transfers(did.scope, did.name, destination)
    if session.output.format is Format.TABLE:
        for number, one in enumerate(found):
            _show(session, one, first=not number)
        return
    session.output.records([one.model_dump(mode="json") for one in found])


def _show(session: Session, one: "TransferDetail", *, first: bool) -> None:
    out = session.output
    replica = "no replica" if one.replica is None else f"replica {one.replica}"
    out.lines("line", [*([] if first else [""]), f"{one.scope}:{one.name} to {one.destination}: {replica}"])
    if one.request is None:
        out.lines("line", ["No copy is asked for now."])
    else:
        out.record({**one.request.model_dump(mode="json"), "fence": one.fence})
    for title, columns, rows in (("Rules", _LOCKS, one.locks), ("Tried before", _ATTEMPTS, one.attempts)):
        if rows:
            out.lines("line", ["", title])
            out.rows(columns, (row.model_dump(mode="json") for row in rows))


def _order_options(function: F) -> F:
    function = click.option("--reason", metavar="TEXT", help="Why; kept with what was done.")(function)
    function = dry_run_option(_choice_options(function))
    return click.argument("dids", type=DID, nargs=-1)(function)


def _orders(session: Session, dids: tuple[DidName, ...], given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is asked, once for each DID."""
    if not dids and given["rule"] is None and given["destination"] is None:
        raise click.UsageError("Which transfers? Give DIDs, --rule or --to.")
    for did in dids or (None,):
        yield {
            **_choice(session, given["rule"], did, given["destination"]),
            "reason": given["reason"],
            "dry_run": given["dry_run"],
        }


@command.command("retry")
@_order_options
@pass_session
def retry(session: Session, /, *, dids: tuple[DidName, ...], **given: Any) -> None:
    """Have transfers be due now, with all their attempts; those that were given up, or taken back, begin anew.

    \b
    arriero transfer retry --to IN2P3_RAW_DISK
    arriero transfer retry raw:LSSTComCam/20241108/raw-0001.fits --rule 4be2
    """  # noqa: D301 - click's mark for lines that stay as they are
    _retry(session, _orders(session, dids, given))


@command.command("boost")
@_order_options
@click.option("--priority", type=click.IntRange(1, 5), default=5, show_default=True, help="5 is first.")
@pass_session
def boost(session: Session, /, *, dids: tuple[DidName, ...], priority: int, **given: Any) -> None:
    """Have transfers come before others: some files of a rule, or all that goes to an RSE. What `retry` does, it does too."""
    _retry(session, _orders(session, dids, given), priority=priority)


def _retry(session: Session, orders: Iterable[dict[str, Any]], *, priority: int | None = None) -> None:
    from arriero.registry.operations import RetryOrder

    done = [
        session.client.retry_transfers(RetryOrder(**order, priority=priority)).model_dump()
        for order in orders
    ]
    total = _added(done)
    what = "{due_now} transfers are due now, {tried_again} that were given up are tried again".format(**total)
    if total["resting"]:
        what += "; {resting} of {rules} rules rest: resume them first".format(**total)
    session.output.done(f"{what}.", total)
    if not total["due_now"] and not total["tried_again"]:
        session.output.nothing("Nothing waited.")


@command.command("cancel")
@_order_options
@click.option("--under-way", is_flag=True, help="With --rule: end copies that have begun, too.")
@pass_session
def cancel(session: Session, /, *, dids: tuple[DidName, ...], under_way: bool, **given: Any) -> None:
    """Take transfers back: what a rule has in the queue, or the copies of files, whoever wants them.

    Their locks are STUCK, with who, when and why. They are tried again with `transfer retry`, or when the time of their
    rule comes. A copy that has begun ends within seconds.

    \b
    arriero transfer cancel raw:LSSTComCam/20241108/raw-0001.fits --to IN2P3_RAW_DISK --reason 'wrong header'
    arriero transfer cancel --rule 4be2
    """  # noqa: D301 - click's mark for lines that stay as they are
    from arriero.registry.operations import CancelOrder

    if not dids and given["rule"] is None:
        raise click.UsageError("Which transfers? Give files, or --rule.")
    done = [
        session.client.cancel_transfers(CancelOrder(**order, under_way=under_way)).model_dump()
        for order in _orders(session, dids, given)
    ]
    total = _added(done)
    what = "{queued} transfers in the queue and {under_way} under way were taken back".format(**total)
    if given["dry_run"]:
        what = what.replace("were", "would be")
    if total["shared"]:
        what += "; {shared} that other rules want too were left alone".format(**total)
    session.output.done(f"{what}.", total)
    if not total["queued"] and not total["under_way"]:
        session.output.nothing("There was nothing to take back.")


def _added(done: list[dict[str, Any]]) -> dict[str, int]:
    return {key: sum(one[key] for one in done) for key in done[0]}
