"""Which advice a rule needs: each reason once, the rule's own first. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from arriero.registry.explanations import (
    Advice,
    ExplainedRse,
    ExplainedRule,
    NextLook,
    UnplacedGroups,
    Wait,
)
from arriero.registry.services.rule_advice import advise
from arriero.registry.states import RuleState

OVERDUE_S = 60
"""How late an evaluation has to be before somebody is told, seconds: the sweeps take less."""

_BY_THEMSELVES = frozenset({"copying", "retry_now", "released"})
"""Codes of what needs nobody."""


def advice_for(
    rule: ExplainedRule,
    next_look: NextLook,
    now: datetime,
    fault_code: str | None,
    *,
    rses: Sequence[ExplainedRse],
    unplaced: Sequence[UnplacedGroups],
    waits: Sequence[Wait],
) -> list[Advice]:
    """Say what can be done, each reason once.

    Parameters
    ----------
    now
        The database's clock.
    fault_code
        Why no RSE can be chosen at all.
    rses, unplaced, waits
        As they are told.
    """
    words = {"rule": rule.id, "account": rule.account, "weight": rule.weight}
    given = list(_of_the_rule(rule, next_look, now, fault_code, words))
    # an RSE that has dropped out matters where something has no place, or was placed there
    matters = bool(unplaced) or rule.code == "not_enough_rses"
    for code, named in _by_code(one for one in rses if one.code and (matters or one.chosen)):
        given.append(advise(code, _listed(named), rse=named[0], **words))
    given += [advise(one.code, f"{one.groups} groups without a place", **words) for one in unplaced]
    known = {one.code for one in given}
    for code, found in _waiting(waits):
        if code in known:
            # said of its RSE already
            continue
        first = found[0]
        name = None if first.example is None else f"{first.example.scope}:{first.example.name}"
        scope = None if first.example is None else first.example.scope
        about = f"{sum(one.files for one in found)} files at {_listed([one.rse for one in found])}"
        given.append(advise(code, about, rse=first.rse, file=name, scope=scope, **words))
    said = {one.code for one in given}
    if rule.state is RuleState.STUCK and rule.code is not None and rule.code not in said:
        given.append(advise(rule.code, "the rule", **words))
    return list({(one.code, one.about): one for one in given}.values())


def _of_the_rule(
    rule: ExplainedRule,
    next_look: NextLook,
    now: datetime,
    fault_code: str | None,
    words: dict[str, str | None],
) -> Iterator[Advice]:
    if rule.state is RuleState.WAITING_APPROVAL:
        yield advise("waiting_approval", "the rule", **words)
    elif rule.state is RuleState.SUSPENDED:
        yield advise(rule.code if rule.code == "by_hand" else "suspended", "the rule", **words)
    elif (
        next_look.state == "due"
        and next_look.at is not None
        and (now - next_look.at).total_seconds() > OVERDUE_S
    ):
        yield advise("evaluation_overdue", "the rule", **words)
    if fault_code is not None:
        yield advise(fault_code, "the rule", **words)


def _by_code(rses: Iterable[ExplainedRse]) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for one in rses:
        if one.code is not None:
            found.setdefault(one.code, []).append(one.rse)
    yield from sorted(found.items())


def _waiting(waits: Sequence[Wait]) -> Iterator[tuple[str, list[Wait]]]:
    found: dict[str, list[Wait]] = {}
    for one in waits:
        if one.code not in _BY_THEMSELVES:
            found.setdefault(one.code, []).append(one)
    yield from found.items()


def _listed(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
