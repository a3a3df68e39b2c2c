"""Why a rule is as it is: which RSEs and why, what its files wait for, until when, and what can be done about it.

A fixed number of statements of one moment, whatever the number of files: two passes over the rule's locks
(docs/adr/0019).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.explanations import (
    DidPlace,
    Ending,
    ExplainedRse,
    ExplainedRule,
    NextLook,
    RuleExplanation,
    UnplacedGroups,
    Wait,
    WaitExample,
)
from arriero.registry.ports import JudgedRse, Judgement
from arriero.registry.services.context import Context
from arriero.registry.services.hindrances import (
    Hindrance,
    Hindrances,
    load_hindrances,
    next_attempt,
    told,
)
from arriero.registry.services.rse_health import LINK_BUSY
from arriero.registry.services.rule_endings import Measured, Pace, ToCopy, estimate
from arriero.registry.services.rule_explanation_advice import advice_for
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import LockState, RequestState, RuleState
from arriero.registry.store import rule_explanation as store

MAX_WAITS = 50
"""Reasons that are listed, each with an example; the rest are counted."""

_SAYINGS: Mapping[str, str] = {
    store.COPYING: "being copied",
    store.QUEUED: "in the queue for a copy",
    store.ANNOUNCED: "a client has announced that it brings it",
    store.STUCK: "stuck, and nobody has said why",
}

_TURNS = frozenset({LINK_BUSY, "multihop", "site_mover"})
"""Codes of requests that have not failed: they wait for their turn, or for a copy on their way."""


_SAME = (
    *("account", "scope", "name", "did_type", "rse_expression", "copies", "grouping", "weight", "activity"),
    *("priority", "state", "code", "reason", "created_at", "expires_at"),
    *("locks_ok", "locks_replicating", "locks_stuck"),
)
"""Of the rule's row, told as it is."""


