"""The registry's port for decisions about rules (`arriero.registry.ports.RuleEngine`): plans, and placing at once.

The code that decides is the evaluations' own. Nothing here begins or ends a transaction, and no queue is touched.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, func, select

from arriero.registry.errors import NotFound
from arriero.registry.ports import Judgement, PlannedRse, RulePlan
from arriero.registry.schema.tables import locks
from arriero.registry.settings import Settings
from arriero.registry.states import LockState, ReplicaState, RuleState
from arriero.scheduler import evaluation_effects as effects
from arriero.scheduler import evaluation_items as items
from arriero.scheduler import rule_changes
from arriero.scheduler.core import states
from arriero.scheduler.core.choose import Choice, Group
from arriero.scheduler.evaluation_chunk import decide_chunk
from arriero.scheduler.evaluation_rule import (
    Eligible,
    RuleFacts,
    eligible,
    eligible_of,
    lock_rule,
    unplaced_reason,
)
from arriero.scheduler.evaluation_words import COPY, OK, WAIT
from arriero.scheduler.rse_catalogue import RseCatalogue, load_rses
from arriero.scheduler.rule_explain import judge_rses
from arriero.scheduler.temporary import eval_files, eval_placed, eval_seen, prepare

_PARTS = {OK: "there", WAIT: "under_way", COPY: "to_move"}
"""Where the locks of an outcome are counted; those of any other are stuck."""


class Engine:
    """Decides about rules at once, in the caller's transaction.

    Parameters
    ----------
    settings
        Of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def judge(self, connection: Connection, rule_id: int) -> Judgement:
        """Tell which RSEs the rule could place more on now; only reads."""
        return judge_rses(connection, rule_id)

    def plan(self, connection: Connection, rule_id: int) -> RulePlan:
        """Tell what evaluating a new rule would do; the transaction must be rolled back.

        Replicas are not held, so nobody waits.
        """
        rule = _locked(connection, rule_id)
        known = load_rses(connection)
        chosen_from = eligible(rule, known)
        sums = _Sums()
        prepare(connection, eval_seen)
        while items.are_left(connection, rule.scope):
            decide_chunk(
                connection, rule, known, chosen_from, self._settings, observe=sums.note_choice, is_plan=True
            )
            sums.add(connection)
        return sums.plan(known, chosen_from, rule, unplaced_reason(connection, rule_id))

    def place_at_once(self, connection: Connection, rule_id: int, *, instead_of: int) -> str | None:
        """Place a new rule on what is AVAILABLE where another has OK locks; give why that cannot be done.

        When it cannot, the transaction must be rolled back. The rule's evaluation stays due, and has nothing to do.
        """
        held = locks.c.state == LockState.OK
        places = select(locks.c.rse_id).where(locks.c.rule_id == instead_of, held).distinct()
        among = frozenset(connection.scalars(places))
        known = load_rses(connection)
        while True:
            rule = _on_what_is_there(_locked(connection, rule_id))
            named = [one for one in eligible(rule, known).candidates if one.rse_id in among]
            # no copy is made: neither a blocked RSE nor a full one is in the way, nor a limit of the account
            chosen_from = eligible_of(rule, [replace(one, free=None) for one in named])
            chunk = decide_chunk(connection, rule, known, chosen_from, self._settings)
            lacking = unplaced_reason(connection, rule_id) or _not_there(connection, known)
            if lacking is not None:
                return f"too few copies are there already: {lacking}"
            placed = effects.carry_out(
                connection, rule.scope, chunk.window, activity=rule.activity, priority=rule.priority
            )
            chunk.dropped.update(placed.deltas)
            complete = not items.are_left(connection, rule.scope)
            change = rule_changes.changed(rule.counts, chunk.dropped, unfinished=not complete)
            rule_changes.write(connection, [change])
            if complete:
                return None


def _locked(connection: Connection, rule_id: int) -> RuleFacts:
    rule = lock_rule(connection, rule_id)
    if rule is None:
        raise NotFound(f"there is no rule {rule_id}", rucio_class="RuleNotFound")
    return rule


