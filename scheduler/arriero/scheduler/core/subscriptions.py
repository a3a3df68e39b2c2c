"""Which rules a subscription makes of its templates for a DID: Rucio's meaning, but for what docs/adr/0017 names.

Pure: what is not made keeps its reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arriero.rse.errors import InvalidExpression
from arriero.rse.expression import parse
from arriero.rse.rse_index import RseIndex
from arriero.rse.types import RseInfo
from arriero.scheduler.core.choose import Candidate, Group, choose, usable
from arriero.scheduler.core.subscription_filters import UnusableSubscription

ASSOCIATED_SITE = "associated_site"
EXCLUDE_SITE = "exclude_site"
ALGORITHMS = frozenset({ASSOCIATED_SITE, EXCLUDE_SITE})
"""How the rules of one template follow from those of another."""


class Storage:
    """The RSEs that there are.

    Parameters
    ----------
    candidates
        All of them.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.by_name: Mapping[str, Candidate] = {one.name: one for one in candidates}
        self._index = RseIndex(RseInfo(one.name, one.attributes) for one in self.by_name.values())
        self._known: dict[str, frozenset[str]] = {}

    def matching(self, expression: str) -> frozenset[str]:
        """Names of the RSEs that an expression names.

        Raises
        ------
        UnusableSubscription
            It cannot be read, or names none.
        """
        if expression not in self._known:
            try:
                self._known[expression] = parse(expression).evaluate(self._index)
            except InvalidExpression as error:
                raise UnusableSubscription("invalid_expression", f"{expression[:200]}: {error}") from error
        return self._known[expression]

    def attribute(self, rse: str, key: str) -> str | None:
        """Value of an attribute of an RSE."""
        return self.by_name[rse].attributes.get(key)


@dataclass(frozen=True, slots=True)
class Template:
    """What decides where the rules of a template go; the rest is copied into them as it stands."""

    number: int
    """Counted from 1, as ``chained_idx`` does."""
    rse_expression: str
    copies: int | None
    """None for ``*``: as many as there are RSEs."""
    split: bool = False
    """One rule for each RSE."""
    weight: str | None = None
    source: str | None = None
    ignore_availability: bool = False
    chained_idx: int | None = None
    algorithm: str | None = None
    associated_site_idx: int | None = None


def read_templates(given: Sequence[Mapping[str, Any]], *, splits: bool) -> tuple[Template, ...]:
    """Read rule templates in Rucio's shape.

    Parameters
    ----------
    splits
        The filter says ``split_rule``: it holds for all of them.

    Raises
    ------
    UnusableSubscription
        One is chained to none before it, or by an algorithm that there is not.
    """
    found: list[Template] = []
    for number, one in enumerate(given, 1):
        copies = one.get("copies")
        template = Template(
            number=number,
            rse_expression=str(one.get("rse_expression") or ""),
            copies=None if copies == "*" else int(copies or 1),
            split=splits or bool(one.get("split_rule")),
            weight=one.get("weight"),
            source=one.get("source_replica_expression"),
            ignore_availability=bool(one.get("ignore_availability")),
            chained_idx=_whole(one.get("chained_idx")),
            algorithm=one.get("algorithm"),
            associated_site_idx=_whole(one.get("associated_site_idx")),
        )
        if fault := chain_fault(
            number, template.chained_idx, template.algorithm, template.associated_site_idx
        ):
            raise UnusableSubscription("invalid_chain", f"replication_rules {number}: {fault}")
        found.append(template)
    return tuple(found)


def _whole(given: Any) -> int | None:
    return None if given is None else int(given)


def chain_fault(number: int, index: int | None, algorithm: str | None, site: int | None) -> str | None:
    """Say why a template cannot be chained like this; None when it can, or is not chained."""
    if index is None:
        return None
    if not 1 <= index < number:
        return f"chained_idx: {index} is no template before this one"
    if algorithm not in ALGORITHMS:
        return f"algorithm: a chained template needs one of {', '.join(sorted(ALGORITHMS))}"
    if algorithm == ASSOCIATED_SITE and site is None:
        return f"associated_site_idx: missing for {ASSOCIATED_SITE}"
    return None


@dataclass(frozen=True, slots=True)
class WantedRule:
    """A rule that a DID is to have."""

    template: int
    rse_expression: str
    copies: int
    weight: str | None = None
    source: str | None = None
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unmet:
    """What a template asks for and cannot be had now."""

    template: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscription makes of one DID."""

    rules: tuple[WantedRule, ...]
    unmet: tuple[Unmet, ...] = ()


Held = frozenset[tuple[str, str | None]]
"""Rules with one copy that the subscription has on a DID already: the RSE expression, and the source's."""


