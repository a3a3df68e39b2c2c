"""What a statement does to the tables that sessions share, and which two steps it matters the order of.

Read from the SQL itself: table by table, and rule by rule where a statement names the rule whose rows it means. Where it
errs, it sees an order that matters where none does, which costs time and hides nothing. Tables of one session (temporary
ones) are no part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import ForeignKey

from arriero.registry.schema.tables import rules

READ, KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE, INSERT, WHOLE = (
    "read",
    "key share",
    "share",
    "no key",
    "update",
    "new",
    "all",
)
"""What is done to rows of a table: read, held in one of PostgreSQL's four modes, inserted; or the table locked."""

_CLASHES = {
    READ: frozenset(),
    KEY_SHARE: frozenset({UPDATE}),
    SHARE: frozenset({NO_KEY_UPDATE, UPDATE}),
    NO_KEY_UPDATE: frozenset({SHARE, NO_KEY_UPDATE, UPDATE, WHOLE}),
    UPDATE: frozenset({KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE, WHOLE}),
    # of the same key: the second waits to see whether the first stays
    INSERT: frozenset({INSERT, WHOLE}),
    WHOLE: frozenset({NO_KEY_UPDATE, UPDATE, INSERT, WHOLE}),
}
_WRITING = frozenset({NO_KEY_UPDATE, UPDATE, INSERT})

_TABLES = rules.metadata.tables
DIARIES = frozenset({"audit_log", "events", "rule_history", "request_history", "contents_history"})
"""Only ever appended to, with keys of their own, and read by no operation here."""

_WORD = re.compile(r"\b[a-z_]+\b")
_INSERTED = re.compile(r"\b(?:INSERT INTO|COPY) \"?([a-z_]+)")
_UPDATED = re.compile(r"\bUPDATE (?:ONLY )?([a-z_]+) SET\b(.*)", re.DOTALL)
_DELETED = re.compile(r"\bDELETE FROM ([a-z_]+)")
_UPSERTED = re.compile(r"\bDO UPDATE SET\b(.*)", re.DOTALL)
_HELD = re.compile(
    r"\bFOR (NO KEY UPDATE|KEY SHARE|UPDATE|SHARE)\b(?: OF ([a-z_, ]+?))?(?= SKIP| NOWAIT|\)|\s*$|\n)"
)
_WHOLE = re.compile(r"\bLOCK TABLE \"?([a-z_]+)")
_MODES = {"NO KEY UPDATE": NO_KEY_UPDATE, "KEY SHARE": KEY_SHARE, "UPDATE": UPDATE, "SHARE": SHARE}


Rows = tuple[str, object]
"""A table, and the rule whose rows of it are meant; None: any row."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a step does, by table; and for the end of a transaction, what it has done."""

    modes: Mapping[Rows, frozenset[str]] = field(default_factory=dict)
    ends: bool = False
    """It is the end of a transaction: what that held is free, and what it wrote is seen."""
    keeps: bool = False
    """It is a commit."""

    @property
    def only_reads(self) -> bool:
        return not self.ends and all(modes <= {READ} for modes in self.modes.values())

    def changes(self) -> Footprint:
        """It without what it only reads."""
        kept = {rows: modes - {READ} for rows, modes in self.modes.items()}
        return Footprint({rows: modes for rows, modes in kept.items() if modes}, self.ends, self.keeps)

    def with_(self, other: Footprint) -> Footprint:
        """Both, as one step."""
        modes = dict(self.modes)
        for rows, more in other.modes.items():
            modes[rows] = modes.get(rows, frozenset()) | more
        return Footprint(modes, self.ends or other.ends, self.keeps or other.keeps)

    def depends_on(self, other: Footprint) -> bool:
        """Whether it can matter which of two steps of different sessions comes first."""
        if self.ends and other.ends:
            return False
        for mine, my_modes in self.modes.items():
            for theirs, their_modes in other.modes.items():
                if mine[0] != theirs[0] or (None not in (mine[1], theirs[1]) and mine[1] != theirs[1]):
                    continue
                if any(_CLASHES[mode] & their_modes for mode in my_modes):
                    return True
                if (other.keeps and their_modes & _WRITING) or (self.keeps and my_modes & _WRITING):
                    return True
        return False


NOTHING = Footprint()


_BY_RULE = {
    table.name: "id" if table.name == "rules" else "rule_id"
    for table in _TABLES.values()
    if table.name == "rules" or "rule_id" in table.c
}
_PARAMETER = re.compile(r"%\((\w+)\)s")


