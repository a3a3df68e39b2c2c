"""``arriero rule explain``: why a rule is as it is, for a person at a terminal."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.output import Column, Format, Kind, human_bytes, human_seconds
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.registry.explanations import (
        Advice,
        ExplainedRse,
        Link,
        NextLook,
        RuleExplanation,
        UnplacedGroups,
        Wait,
    )

_RSES = [
    Column("rse", "RSE"),
    Column("chosen"),
    Column("files", kind=Kind.NUMBER),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("ok_files", "OK", Kind.NUMBER),
    Column("replicating_files", "REPLICATING", Kind.NUMBER),
    Column("stuck_files", "STUCK", Kind.NUMBER),
    Column("why"),
]
_UNPLACED = [
    Column("groups", kind=Kind.NUMBER),
    Column("code"),
    Column("age_s", "SINCE", Kind.SECONDS),
    Column("example"),
    Column("reason"),
]
_WAITS = [
    Column("files", kind=Kind.NUMBER),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("rse", "RSE"),
    Column("state"),
    Column("code"),
    Column("age_s", "SINCE", Kind.SECONDS),
    Column("attempts", kind=Kind.NUMBER),
    Column("source"),
    Column("next"),
    Column("example"),
    Column("sentence", "WHY"),
]
_LINKS = [
    Column("source"),
    Column("destination"),
    Column("files", kind=Kind.NUMBER),
    Column("bytes", "SIZE", Kind.BYTES),
    Column("running", kind=Kind.NUMBER),
    Column("rate", "RATE OF ONE"),
    Column("eta_s", "TAKES", Kind.SECONDS),
]
_RSES_SHOWN = 30
"""Those that were not chosen, beyond this many, are counted only."""


@click.command("explain")
@click.argument("rule_id", metavar="ID")
@pass_session
def explain(session: Session, /, *, rule_id: str) -> None:
    """Tell why a rule is as it is, and what can be done about it.

    Which RSEs were chosen or dropped and why; what its files wait for, by reason, each with one example, the attempts and
    the time of the next; how long the rest takes at the pace of the last copies. The first digits of the id are enough.
    With -o json everything is one object, with -o csv the reasons are lines.
    """
    told = session.client.explain_replication_rule(session.client.resolve_rule_id(rule_id))
    match session.output.format:
        case Format.JSON | Format.JSONL:
            session.output.record(told.model_dump(mode="json"))
        case Format.CSV:
            session.output.rows(_WAITS, [_wait(wait, told.now) for wait in told.waits])
        case Format.TABLE:
            _show(session, told)


def _show(session: Session, told: "RuleExplanation") -> None:
    out = session.output
    out.lines("line", _head(told))
    sections: list[tuple[str, Sequence[Column], list[dict[str, Any]]]] = [
        ("RSEs", _RSES, list(_rses(told.rses))),
        ("Without a place", _UNPLACED, [_unplaced(one, told.now) for one in told.unplaced]),
        ("What files wait for", _WAITS, [_wait(one, told.now) for one in told.waits]),
        ("Left to copy", _LINKS, [_link(one) for one in told.ending.links]),
    ]
    for title, columns, rows in sections:
        if rows:
            out.lines("line", ["", title])
            out.rows(columns, rows)
    hidden = _hidden(told.rses)
    if hidden:
        out.lines("line", [f"{hidden} more RSEs were not chosen; -o json has them."])
    if told.waits_left_out:
        out.lines("line", [f"{told.files_left_out} more locks wait, for {told.waits_left_out} more reasons."])
    if told.advice:
        out.lines("line", ["", "What you can do", *_advice(told.advice)])


def _head(told: "RuleExplanation") -> Iterator[str]:
    rule = told.rule
    weighed = f", weighed by {rule.weight}" if rule.weight else ""
    yield f"Rule {rule.id} of {rule.account} on {_line(f'{rule.scope}:{rule.name}')} ({rule.did_type.lower()}):"
    copies = "1 copy" if rule.copies == 1 else f"{rule.copies} copies"
    yield f"{copies} on {_line(rule.rse_expression)}, grouping {rule.grouping}{weighed}"
    since = f"{rule.state} since {human_seconds(_age(rule.since, told.now))}"
    yield since + (f", {rule.code}: {_line(rule.reason or '')}" if rule.code else "")
    left = f"; {human_bytes(rule.bytes_left)} left" if rule.bytes_left else ""
    yield (f"Locks: {rule.locks_ok} OK, {rule.locks_replicating} replicating, {rule.locks_stuck} stuck{left}")
    if told.fault:
        yield f"No RSE can be chosen: {_line(told.fault)}"
    yield _next_look(told.next_look, told.now)
    ending = told.ending
    when = "unknown" if ending.eta_s is None else human_seconds(ending.eta_s)
    yield f"To the end: {when}. {ending.reason}"


def _next_look(look: "NextLook", now: datetime) -> str:
    match look.state:
        case "none":
            said = "Next look: none, nothing about it is due"
        case "now":
            said = "Next look: a worker has it right now"
        case "due":
            said = "Next look: due now"
        case "later":
            said = f"Next look: in {human_seconds(_until(look.at, now))}"
    if look.retry_at is not None and look.retry_at > now:
        said += f"; what is stuck is tried again in {human_seconds(_until(look.retry_at, now))}"
    if look.items_left:
        counted = (f"{count} {kind}" for kind, count in look.items_left.items())
        said += f"; to be looked at: {', '.join(counted)}"
    if look.reason and look.attempt:
        said += f"; the last look failed ({look.attempt} in a row): {_line(look.reason)}"
    return said


def _rses(rses: "Sequence[ExplainedRse]") -> Iterator[dict[str, Any]]:
    left = _RSES_SHOWN
    for one in rses:
        if not one.chosen:
            left -= 1
            if left < 0:
                return
        why = _line(one.reason) + (f"; but now it {_line(one.trouble)}" if one.trouble and one.code else "")
        if one.trouble and not one.code:
            why += f"; but {_line(one.trouble)}"
        yield {**one.model_dump(), "why": why}


def _hidden(rses: "Sequence[ExplainedRse]") -> int:
    return max(sum(not one.chosen for one in rses) - _RSES_SHOWN, 0)


def _unplaced(one: "UnplacedGroups", now: datetime) -> dict[str, Any]:
    example = "" if one.example is None else _line(f"{one.example.scope}:{one.example.name}")
    told = {"groups": one.groups, "code": one.code, "reason": _line(one.reason)}
    return {**told, "age_s": _age(one.since, now), "example": example}


def _wait(one: "Wait", now: datetime) -> dict[str, Any]:
    example = "" if one.example is None else _line(f"{one.example.scope}:{one.example.name}")
    same = one.model_dump(include={"files", "bytes", "rse", "code", "attempts", "source"})
    following = _next_attempt(one, now)
    told = {"state": one.state.value, "age_s": _age(one.since, now), "next": following}
    return {**same, **told, "example": example, "sentence": _line(one.sentence)}


def _next_attempt(one: "Wait", now: datetime) -> str:
    if one.request_state == "SUBMITTED":
        return "running"
    if one.next_attempt_at is None:
        return ""
    seconds = _until(one.next_attempt_at, now)
    return f"in {human_seconds(seconds)}" if seconds else "due"


def _link(one: "Link") -> dict[str, Any]:
    rate = "unknown" if one.rate is None else f"{human_bytes(one.rate)}/s"
    return {**one.model_dump(exclude={"rate"}), "rate": rate, "source": one.source or "any"}


def _advice(advice: "Sequence[Advice]") -> Iterator[str]:
    for one in advice:
        yield f"- {one.code} ({_line(one.about)}): {one.sentence}"
        yield from (f"    {_line(command)}" for command in one.commands)


def _age(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)


def _until(at: datetime | None, now: datetime) -> float:
    return 0.0 if at is None else max((at - now).total_seconds(), 0.0)


def _line(text: str) -> str:
    """Text on one line: a name with a line break must not look like two lines of ours."""
    return text.replace("\\", "\\\\").replace("\n", "\\n") if "\n" in text else text
