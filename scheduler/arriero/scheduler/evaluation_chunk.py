"""What one transaction of an evaluation decides about a chunk of a rule's files, before anything is carried out.

`arriero.scheduler.evaluate` carries it out in the background; `arriero.scheduler.rule_engine` tells of it, or carries it
out at once. One place for both, so that a plan is what happens.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from arriero.registry.dialect import join_as_written
from arriero.registry.settings import Settings
from arriero.registry.states import LockState
from arriero.scheduler import evaluation_effects as effects
from arriero.scheduler import evaluation_groups as groups
from arriero.scheduler import evaluation_items as items
from arriero.scheduler import evaluation_place as place
from arriero.scheduler import evaluation_resolve as resolve
from arriero.scheduler import temporary
from arriero.scheduler.account_quota import quota_of
from arriero.scheduler.core.choose import Choice, Group, choose
from arriero.scheduler.core.spread import SLOTS, Slot, spread
from arriero.scheduler.evaluation_rule import Eligible, RuleFacts, sources
from arriero.scheduler.evaluation_words import Window
from arriero.scheduler.rse_catalogue import RseCatalogue
from arriero.scheduler.stuck_elsewhere import move_stuck

NOT_ENOUGH = "not_enough_rses"

Observe = Callable[[Group, Choice], None] | None
"""Is told of every choice."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one transaction looks at."""

    window: Window
    dropped: Counter[LockState]
    """How many locks left each state because nothing asks for them any more."""


def decide_chunk(
    tx: Connection,
    rule: RuleFacts,
    known: RseCatalogue,
    eligible: Eligible,
    settings: Settings,
    *,
    files: int | None = None,
    observe: Observe = None,
    is_plan: bool = False,
) -> Chunk:
    """Decide about the next files of a rule; what is decided stands in temporary tables.

    Parameters
    ----------
    eligible
        The RSEs of the rule's expression; they are held.
    files
        To look at, about; None takes those of the settings.
    observe
        Told of every choice.
    is_plan
        Nothing will be carried out: no replica is held, and what a chunk has looked at is kept for the next.
    """
    temporary.prepare(tx, *temporary.EVALUATION_TABLES)
    join_as_written(tx)
    scope = rule.scope
    resolve.note_rses(tx, eligible.weights, sources(rule, known))
    taken = items.take(
        tx, scope, limit=files or settings.evaluation_chunk_files, stuck_retry_s=settings.stuck_retry_s
    )
    if is_plan:
        items.pass_over_seen(tx)
    window = items.window_of(tx, scope, taken)
    resolve.resolve_sets(tx, scope)
    resolve.drop_places(tx, scope)
    dropped: Counter[LockState] = Counter()
    if not window.is_fresh and resolve.find_gone(tx, scope):
        dropped.subtract(effects.drop_gone(tx, scope))
    slots = _place(tx, rule, eligible, window, observe)
    if not window.is_fresh and resolve.find_elsewhere(tx, scope):
        dropped.subtract(effects.drop_gone(tx, scope))
    if scope.by_file and not is_plan and rule.counts.counts[LockState.STUCK]:
        _move_stuck(tx, rule, eligible, settings)
    stuck_retry_s = settings.stuck_retry_s
    place.decide_locks(tx, scope, window, slots=slots, stuck_retry_s=stuck_retry_s, hold=not is_plan)
    return Chunk(window, dropped)


def _place(tx: Connection, rule: RuleFacts, eligible: Eligible, window: Window, observe: Observe) -> int:
    """Find the RSEs of the groups of this chunk; give the number of slots when files are placed by themselves."""
    lacking = resolve.resolve_files(tx, rule.scope, window)
    if rule.scope.by_file:
        place.note_slots(tx, _spread(tx, rule, eligible) if lacking else ())
        return SLOTS
    while lacking and _place_new_groups(tx, rule, eligible, observe):
        # their files may lie in other groups that have a place, or get one
        resolve.forget_groups(tx, rule.scope)
        lacking = resolve.resolve_files(tx, rule.scope, window)
    return 1


def _spread(tx: Connection, rule: RuleFacts, eligible: Eligible) -> Sequence[Slot]:
    copies, fault = rule.scope.copies, eligible.fault
    weights = _weights(tx, rule, eligible)
    if fault is None and len(weights) < copies:
        fault = f"limits of the account leave {len(weights)} RSEs for {copies} copies"
    if fault is not None:
        said = f"{rule.counts.scope}:{rule.counts.name}: {fault}"
        groups.note_unplaced(tx, rule.scope, {rule.scope.did_id: (NOT_ENOUGH, said)})
        return ()
    return spread(weights, copies, seed=rule.seed)


def _weights(tx: Connection, rule: RuleFacts, eligible: Eligible) -> Mapping[int, float]:
    """Weights of the RSEs that can be chosen from, but of those where the account may add nothing."""
    quota = quota_of(tx, rule, coming=1)
    return eligible.weights if quota is None else quota.without_full(eligible.weights)


def _move_stuck(tx: Connection, rule: RuleFacts, eligible: Eligible, settings: Settings) -> None:
    weights = _weights(tx, rule, eligible)
    move_stuck(tx, rule.scope, weights=weights, seed=rule.seed, stuck_retry_s=settings.stuck_retry_s)


def _place_new_groups(tx: Connection, rule: RuleFacts, eligible: Eligible, observe: Observe) -> int:
    """Choose the RSEs of the groups that have none yet; give how many cannot be placed."""
    scope = rule.scope
    if not groups.find_new_groups(tx, scope):
        return 0
    measured = groups.measure_groups(tx, scope, () if eligible.fault is not None else eligible.weights)
    quota = None if eligible.fault is not None else quota_of(tx, rule, sum(group.bytes for group in measured))
    refused: dict[int, tuple[str, str]] = {}
    chosen: list[tuple[int, int, str]] = []
    room = {one.rse_id: one for one in eligible.candidates}
    for group in measured:
        if eligible.fault is not None:
            refused[group.group_id] = NOT_ENOUGH, f"{group.name}: {eligible.fault}"
            continue
        chosen_from = Group(group.name, group.bytes, group.there)
        pick = partial(
            choose,
            chosen_from,
            copies=scope.copies,
            seed=rule.seed,
            weight=rule.weight,
            ignore_availability=rule.ignore_availability,
        )
        candidates = list(room.values())
        if quota is None:
            choice = pick(candidates)
        else:
            choice = quota.choose((group.group_id, group.bytes), candidates, scope.copies, pick)
        if observe is not None:
            observe(chosen_from, choice)
        if not choice.placed:
            refused[group.group_id] = choice.code, f"{group.name}: {choice.reason}"
        for rse_id, why in zip(choice.rse_ids, choice.reasons, strict=True):
            chosen.append((group.group_id, rse_id, why))
            room[rse_id] = room[rse_id].taken(group.bytes - group.there.get(rse_id, 0))
    groups.note_places(tx, scope, chosen)
    groups.note_unplaced(tx, scope, refused)
    return len(refused)
