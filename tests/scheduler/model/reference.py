"""What DESIGN section 5 says of rules, in plain Python: the measure that the state machine holds the system to.

Written from the page, not from the code. Names stand for everything. Where the page leaves a choice (ties are broken by
a hash), any legal choice is accepted and kept: presence first, then whatever is eligible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Key = tuple[str, str]
"""A file and an RSE."""
RESTS = ("SUSPENDED", "WAITING_APPROVAL")


class Refused(Exception):
    """The operation has to be refused, and nothing may change."""


@dataclass
class Did:
    kind: str
    is_open: bool = True
    children: set[str] = field(default_factory=set)
    expired: bool = False


@dataclass
class Rse:
    attributes: dict[str, str]
    readable: bool = True
    writable: bool = True


@dataclass
class Rule:
    did: str
    expression: str
    copies: int
    grouping: str
    sources: str | None = None
    ignore_availability: bool = False
    priority: int = 3
    locked: bool = False
    state: str = ""
    """SUSPENDED or WAITING_APPROVAL; what else it is follows from its locks."""
    expired: bool = False
    child: str | None = None
    places: dict[str, frozenset[str]] = field(default_factory=dict)
    """RSEs of each group: the rule's DID, a dataset, or a file that is placed by itself."""
    loose: set[str] = field(default_factory=set)
    """Groups that were empty or out of the tree for a while: they may keep their place, or get a new one."""
    homes: dict[str, str] = field(default_factory=dict)
    """The group by which each file was placed."""