def footprint(statement: str, parameters: object = None) -> Footprint:
    """Read what a statement does."""
    modes, named = _read(statement)
    found: dict[Rows, frozenset[str]] = {}
    sets = parameters if isinstance(parameters, (list, tuple)) else [parameters]
    for table, done in modes.items():
        rules_meant: set[object] = {
            one.get(name) if isinstance(one, Mapping) else None
            for one in sets
            for name in named.get(table, ())
        }
        for rule_id in rules_meant or {None}:
            found[table, rule_id] = done
    return Footprint(found)


@cache
def _read(statement: str) -> tuple[dict[str, frozenset[str]], dict[str, tuple[str, ...]]]:
    """What is done to each table, and the parameters that name the rules of its rows; none: any rows."""
    modes: dict[str, set[str]] = {}

    def note(table: str, mode: str) -> None:
        if table in _TABLES and table not in DIARIES:
            modes.setdefault(table, set()).add(mode)

    for word in set(_WORD.findall(statement)):
        note(word, READ)
    said = {table: _named(statement, table, key) for table, key in _BY_RULE.items() if table in modes}
    for table in _INSERTED.findall(statement):
        note(table, INSERT)
        _note_keys(note, table, None)
        for assigned in _UPSERTED.findall(statement):
            note(table, NO_KEY_UPDATE)
            _note_keys(note, table, assigned)
    for table, assigned in _UPDATED.findall(statement):
        note(table, NO_KEY_UPDATE)
        _note_keys(note, table, assigned)
    for table in _DELETED.findall(statement):
        note(table, UPDATE)
        _note_children(note, table)
        if any(key.column.table.name == table for key in _keys_of(table)):
            # its own rows point at each other: more than those that are named are looked at
            said.pop(table, None)
    for mode, of in _HELD.findall(statement):
        for table in [name.strip() for name in of.split(",") if name.strip()] or list(modes):
            note(table, _MODES[mode])
    for table in _WHOLE.findall(statement):
        note(table, WHOLE)
    return {table: frozenset(done) for table, done in modes.items()}, said


def _named(statement: str, table: str, key: str) -> tuple[str, ...]:
    """Parameters that give the rule wherever a statement speaks of a table; empty unless each place has one."""
    body = _HELD.sub("", statement)
    places = len(re.findall(rf"\b{table}\b(?!\.)", body))
    found = [(one,) for one in re.findall(rf"\b{table}\.{key} = %\((\w+)\)s", body)]
    found += [
        tuple(_PARAMETER.findall(many))
        for many in re.findall(rf"\b{table}\.{key} IN \(((?:%\(\w+\)s[:\w]*(?:, )?)+)\)", body)
    ]
    found += re.findall(rf"INSERT INTO {table} \({key}\b[^()]*\) SELECT %\((\w+)\)s()", body)
    many = _PARAMETER.findall(body.partition("VALUES")[2])
    if re.search(rf"INSERT INTO {table} \([^()]*\b{key}\b", body) and "VALUES" in body:
        found.append(tuple(one for one in many if re.fullmatch(rf"{key}(__\d+)?", one)))
    if len(found) != places or not all(found):
        return ()
    return tuple(name for names in found for name in names if name)


def _keys_of(table: str) -> Iterable[ForeignKey]:
    return _TABLES[table].foreign_keys if table in _TABLES else ()


def _note_keys(note, table: str, assigned: str | None) -> None:
    """Note the rows that foreign keys hold: those of an INSERT, and those that an UPDATE sets."""
    for key in _keys_of(table):
        if assigned is None or re.search(rf"\b{key.parent.name}\s*=", assigned.split("WHERE")[0]):
            note(key.column.table.name, KEY_SHARE)


def _note_children(note, table: str) -> None:
    """Note the rows that a DELETE looks for, or takes along."""
    for child in _TABLES.values():
        for key in child.foreign_keys:
            if key.column.table.name == table:
                note(child.name, UPDATE if key.ondelete == "CASCADE" else KEY_SHARE)


@cache
def shown(statement: str) -> str:
    """The statement in a few words."""
    said = footprint(statement)
    words = [
        f"{table} ({', '.join(sorted(modes - {READ})) or 'read'})"
        for (table, _), modes in sorted(said.modes.items())
    ]
    begin = " ".join(statement.split())[:24]
    return f"{begin} ... {'; '.join(words)}"