def wanted_rules(
    templates: Sequence[Template], storage: Storage, *, seed: str, key: str, held: Held = frozenset()
) -> Wanted:
    """Make rules of templates for one DID.

    Parameters
    ----------
    templates
        In their order.
    storage
        The RSEs.
    seed
        The subscription's uuid: a re-run decides the same.
    key
        What tells the DID from others.
    held
        What it has already: counted, and not asked for again.

    Raises
    ------
    UnusableSubscription
        An expression names no RSE, or a template is chained to one that does not give each RSE a rule of its own.
    """
    choice = _Choice(storage, seed, key, held)
    rses_of: dict[int, list[str]] = {}
    for template in templates:
        if template.chained_idx is not None:
            parents = rses_of.get(template.chained_idx)
            if parents is None:
                raise UnusableSubscription(
                    "invalid_chain",
                    f"replication_rules {template.number}: the template before does not give each RSE a rule "
                    "(split_rule, or one copy on one RSE)",
                )
            rses_of[template.number] = choice.chained(template, parents)
        elif template.split:
            rses_of[template.number] = choice.split(template)
        else:
            names = choice.whole(template)
            if names is not None:
                rses_of[template.number] = names
    return Wanted(tuple(dict.fromkeys(choice.rules)), tuple(choice.unmet))


class _Choice:
    """Rules for one DID, template by template."""

    def __init__(self, storage: Storage, seed: str, key: str, held: Held) -> None:
        self._storage = storage
        self._seed = seed
        self._key = key
        self._held = set(held)
        self.rules: list[WantedRule] = []
        self.unmet: list[Unmet] = []

    def whole(self, template: Template) -> list[str] | None:
        """One rule with the expression as it stands; the RSE where it can only be one."""
        names = self._storage.matching(template.rse_expression)
        copies = len(names) if template.copies is None else template.copies
        said = "as the template says" if template.copies is not None else "one for each RSE"
        self.rules.append(
            WantedRule(
                template.number, template.rse_expression, copies, template.weight, template.source, said
            )
        )
        return [template.rse_expression] if names == {template.rse_expression} and copies == 1 else None

    def split(self, template: Template) -> list[str]:
        """One rule for each of the chosen RSEs."""
        names = self._storage.matching(template.rse_expression)
        copies = len(names) if template.copies is None else template.copies
        return self._take(template, names, copies, template.weight, template.source)

    def chained(self, template: Template, parents: Sequence[str]) -> list[str]:
        """One rule for each RSE of the template before, which is its source."""
        follow = self._associated if template.algorithm == ASSOCIATED_SITE else self._elsewhere
        return [rse for parent in parents for rse in follow(template, parent)]

    def _associated(self, template: Template, parent: str) -> list[str]:
        said = self._storage.attribute(parent, "associated_sites")
        if not said:
            return []
        sites = [one.strip() for one in said.split(",")]
        index = template.associated_site_idx or 0
        if not 1 <= index <= len(sites):
            self._lacks(
                template, "associated_site", f"{parent} has {len(sites)} associated sites, not {index}"
            )
            return []
        rse = sites[index - 1]
        if rse not in self._storage.by_name:
            self._lacks(template, "associated_site", f"{parent} names {rse[:80]!a}, which is no RSE")
            return []
        self._add(template, rse, None, parent, f"associated with {parent}")
        return [rse]

    def _elsewhere(self, template: Template, parent: str) -> list[str]:
        site = self._storage.attribute(parent, "site")
        names = frozenset(
            name
            for name in self._storage.matching(template.rse_expression)
            if name != parent and (site is None or self._storage.attribute(name, "site") != site)
        )
        return self._take(template, names, 1, None, parent)

    def _take(
        self, template: Template, names: frozenset[str], copies: int, weight: str | None, source: str | None
    ) -> list[str]:
        there = sorted(name for name in names if (name, source) in self._held)[:copies]
        missing = copies - len(there)
        candidates = [self._storage.by_name[name] for name in names.difference(there)]
        weights, dropped = usable(candidates, weight=weight, ignore_availability=template.ignore_availability)
        chosen: list[str] = []
        fit = min(missing, len(weights))
        if fit > 0:
            choice = choose(
                Group(f"{self._key} {template.number} {source or ''}", 0),
                candidates,
                fit,
                seed=self._seed,
                weight=weight,
                ignore_availability=template.ignore_availability,
            )
            by_id = {one.rse_id: one.name for one in candidates}
            for rse_id, reason in zip(choice.rse_ids, choice.reasons, strict=True):
                self._add(template, by_id[rse_id], None, source, reason)
                chosen.append(by_id[rse_id])
        if missing > len(chosen):
            why = "; ".join(f"{one.name} {one.reason}" for one in dropped[:5])
            self._lacks(
                template,
                "not_enough_rses",
                f"{copies} RSEs are wanted and {len(there) + len(chosen)} can be had{': ' + why if why else ''}",
            )
        return [*there, *chosen]

    def _add(self, template: Template, rse: str, weight: str | None, source: str | None, reason: str) -> None:
        if (rse, source) not in self._held:
            self.rules.append(WantedRule(template.number, rse, 1, weight, source, reason))
            self._held.add((rse, source))

    def _lacks(self, template: Template, code: str, reason: str) -> None:
        self.unmet.append(Unmet(template.number, code, f"template {template.number}: {reason}"))