class Model:
    """A catalogue of one scope and one account."""

    def __init__(self, rses: Mapping[str, Mapping[str, str]]) -> None:
        self.rses = {name: Rse(dict(attributes)) for name, attributes in rses.items()}
        self.dids: dict[str, Did] = {}
        self.rules: dict[str, Rule] = {}
        self.replicas: dict[Key, str] = {}
        self.failed: set[Key] = set()
        """Copies whose last attempt failed and whose time has not come yet."""
        self.succeeded: set[Key] = set()
        self.released: set[Key] = set()
        """Replicas that a lock has let go of."""

    # -- what is where --

    @staticmethod
    def size(file: str) -> int:
        return 1000 * (1 + sum(file.encode()) % 3)

    def matching(self, text: str) -> set[str]:
        """RSEs of an expression, strictly from left to right.

        Raises
        ------
        Refused
            It cannot be read, or nothing satisfies it.
        """
        terms = re.split(r"([|&\\])", text)
        found = self._term(terms[0])
        for sign, term in zip(terms[1::2], terms[2::2], strict=True):
            other = self._term(term)
            found = {"|": found | other, "&": found & other, "\\": found - other}[sign]
        if not found:
            raise Refused("nothing satisfies the expression")
        return found

    def _term(self, term: str) -> set[str]:
        if term == "*":
            return set(self.rses)
        if term in self.rses:
            return {term}
        key, _, value = term.partition("=")
        known = any(key in rse.attributes for rse in self.rses.values())
        if not term or not known:
            raise Refused("unknown name")
        return {name for name, rse in self.rses.items() if rse.attributes.get(key) == (value or "true")}

    def eligible(self, rule: Rule) -> set[str]:
        """RSEs that a group of the rule may be given."""
        try:
            named = self.matching(rule.expression)
        except Refused:
            return set()
        return {name for name in named if self.rses[name].writable or rule.ignore_availability}

    def sources(self, rule: Rule, key: Key) -> set[str]:
        """Where a file could be copied from."""
        try:
            wanted = self.matching(rule.sources) if rule.sources else set(self.rses)
        except Refused:
            return set()
        return {
            name
            for name in wanted
            if name != key[1]
            and self.rses[name].readable
            and self.replicas.get((key[0], name)) == "AVAILABLE"
        }

    def tree(self, did: str) -> set[str]:
        """The DID and everything below it."""
        below, todo = {did}, [did]
        while todo:
            fresh = self.dids[todo.pop()].children - below
            below |= fresh
            todo += fresh
        return below

    def members(self, rule: Rule) -> dict[str, set[str]]:
        """Files of each group of a rule."""
        below = self.tree(rule.did)
        files = {name for name in below if self.dids[name].kind == "FILE"}
        if rule.grouping == "NONE" or self.dids[rule.did].kind == "FILE":
            return {file: {file} for file in files}
        if rule.grouping == "ALL":
            return {rule.did: files}
        return {name: self.dids[name].children for name in below if self.dids[name].kind == "DATASET"}

    # -- what people do --

    def add_files(self, rse: str, files: Iterable[str]) -> None:
        for file in files:
            self.dids.setdefault(file, Did("FILE"))
            self._arrive((file, rse))

    def _arrive(self, key: Key) -> None:
        self.replicas[key] = "AVAILABLE"
        self.failed.discard(key)
        # whether what was let go of is wanted again when somebody names it again, the page does not say
        self.released.discard(key)

    def add_collection(self, name: str, kind: str) -> None:
        self.dids[name] = Did(kind)

    def _collection(self, name: str) -> Did:
        if name not in self.dids:
            raise Refused("unknown DID")
        return self.dids[name]

    def attach(self, parent: str, children: Sequence[str]) -> None:
        above = self._collection(parent)
        holds = {"CONTAINER": ("DATASET", "CONTAINER"), "DATASET": ("FILE",), "FILE": ()}[above.kind]
        for child in children:
            below = self._collection(child)
            if below.kind not in holds or not above.is_open or child in above.children:
                raise Refused("cannot be attached")
            if parent in self.tree(child):
                raise Refused("circle")
        above.children |= set(children)

    def detach(self, parent: str, children: Sequence[str]) -> None:
        if not set(children) <= self._collection(parent).children:
            raise Refused("not attached")
        self.dids[parent].children -= set(children)
        self._loosen()

    def _loosen(self) -> None:
        for rule in self.rules.values():
            members = self.members(rule)
            rule.loose |= {group for group in rule.places if not members.get(group)}
            rule.homes = {
                file: home for file, home in rule.homes.items() if file in members.get(home, frozenset())
            }

    def set_open(self, name: str, *, is_open: bool) -> None:
        if self._collection(name).kind == "FILE" or self.dids[name].is_open == is_open:
            raise Refused("a file, or so already")
        self.dids[name].is_open = is_open

    def add_rule(self, rule: Rule) -> None:
        """Verify that a rule may be added; the system gives its id."""
        self._collection(rule.did)
        named = self.matching(rule.expression)
        if rule.sources:
            self.matching(rule.sources)
        writable = {name for name in named if self.rses[name].writable or rule.ignore_availability}
        if not 1 <= rule.copies <= len(writable) or not 1 <= rule.priority <= 5:
            raise Refused("copies or priority")
        same = (rule.did, rule.expression, rule.copies)
        if any((one.did, one.expression, one.copies) == same for one in self.rules.values()):
            raise Refused("duplicate")

    def rule(self, rule_id: str) -> Rule:
        if rule_id not in self.rules:
            raise Refused("unknown rule")
        return self.rules[rule_id]

    def remove_rule(self, rule_id: str) -> None:
        if self.rule(rule_id).locked or self.rules[rule_id].child is not None:
            raise Refused("locked, or being replaced")
        self.end_rule(rule_id)

    def end_rule(self, rule_id: str) -> None:
        del self.rules[rule_id]
        for rule in self.rules.values():
            if rule.child == rule_id:
                rule.child = None

    def suspend(self, rule_id: str) -> None:
        if self.rule(rule_id).state == "WAITING_APPROVAL":
            raise Refused("waits for approval")
        self.rules[rule_id].state = "SUSPENDED"

    def resume(self, rule_id: str) -> None:
        if self.rule(rule_id).state != "SUSPENDED":
            raise Refused("not suspended")
        self.rules[rule_id].state = ""

    def boost(self, rule_id: str, locks: Iterable[Key]) -> None:
        if self.rule(rule_id).state not in RESTS:
            self.failed -= set(locks)

    def decide(self, rule_id: str, *, approve: bool) -> None:
        if self.rule(rule_id).state != "WAITING_APPROVAL":
            raise Refused("waits for no approval")
        self.rules[rule_id].state = ""
        if not approve:
            self.end_rule(rule_id)

    def move(self, rule_id: str, expression: str) -> Rule:
        parent = self.rule(rule_id)
        if parent.locked or parent.child or parent.state == "WAITING_APPROVAL":
            raise Refused("cannot be replaced")
        if parent.expired or parent.expression == expression:
            raise Refused("has no life left, or is there already")
        child = Rule(parent.did, expression, parent.copies, parent.grouping, parent.sources)
        child.ignore_availability, child.priority = parent.ignore_availability, parent.priority
        self.add_rule(child)
        return child

    def declare(self, key: Key, state: str) -> None:
        """Say that a replica is BAD, TEMPORARY_UNAVAILABLE or AVAILABLE (again)."""
        now = self.replicas.get(key)
        may = {
            "BAD": ("AVAILABLE", "UNAVAILABLE", "TEMPORARY_UNAVAILABLE"),
            "TEMPORARY_UNAVAILABLE": ("AVAILABLE", "TEMPORARY_UNAVAILABLE"),
            "AVAILABLE": ("AVAILABLE", "UNAVAILABLE", "TEMPORARY_UNAVAILABLE", "COPYING", "BAD"),
        }[state]
        if now not in may:
            raise Refused(f"is {now}")
        if state == "AVAILABLE":
            if now != state:
                self._arrive(key)
        else:
            self.replicas[key] = state

    def erase_expired(self) -> None:
        """End the expired collections on which no rule is locked, and their rules."""
        for name in [name for name, did in self.dids.items() if did.expired]:
            on_it = [rule_id for rule_id, rule in self.rules.items() if rule.did == name]
            if any(self.rules[rule_id].locked for rule_id in on_it):
                continue
            for rule_id in on_it:
                self.end_rule(rule_id)
            del self.dids[name]
            for did in self.dids.values():
                did.children.discard(name)
        self._loosen()

    def end_expired(self) -> None:
        """End the rules whose lifetime is over, but what is locked or being replaced."""
        while due := [
            rule_id
            for rule_id, rule in self.rules.items()
            if rule.expired and not rule.locked and rule.child is None
        ]:
            self.end_rule(due[0])

    def time_passes(self) -> None:
        """What failed is due again."""
        self.failed.clear()

    def note_copy(self, key: Key, *, succeeded: bool) -> None:
        (self.failed.discard if succeeded else self.failed.add)(key)
        if succeeded:
            self.succeeded.add(key)