def _on_what_is_there(rule: RuleFacts) -> RuleFacts:
    scope = replace(rule.scope, there=(ReplicaState.AVAILABLE,))
    return replace(rule, scope=scope, ignore_availability=True, ignore_limits=True)


def _not_there(connection: Connection, known: RseCatalogue) -> str | None:
    """Say what would have to be copied, or to wait; None when nothing has to."""
    rows = connection.execute(
        select(eval_placed.c.rse_id, func.count().label("files"))
        .where(eval_placed.c.outcome != OK)
        .group_by(eval_placed.c.rse_id)
        .order_by(func.count().desc(), eval_placed.c.rse_id)
        .limit(3)
    ).all()
    if not rows:
        return None
    missing = ", ".join(f"{row.files} files at {known.by_id[row.rse_id].name}" for row in rows)
    return f"it lacks {missing}"


@dataclass(slots=True)
class _Sums:
    """What the chunks of a plan add up to."""

    files: int = 0
    bytes: int = 0
    counts: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    """For each RSE the figures of `PlannedRse`."""
    reasons: dict[int, str] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note_choice(self, group: Group, choice: Choice) -> None:
        """Keep the first reason for each RSE."""
        for rse_id, reason in zip(choice.rse_ids, choice.reasons, strict=True):
            self.reasons.setdefault(rse_id, f"{group.key}: {reason}")
        for one in choice.dropped:
            self.dropped.setdefault(one.rse_id, one.reason)

    def add(self, connection: Connection) -> None:
        """Add what one chunk has decided."""
        count, size = connection.execute(
            select(func.count(), func.coalesce(func.sum(eval_files.c.bytes), 0))
        ).one()
        self.files += count
        self.bytes += int(size)
        rows = connection.execute(
            select(
                eval_placed.c.rse_id,
                eval_placed.c.outcome,
                func.count().label("files"),
                func.sum(eval_placed.c.bytes).label("bytes"),
            ).group_by(eval_placed.c.rse_id, eval_placed.c.outcome)
        )
        for row in rows:
            self.outcomes[row.outcome] += row.files
            part = _PARTS.get(row.outcome, "stuck")
            counted = self.counts[row.rse_id]
            for key, value in (("files", row.files), ("bytes", int(row.bytes))):
                counted[key] += value
                counted[f"{part}_{key}"] += value

    def plan(
        self, known: RseCatalogue, chosen_from: Eligible, rule: RuleFacts, unplaced: str | None
    ) -> RulePlan:
        stuck = {code: count for code, count in self.outcomes.items() if code not in _PARTS}
        event = states.rule_event(
            replicating=self.outcomes[WAIT] + self.outcomes[COPY],
            stuck=sum(stuck.values()),
            unplaced=unplaced is not None,
            unfinished=False,
        )
        said = [f"{count} locks: {effects.LOCK_REASONS[code]}" for code, count in sorted(stuck.items())]
        state = states.advance(states.RULE_TRANSITIONS, states.Rule.INJECT, event)
        return RulePlan(
            state=RuleState(state.value),
            reason=unplaced or "; ".join(said) or None,
            files=self.files,
            bytes=self.bytes,
            rses=tuple(self._rses(known, chosen_from, rule)),
        )

    def _rses(self, known: RseCatalogue, chosen_from: Eligible, rule: RuleFacts) -> Iterable[PlannedRse]:
        out = {one.rse_id: one.reason for one in chosen_from.dropped}
        share = f"{rule.scope.copies} of the RSEs for each file, by weight" if rule.scope.by_file else ""
        names = {one.rse_id: one.name for one in chosen_from.candidates}
        names |= {rse_id: known.by_id[rse_id].name for rse_id in self.counts}
        for rse_id, name in sorted(names.items(), key=lambda one: (one[0] not in self.counts, one[1])):
            chosen = rse_id in self.counts
            left = out.get(rse_id) or self.dropped.get(rse_id) or "others came first"
            reason = self.reasons.get(rse_id, share) if chosen else left
            yield PlannedRse(rse=name, chosen=chosen, reason=reason, **self.counts.get(rse_id, {}))