_SAME_OF_WAITS = (
    *("state", "code", "files", "bytes", "since", "request_state", "attempts"),
    *("next_attempt_at", "last_attempt_at"),
)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the database says, read in one snapshot."""

    rule: RowMapping
    standing: RowMapping
    items: Mapping[str, int]
    names: Mapping[int, str]
    sums: Sequence[RowMapping]
    placed: Sequence[RowMapping]
    unplaced: Sequence[RowMapping]
    waits: Sequence[store.Waiting]
    examples: Mapping[tuple[int, int], RowMapping]
    rates: Sequence[RowMapping]
    hindrances: Hindrances
    judgement: Judgement | None
    """None: this process has no rule engine."""


def explain_rule(context: Context, rule_id: str) -> RuleExplanation:
    """Tell why a rule is as it is.

    Raises
    ------
    NotFound
        There is no such rule.
    """
    uuid = parse_rule_id(rule_id)
    with context.database.snapshot(one_moment=True) as connection:
        facts = _read(context, connection, require_rule(connection, uuid))
    rule = _rule(facts)
    next_look = _next_look(facts)
    rses = _rses(facts)
    unplaced = [_unplaced(row) for row in facts.unplaced]
    waits = [_wait(facts, one) for one in facts.waits[:MAX_WAITS]]
    judgement = facts.judgement or Judgement()
    return RuleExplanation(
        now=facts.standing["now"],
        rule=rule,
        next_look=next_look,
        fault=judgement.fault,
        rses=rses,
        unplaced=unplaced,
        waits=waits,
        waits_left_out=max(len(facts.waits) - MAX_WAITS, 0),
        files_left_out=sum(one.files for one in facts.waits[MAX_WAITS:]),
        ending=_ending(facts),
        advice=advice_for(
            rule, next_look, facts.standing["now"], judgement.code, rses=rses, unplaced=unplaced, waits=waits
        ),
    )


def _read(context: Context, connection: Connection, rule: RowMapping) -> _Facts:
    key = rule["id"]
    waits = store.waits(connection, key)
    shown = {(one.file_id, one.rse_id) for one in waits[:MAX_WAITS]}
    return _Facts(
        rule=rule,
        standing=store.standing(connection, key),
        items=store.items_left(connection, key),
        names=store.rse_names(connection),
        sums=store.lock_sums(connection, key),
        placed=store.placed_groups(connection, key),
        unplaced=store.unplaced(connection, key),
        waits=waits,
        examples=store.examples(connection, key, shown),
        rates=store.recent_rates(connection),
        hindrances=load_hindrances(connection),
        judgement=None if context.engine is None else context.engine.judge(connection, key),
    )


def _rule(facts: _Facts) -> ExplainedRule:
    row = facts.rule
    return ExplainedRule(
        **{key: row[key] for key in _SAME},
        id=row["uuid"].hex,
        since=facts.standing["since"],
        child_rule_id=None if row["child_uuid"] is None else row["child_uuid"].hex,
        bytes_left=sum(int(one["bytes"]) for one in facts.sums if one["state"] is not LockState.OK),
    )


def _next_look(facts: _Facts) -> NextLook:
    row, items = facts.standing, dict(facts.items)
    if not row["awaited"]:
        return NextLook(state="none", items_left=items)
    told: dict[str, Any] = {key: row[key] for key in ("retry_at", "attempt", "code", "reason")}
    if row["lease_until"] is not None and row["lease_until"] > row["now"]:
        return NextLook(state="now", at=row["lease_until"], items_left=items, **told)
    state = "due" if row["not_before"] <= row["now"] else "later"
    return NextLook(state=state, at=row["not_before"], items_left=items, **told)


def _rses(facts: _Facts) -> list[ExplainedRse]:
    counted: dict[int, Counter[str]] = defaultdict(Counter)
    for row in facts.sums:
        one = counted[row["rse_id"]]
        one["files"] += row["files"]
        one["bytes"] += int(row["bytes"])
        one[f"{row['state'].lower()}_files"] += row["files"]
    placed = {row["rse_id"]: row for row in facts.placed}
    judged = {one.rse_id: one for one in facts.judgement.rses} if facts.judgement is not None else {}
    total = sum(one["files"] for one in counted.values())
    said = _Sayings(facts, total, anything=bool(counted or placed))
    found = [
        ExplainedRse(
            rse=facts.names.get(rse_id, "?"),
            **said.of(judged.get(rse_id), placed.get(rse_id), counted.get(rse_id)),
            **counted.get(rse_id, Counter()),
        )
        for rse_id in counted.keys() | placed.keys() | judged.keys()
    ]
    return sorted(found, key=lambda one: (not one.chosen, one.code is not None, one.rse))


@dataclass(frozen=True, slots=True)
class _Sayings:
    """Why RSEs were chosen or not, in words."""

    facts: _Facts
    total: int
    """Locks of the rule."""
    anything: bool
    """Whether anything was placed."""

    def of(
        self, judged: JudgedRse | None, placed: RowMapping | None, counted: Mapping[str, int] | None
    ) -> dict[str, Any]:
        """Give the fields that say so."""
        code = None if judged is None else judged.code
        if placed is None and not counted:
            assert judged is not None  # nothing else brings an RSE here
            first = "others came first" if self.anything else "can be chosen"
            merits = f"{first} ({judged.reason})" if judged.reason else first
            return {"chosen": False, "code": code, "reason": judged.reason if code else merits}
        trouble = judged.reason if judged is not None and code else None
        if judged is None and self.facts.judgement is not None and self.facts.judgement.fault is None:
            trouble = "the rule's expression does not name it any more"
        groups = 0 if placed is None else placed["groups"]
        reason = self._by_file(counted or {}) if placed is None else _by_group(placed)
        return {"chosen": True, "code": code, "reason": reason, "trouble": trouble, "groups": groups}

    def _by_file(self, counted: Mapping[str, int]) -> str:
        rule = self.facts.rule
        share = 100 * counted.get("files", 0) / max(self.total, 1)
        weighed = "" if rule["weight"] is None else f", by {rule['weight']}"
        return f"{share:.0f}% of the locks: {rule['copies']} of the RSEs for each file{weighed}"


def _by_group(placed: RowMapping) -> str:
    reason = placed["reason"] or "chosen before reasons were kept"
    first = f"{placed['scope']}:{placed['name']}: {reason}"
    return first if placed["groups"] == 1 else f"{first}; and {placed['groups'] - 1} more groups"


def _unplaced(row: RowMapping) -> UnplacedGroups:
    example = None if row["name"] is None else DidPlace(scope=row["scope"], name=row["name"])
    same = {key: row[key] for key in ("code", "groups", "since", "reason")}
    return UnplacedGroups(**same, example=example)


def _wait(facts: _Facts, one: store.Waiting) -> Wait:
    example = facts.examples.get((one.file_id, one.rse_id))
    same = {key: getattr(one, key) for key in _SAME_OF_WAITS}
    sentence = _sentence(one, example)
    found = _hindrance(facts, one)
    if found is not None:
        before = None if one.code == store.QUEUED else sentence
        sentence = str(told(found, before))
        times = ("next_attempt_at", "last_attempt_at")
        same |= {"code": found.code, **{key: next_attempt(found, same[key]) for key in times}}
    return Wait(
        **same,
        rse=facts.names.get(one.rse_id, "?"),
        source=None if one.source_id is None else facts.names.get(one.source_id),
        sentence=sentence,
        example=None if example is None else WaitExample.model_validate(dict(example)),
    )


def _hindrance(facts: _Facts, one: store.Waiting) -> Hindrance | None:
    """What stands in the way of copies that wait in the queue, beside what they say themselves."""
    if one.request_state is not RequestState.QUEUED or one.state is not LockState.REPLICATING:
        return None
    said = None if one.code == store.QUEUED else one.code
    return facts.hindrances.of(one.rse_id, facts.rule["activity"], said)


def _sentence(one: store.Waiting, example: RowMapping | None) -> str:
    reason = None if example is None else example["reason"] or example["last_error"]
    if one.state is LockState.STUCK:
        return str(reason or _SAYINGS.get(one.code) or one.code)
    if one.code in _SAYINGS:
        return _SAYINGS[one.code]
    if one.code in _TURNS:
        return f"waits: {reason or one.code}"
    return f"has failed and is tried again: {reason or one.code}"


def _ending(facts: _Facts) -> Ending:
    if facts.rule["state"] is RuleState.OK:
        return Ending(eta_s=0.0, at=facts.standing["now"], reason="everything is there", links=[])
    ending = estimate(_to_copy(facts), _measured(facts), facts.names, facts.standing["now"])
    apart = list(_apart(facts))
    return ending.model_copy(update={"reason": "; ".join([ending.reason, *apart])})


def _to_copy(facts: _Facts) -> list[ToCopy]:
    left: dict[int, ToCopy] = {}
    for wait in facts.waits:
        if wait.request_state not in (RequestState.QUEUED, RequestState.SUBMITTED):
            continue
        one = left.setdefault(wait.rse_id, ToCopy(wait.rse_id))
        one.files += wait.files
        one.bytes += wait.bytes
        if wait.request_state is RequestState.SUBMITTED:
            one.running += wait.files
            if wait.source_id is not None:
                one.sources.add(wait.source_id)
        if wait.last_attempt_at is not None:
            one.not_before = max(one.not_before or wait.last_attempt_at, wait.last_attempt_at)
    return list(left.values())


def _measured(facts: _Facts) -> Iterator[Measured]:
    for row in facts.rates:
        hour, day = (
            Pace(row[f"{window}_files"], int(row[f"{window}_bytes"]), float(row[f"{window}_seconds"]))
            for window in ("hour", "day")
        )
        yield Measured(row["source_id"], row["destination_id"], hour, day)


def _apart(facts: _Facts) -> Iterator[str]:
    """Say what is not a matter of time."""
    stuck = facts.rule["locks_stuck"]
    if stuck:
        yield f"{stuck} locks that are stuck are not in it"
    announced = sum(one.files for one in facts.waits if one.code == store.ANNOUNCED)
    if announced:
        yield f"{announced} that clients have announced are not in it"
    if facts.unplaced:
        yield f"{sum(row['groups'] for row in facts.unplaced)} groups without a place are not in it"
    if any(kind != "STUCK" for kind in facts.items):
        yield "what has not been looked at yet is not in it"
