"""Whether the system may do what it did: the rules of DESIGN section 5 about everything that nobody asked for by name.

`Judge.adopt` after each step, `Judge.check_quiet` when nothing is due any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.model.reference import Key, Model, Rule

THERE = ("AVAILABLE", "COPYING")
HELD = ("AVAILABLE", "TEMPORARY_UNAVAILABLE")
LIVE = ("QUEUED", "SUBMITTED")


class Diverged(AssertionError):
    """The system did what the page does not allow."""


@dataclass(frozen=True)
class SeenRule:
    state: str
    code: str | None
    reason: str | None
    counts: Mapping[str, int]
    priority: int
    child: str | None


@dataclass(frozen=True)
class Seen:
    """What the system says of itself at one moment."""

    dids: Mapping[str, tuple[str, bool]]
    contents: frozenset[tuple[str, str]]
    rules: Mapping[str, SeenRule]
    locks: Mapping[str, Mapping[Key, tuple[str, str | None]]]
    places: Mapping[str, Mapping[str, frozenset[str]]]
    replicas: Mapping[Key, tuple[str, bool]]
    """State, and whether there is a tombstone."""
    requests: Mapping[Key, tuple[str, int]]


def require(condition: object, *said: object) -> None:
    if not condition:
        raise Diverged(" ".join(map(str, said)))


class Judge:
    """Compares a system with a model, and has the model adopt what was the system's to choose."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def adopt(self, before: Seen, seen: Seen) -> None:
        """Take over what the system decided since ``before``, if it may."""
        self._check_contents(seen)
        self._adopt_replaced(seen)
        require(
            seen.rules.keys() == self.model.rules.keys(), "rules", set(seen.rules) ^ set(self.model.rules)
        )
        for rule_id, rule in self.model.rules.items():
            row, states = seen.rules[rule_id], [state for state, _ in seen.locks.get(rule_id, {}).values()]
            require(row.child == rule.child, "the child of", rule_id, "is", row.child, "and not", rule.child)
            counts = {state: states.count(state) for state in row.counts}
            require(row.counts == counts, rule_id, "counts", row.counts, "and has", counts)
            if rule.state == "WAITING_APPROVAL":
                require(not seen.locks.get(rule_id), "a rule that waits for approval has locks", rule_id)
            self._adopt_places(rule_id, rule, before, seen)
        self._adopt_replicas(before, seen)

    def _check_contents(self, seen: Seen) -> None:
        dids = {name: (did.kind, did.kind != "FILE" and did.is_open) for name, did in self.model.dids.items()}
        require(seen.dids == dids, "there are", seen.dids, "and not", dids)
        contents = {(name, child) for name, did in self.model.dids.items() for child in did.children}
        require(seen.contents == contents, "attached", seen.contents ^ contents)

    def _adopt_replaced(self, seen: Seen) -> None:
        """A rule goes once the rule that replaces it is OK."""
        while gone := [one for one in self.model.rules if one not in seen.rules]:
            replaced = [one for one in gone if self.model.rules[one].child in seen.rules]
            require(replaced, "rules are gone", gone)
            rule_id = replaced[0]
            child = self.model.rules[rule_id].child
            require(not self.model.rules[rule_id].locked, "a locked rule is gone", rule_id)
            require(seen.rules[child or ""].state == "OK", "replaced too early", rule_id)
            heirs = [one for one in self.model.rules.values() if one.child == rule_id]
            self.model.end_rule(rule_id)
            for heir in heirs:
                heir.child = child

    def _adopt_places(self, rule_id: str, rule: Rule, before: Seen, seen: Seen) -> None:
        members = self.model.members(rule)
        mine = seen.locks.get(rule_id, {})
        by_file: dict[str, set[str]] = {}
        for file, rse in mine:
            by_file.setdefault(file, set()).add(rse)
        alone = rule.grouping == "NONE" or self.model.dids[rule.did].kind == "FILE"
        places = {file: frozenset(rses) for file, rses in by_file.items()} if alone else {}
        places |= {} if alone else seen.places.get(rule_id, {})
        kept = seen.places.get(rule_id, {})
        require(not alone or all(places.get(one) == kept[one] for one in kept), "kept places", kept, rule_id)
        # a file that is placed by itself goes elsewhere when it cannot be had where it was to be
        was = before.locks.get(rule_id, {})
        stuck = (
            {key[0] for key, lock in [*was.items(), *mine.items()] if lock[0] == "STUCK"} if alone else set()
        )
        for group, place in places.items():
            if group not in members or rule.places.get(group) == place:
                continue
            fresh = group not in rule.places or group in rule.loose or group in stuck
            require(fresh, "the place of", group, "moved from", rule.places.get(group), "to", place, rule_id)
            others = self._by_others(rule_id, group, members, places, seen)
            self._check_choice(rule_id, rule, (group, members[group], place), before, seen, others)
            rule.places[group] = place
        for group in [one for one in rule.places if one not in places]:
            require(group in rule.loose or group in stuck, "the place of", group, "is forgotten", rule_id)
            del rule.places[group]
        if not alone:
            self._adopt_homes(rule_id, rule, members, by_file, {key[0] for key in was if mine.get(key)})

    def _adopt_homes(
        self,
        rule_id: str,
        rule: Rule,
        members: Mapping[str, set[str]],
        by_file: Mapping[str, set[str]],
        known: set[str],
    ) -> None:
        """A file lies where the first of its datasets does, by name, when it was placed."""
        for file, rses in by_file.items():
            holding = sorted(group for group, files in members.items() if file in files)
            if not holding or file in rule.homes:
                continue
            as_it_is = [group for group in holding if rule.places.get(group) == rses]
            if as_it_is and (file in known or as_it_is[0] == holding[0]):
                rule.homes[file] = as_it_is[0]
            else:
                # not looked at yet since it lost its home, or never placed by a group of its own
                require(file in known, file, "lies at", rses, "first is", holding[0], rule.places, rule_id)

    def _by_others(
        self,
        rule_id: str,
        group: str,
        members: Mapping[str, set[str]],
        places: Mapping[str, frozenset[str]],
        seen: Seen,
    ) -> set[Key]:
        """Copies that other rules have locks on, or other groups of this one: they can have been there before."""
        found: set[Key] = set()
        homes = self.model.rules[rule_id].homes
        for other_id, locks in seen.locks.items():
            for file, rse in locks:
                # one without a home yet may have been placed by any group that it is in
                by = [one for one, files in members.items() if file in files and rse in places.get(one, ())]
                home = [homes[file]] if file in homes else by or [group]
                if other_id != rule_id or home != [group]:
                    found.add((file, rse))
        return found

    def _check_choice(
        self,
        rule_id: str,
        rule: Rule,
        chosen: tuple[str, set[str], frozenset[str]],
        before: Seen,
        seen: Seen,
        others: set[Key],
    ) -> None:
        """Presence first, then free choice among what is eligible."""
        group, files, place = chosen
        eligible = self.model.eligible(rule)
        new = place - rule.places.get(group, frozenset())
        require(len(place) == rule.copies, group, "has", len(place), "places of", rule.copies, rule_id)
        require(new <= eligible, group, "was given", new, "of", eligible, rule_id)
        for taken in new:
            most = self._present(files, taken, before, seen, others, least=False)
            for left in eligible - place:
                least = self._present(files, left, before, seen, others, least=True)
                said = f"{group}: {least} bytes are at {left}, and {most} at {taken}"
                require(most >= least, said, rule_id)

    def _present(
        self, files: set[str], rse: str, before: Seen, seen: Seen, others: set[Key], *, least: bool
    ) -> int:
        """Bytes at an RSE at the moment of the choice, which lay between two looks: at least, or at most."""
        found = 0
        for file in files:
            was = before.replicas.get((file, rse), ("", False))[0] in THERE
            now = seen.replicas.get((file, rse), ("", False))[0] in THERE
            here = (was and now) if least else (was or (now and (file, rse) in others))
            found += self.model.size(file) if here else 0
        return found

    def _adopt_replicas(self, before: Seen, seen: Seen) -> None:
        locked = {key for locks in seen.locks.values() for key in locks}
        was_locked = {key for locks in before.locks.values() for key in locks}
        for key in seen.replicas.keys() | self.model.replicas.keys():
            old, (new, _) = self.model.replicas.get(key), seen.replicas.get(key, ("", False))
            if new != old:
                missing = old in (None, "UNAVAILABLE")
                legal = (
                    (new == "AVAILABLE" and key in self.model.succeeded)
                    or (new == "COPYING" and (missing or old == "BAD") and key in locked)
                    or (new == "UNAVAILABLE" and (old in (None, "COPYING", "BAD")))
                )
                require(legal, "the replica", key, "went from", old, "to", new)
                self.model.replicas[key] = new
            live = seen.requests.get(key, ("", 0))[0] in LIVE
            require(new != "COPYING" or live, "a copy without a request", key)
        self.model.succeeded.clear()
        self.model.released |= {key for key in was_locked - locked if key in seen.replicas}
        self.model.released -= locked
        for key, (_, tombstone) in seen.replicas.items():
            require(not (tombstone and key in locked), "a tombstone on a replica with a lock", key)
            require(tombstone or key not in self.model.released, "no tombstone on what was let go of", key)

    def check_quiet(self, seen: Seen) -> None:
        """What must hold when nothing is due and every copy has ended."""
        live = {key for key, (state, _) in seen.requests.items() if state in LIVE}
        require(not live, "live requests", live)
        for rule_id, rule in self.model.rules.items():
            row = seen.rules[rule_id]
            if rule.state:
                require(row.state == rule.state, rule_id, "is", row.state, "and not", rule.state)
                continue
            self._check_active(rule_id, rule, seen)
            if rule.child and not rule.locked and not self.model.rules[rule.child].child:
                require(seen.rules[rule.child].state != "OK", rule_id, "is not replaced by", rule.child)

    def _check_active(self, rule_id: str, rule: Rule, seen: Seen) -> None:
        members, row, locks = self.model.members(rule), seen.rules[rule_id], seen.locks.get(rule_id, {})
        covered = set().union(*members.values())
        require({file for file, _ in locks} <= covered, "locks on files that are not of", rule_id)
        unplaced: set[str] = set()
        for file in covered:
            here = {rse for other, rse in locks if other == file}
            first = min(group for group, files in members.items() if file in files)
            home = rule.homes.get(file, first)
            wanted = rule.places.get(home, frozenset())
            require(here == wanted, file, "lies at", here, "and is to lie at", wanted, "by", home, rule_id)
            unplaced |= set() if wanted else {home}
        require(
            not unplaced or len(self.model.eligible(rule)) < rule.copies, unplaced, "could be placed", rule_id
        )
        gone = set(rule.places) - set(members)
        require(not gone, "places of groups that are not there any more", gone, rule_id)
        rule.loose = {group for group in rule.places if not members[group]}
        for key, (state, code) in locks.items():
            self._check_lock(rule, rule_id, key, (state, code))
        stuck = bool(unplaced) or any(state == "STUCK" for state, _ in locks.values())
        wanted_state = "STUCK" if stuck else "OK"
        require(row.state == wanted_state, rule_id, "is", row.state, "and not", wanted_state, row.reason)
        require((row.reason is not None) == stuck, rule_id, row.state, "for the reason", row.reason)

    def _check_lock(self, rule: Rule, rule_id: str, key: Key, lock: tuple[str, str | None]) -> None:
        state, code = lock
        there = self.model.replicas.get(key)
        if there in HELD:
            require(state == "OK", "the lock on", key, "is", lock, "and the replica", there, rule_id)
            return
        require(state == "STUCK" and code, "the lock on", key, "is", lock, "and the replica", there, rule_id)
        sources = self.model.sources(rule, key)
        if there in (None, "UNAVAILABLE") and key not in self.model.failed:
            require(not sources, key, "could be copied from", sources, "and is", lock, rule_id)
