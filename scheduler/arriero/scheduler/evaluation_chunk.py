"""What one transaction of an evaluation decides about a chunk of a rule's files, before anything is carried out.

`arriero.scheduler.evaluate` carries it out in the background; `arriero.scheduler.rule_engine` tells of it, or carries it
out at once. One place for both, so that a plan is what happens.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from arriero.registry.states import DidType, LockState
from arriero.scheduler import evaluation_effects as effects
from arriero.scheduler import evaluation_place as place
from arriero.scheduler import evaluation_resolve as resolve
from arriero.scheduler import temporary
from arriero.scheduler.account_quota import quota_of
from arriero.scheduler.core.choose import Candidate, Choice, Group, choose
from arriero.scheduler.core.spread import SLOTS, Slot, spread
from arriero.scheduler.evaluation_rule import Eligible, RuleFacts, sources
from arriero.scheduler.evaluation_words import Chunk, Window
from arriero.scheduler.rse_catalogue import RseCatalogue


@dataclass(slots=True)
class Pass:
    """What the chunks of one evaluation have in common."""

    after_file_id: int = 0
    unplaced: int = 0
    newly_waiting: int = 0
    refusals: list[str] = field(default_factory=list)
    observe: Callable[[Group, Choice], None] | None = None
    """Told of every choice."""

    def refuse(self, groups: int, reason: str) -> None:
        self.unplaced += groups
        if len(self.refusals) < 3:
            self.refusals.append(reason)

    @property
    def reason(self) -> str | None:
        """Why groups have no place; None when all have."""
        if not self.unplaced:
            return None
        more = self.unplaced - len(self.refusals)
        return "; ".join(self.refusals) + (f"; and {more} more groups" if more > 0 else "")


def decide_chunk(
    tx: Connection,
    rule: RuleFacts,
    known: RseCatalogue,
    eligible: Eligible,
    progress: Pass,
    *,
    limit: int,
    stuck_retry_s: float,
    hold: bool = True,
) -> tuple[Chunk, Counter[LockState]]:
    """Decide about the next files of a rule; what is decided stands in temporary tables.

    Parameters
    ----------
    progress
        What the chunks before this one noted; this one notes its own.
    limit
        Files of a chunk.
    stuck_retry_s
        After so many seconds a copy that failed is due again.
    hold
        Hold the replicas that the decision counts on, so that it can be carried out.

    Returns
    -------
    tuple
        The chunk, and how many locks have left each state because nothing asks for them any more.
    """
    temporary.prepare(tx, *temporary.EVALUATION_TABLES)
    resolve.note_rses(tx, eligible.weights, sources(rule, known))
    resolve.resolve_sets(tx, rule.scope)
    dropped: Counter[LockState] = Counter()
    if progress.after_file_id == 0:
        resolve.find_gone(tx, rule.scope)
        dropped.subtract(effects.drop_gone(tx, rule.scope))
        effects.drop_places(tx, rule.scope)
    chunk = resolve.resolve_files(tx, rule.scope, after_file_id=progress.after_file_id, limit=limit)
    temporary.analyze(tx, temporary.eval_files)
    slots = _place(tx, rule, eligible, progress, files=chunk.files)
    resolve.find_elsewhere(tx, rule.scope)
    dropped.subtract(effects.drop_gone(tx, rule.scope))
    upto = None if chunk.complete else chunk.last_file_id
    window = Window(progress.after_file_id, upto, stuck_retry_s)
    if hold:
        place.lock_replicas(tx, rule.scope, window)
    place.decide_locks(tx, rule.scope, window, slots=slots)
    temporary.analyze(tx, temporary.eval_placed)
    progress.after_file_id = chunk.last_file_id
    return chunk, dropped


def _place(
    tx: Connection,
    rule: RuleFacts,
    eligible: Eligible,
    progress: Pass,
    *,
    files: int,
) -> int:
    """Choose the RSEs of the groups of this chunk; give the number of slots when files are placed by themselves."""
    if rule.scope.by_file and rule.scope.did_type is not DidType.FILE:
        place.note_slots(tx, _spread(tx, rule, eligible, progress) if files else ())
        return SLOTS
    chosen = _place_groups(tx, rule, eligible, progress)
    if rule.scope.did_type is DidType.FILE:
        place.note_slots(tx, [Slot(0, rank, rse_id) for rank, (_, rse_id) in enumerate(chosen)])
    else:
        place.place_groups(tx, rule.scope, chosen)
        place.note_slots(tx, ())
    return 1


def _spread(tx: Connection, rule: RuleFacts, eligible: Eligible, progress: Pass) -> Sequence[Slot]:
    copies, fault = rule.scope.copies, eligible.fault
    quota = quota_of(tx, rule)
    weights = eligible.weights if quota is None else quota.without_full(eligible.weights)
    if fault is None and len(weights) < copies:
        fault = f"limits of the account leave {len(weights)} RSEs for {copies} copies"
    if fault is not None:
        progress.refuse(1, f"{rule.counts.scope}:{rule.counts.name}: {fault}")
        return ()
    return spread(weights, copies, seed=rule.seed)


def _place_groups(
    tx: Connection, rule: RuleFacts, eligible: Eligible, progress: Pass
) -> list[tuple[int, int]]:
    groups = resolve.find_groups_to_choose(tx, rule.scope)
    present = resolve.present_bytes(tx, rule.scope)
    quota = quota_of(tx, rule) if groups else None
    chosen: list[tuple[int, int]] = []
    room = {one.rse_id: one for one in eligible.candidates}
    for group in groups:
        if eligible.fault is not None:
            progress.refuse(1, f"{group.name}: {eligible.fault}")
            continue
        there = present.get(group.group_id, {})
        chosen_from = Group(group.name, group.bytes, there)
        pick = partial(_choice, rule, chosen_from)
        candidates = list(room.values())
        if quota is None:
            choice = pick(candidates)
        else:
            choice = quota.choose((group.group_id, group.bytes), candidates, rule.scope.copies, pick)
        if progress.observe is not None:
            progress.observe(chosen_from, choice)
        if not choice.placed:
            progress.refuse(1, f"{group.name}: {choice.reason}")
        for rse_id in choice.rse_ids:
            chosen.append((group.group_id, rse_id))
            room[rse_id] = room[rse_id].taken(group.bytes - there.get(rse_id, 0))
    return chosen


def _choice(rule: RuleFacts, group: Group, candidates: Sequence[Candidate]) -> Choice:
    return choose(
        group,
        candidates,
        rule.scope.copies,
        seed=rule.seed,
        weight=rule.weight,
        ignore_availability=rule.ignore_availability,
    )
