"""What a statement does to the tables that sessions share, and which two steps it matters the order of.

Read from the SQL itself, as SQLAlchemy writes it: table by table, rule by rule where a statement names the rule whose
rows it means, and column by column where it changes some of a row. Where it errs, it sees an order that matters where
none does, which costs time and hides nothing. Tables of one session (temporary ones) are no part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import ForeignKey, PrimaryKeyConstraint, UniqueConstraint

from arriero.registry.schema.tables import rules

READ, NUMBER, KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE, INSERT, WHOLE = (
    "read",
    "number",
    "key share",
    "share",
    "no key",
    "update",
    "new",
    "all",
)
"""What is done to rows of a table: read, numbered, held in one of PostgreSQL's four modes, inserted; or the table locked."""

_CLASHES = {
    READ: frozenset(),
    # the ids say which came first, whoever commits first
    NUMBER: frozenset({NUMBER}),
    KEY_SHARE: frozenset({UPDATE}),
    SHARE: frozenset({NO_KEY_UPDATE, UPDATE}),
    NO_KEY_UPDATE: frozenset({SHARE, NO_KEY_UPDATE, UPDATE, WHOLE}),
    UPDATE: frozenset({KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE, WHOLE}),
    # of the same key: the second waits to see whether the first stays
    INSERT: frozenset({INSERT, WHOLE}),
    WHOLE: frozenset({NO_KEY_UPDATE, UPDATE, INSERT, WHOLE}),
}
EVERY = "*"
"""Instead of columns: all of a row, and whether it is there."""

_TABLES = rules.metadata.tables
DIARIES = frozenset(
    {
        *("audit_log", "events", "rule_history", "request_history", "request_attempts"),
        *("contents_history", "deletion_history"),
    }
)
"""Only ever appended to, with keys of their own, and read by no operation here."""

_WORD = re.compile(r"\b[a-z_]+\b")
_QUALIFIED = re.compile(r"(?:\b(\w+)\.)?\b([a-z_]+)\b")
_INSERTED = re.compile(r"\b(?:INSERT INTO|COPY) \"?([a-z_]+)")
_UPDATED = re.compile(r"\bUPDATE (?:ONLY )?([a-z_]+) SET\b(?=(.*))", re.DOTALL)
_ASSIGNED = re.compile(r"(?:\bSET |, )([a-z_]+) ?=(?![=>])")
_DELETED = re.compile(r"\bDELETE FROM ([a-z_]+)")
_TEMPORARY = re.compile(r"\bCREATE TEMPORARY TABLE (?:IF NOT EXISTS )?(\w+)")
_ALL_COLUMNS = re.compile(r"(?:\bSELECT|\bRETURNING|[.,]) *\*")
_UPSERTED = re.compile(r"\bDO UPDATE SET\b(.*)", re.DOTALL)
_HELD = re.compile(
    r"\bFOR (NO KEY UPDATE|KEY SHARE|UPDATE|SHARE)\b(?: OF ([a-z_, ]+?))?(?= SKIP| NOWAIT|\)|\s*$|\n)"
)
_WHOLE = re.compile(r"\bLOCK TABLE \"?([a-z_]+)")
_MODES = {"NO KEY UPDATE": NO_KEY_UPDATE, "KEY SHARE": KEY_SHARE, "UPDATE": UPDATE, "SHARE": SHARE}


Rows = tuple[str, object]
"""A table, and the rule whose rows of it are meant; None: any row."""

Columns = frozenset[str]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a step does, by table; and for the end of a transaction, what it has done."""

    modes: Mapping[Rows, frozenset[str]] = field(default_factory=dict)
    reads: Mapping[Rows, Columns] = field(default_factory=dict)
    """The columns that are looked at; of rows that it does more to than to hold them, all that is read."""
    writes: Mapping[Rows, Columns] = field(default_factory=dict)
    """The columns that are set; of rows that come or go: `EVERY`."""
    ends: bool = False
    """It is the end of a transaction: what that held is free, and what it wrote is seen."""
    keeps: bool = False
    """It is a commit."""
    skips: bool = False
    """It passes over rows that others hold, and waits for none."""

    @property
    def only_reads(self) -> bool:
        return not self.ends and all(modes <= {READ} for modes in self.modes.values())

    def changes(self) -> Footprint:
        """It without what it only reads."""
        kept = {rows: modes - {READ, NUMBER} for rows, modes in self.modes.items()}
        kept = {rows: modes for rows, modes in kept.items() if modes}
        return Footprint(kept, {}, self.writes, self.ends, self.keeps, self.skips)

    def with_(self, other: Footprint) -> Footprint:
        """Both, as one step."""
        return Footprint(
            _joined(self.modes, other.modes),
            _joined(self.reads, other.reads),
            _joined(self.writes, other.writes),
            self.ends or other.ends,
            self.keeps or other.keeps,
            self.skips or other.skips,
        )

    def depends_on(self, other: Footprint, *, locks: bool = True) -> bool:
        """Whether it can matter which of two steps of different sessions comes first.

        Parameters
        ----------
        locks
            They may want the same rows; otherwise it is known that they do not.
        """
        if self.ends and other.ends and not self.reads and not other.reads:
            return False
        for mine, my_modes in self.modes.items():
            for theirs, their_modes in other.modes.items():
                if mine[0] != theirs[0] or (None not in (mine[1], theirs[1]) and mine[1] != theirs[1]):
                    continue
                unlike = my_modes if locks or self.skips or other.skips else my_modes & {NUMBER}
                if any(_CLASHES[mode] & their_modes for mode in unlike):
                    return True
                if (other.keeps and _shows(other, theirs, self, mine)) or (
                    self.keeps and _shows(self, mine, other, theirs)
                ):
                    return True
        return False


def _joined(
    one: Mapping[Rows, frozenset[str]], other: Mapping[Rows, frozenset[str]]
) -> dict[Rows, frozenset[str]]:
    both = dict(one)
    for rows, more in other.items():
        both[rows] = both.get(rows, frozenset()) | more
    return both


def _shows(writer: Footprint, written: Rows, reader: Footprint, read: Rows) -> bool:
    """Whether what a commit brings can be seen in what a step looks at."""
    columns, seen = writer.writes.get(written), reader.reads.get(read)
    if not columns or seen is None:
        return False
    return EVERY in columns or EVERY in seen or bool(columns & seen)


NOTHING = Footprint()


_BY_RULE = {
    table.name: "id" if table.name == "rules" else "rule_id"
    for table in _TABLES.values()
    if table.name == "rules" or "rule_id" in table.c
}
_PARAMETER = re.compile(r"%\((\w+)\)s")


_temporary: set[str] = set()
"""Names of tables that sessions have for themselves."""


def footprint(statement: str, parameters: object = None) -> Footprint:
    """Read what a statement does."""
    _temporary.update(_TEMPORARY.findall(statement))
    said = _read(statement)
    modes: dict[Rows, frozenset[str]] = {}
    reads: dict[Rows, Columns] = {}
    writes: dict[Rows, Columns] = {}
    sets = parameters if isinstance(parameters, (list, tuple)) else [parameters]
    for table, done in said.modes.items():
        rules_meant: set[object] = {
            one.get(name) if isinstance(one, Mapping) else None
            for one in sets
            for name in said.named.get(table, ())
        }
        for rule_id in rules_meant or {None}:
            modes[table, rule_id] = frozenset(done - {NUMBER})
            reads[table, rule_id] = frozenset(said.reads.get(table, ()))
            if table in said.writes:
                writes[table, rule_id] = frozenset(said.writes[table])
        if NUMBER in done:
            # the rows of all rules are counted as one
            modes[table, None] = modes.get((table, None), frozenset()) | {NUMBER}
    if "nextval(" in statement:
        asked = {str(value) for one in sets if isinstance(one, Mapping) for value in one.values()}
        modes |= {(table, None): frozenset({NUMBER}) for table in asked & _TABLES.keys() - DIARIES}
    return Footprint(modes, reads, writes, skips=said.skips)


@dataclass(slots=True)
class _Said:
    """What a statement says, by table."""

    modes: dict[str, set[str]] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    writes: dict[str, set[str]] = field(default_factory=dict)
    named: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The parameters that name the rules of its rows; none: any rows."""
    skips: bool = False

    def note(self, table: str, mode: str, *, reads: Iterable[str] = (), writes: Iterable[str] = ()) -> None:
        if table not in _TABLES or table in DIARIES:
            return
        self.modes.setdefault(table, set()).add(mode)
        self.reads.setdefault(table, set()).update(reads)
        if writes:
            self.writes.setdefault(table, set()).update(writes)


@cache
def _read(statement: str) -> _Said:
    said = _Said(skips="SKIP LOCKED" in statement or "NOWAIT" in statement)
    looks = _looked_at(statement)
    for table in set(_WORD.findall(statement)) & _TABLES.keys():
        said.note(table, READ, reads=looks(table))
    said.named = {
        table: _named(statement, table, key) for table, key in _BY_RULE.items() if table in said.modes
    }
    for table in _INSERTED.findall(statement):
        said.note(table, INSERT, reads=_unique(table), writes={EVERY})
        if "id" in _TABLES.get(table, rules).c:
            said.note(table, NUMBER)
        _note_keys(said, table, None)
        for assigned in _UPSERTED.findall(statement):
            _note_update(said, table, f"SET{assigned}")
    for table, assigned in _UPDATED.findall(statement):
        _note_update(said, table, f"SET{assigned}")
    for table in _DELETED.findall(statement):
        said.note(table, UPDATE, writes={EVERY})
        _note_children(said, table)
        if any(key.column.table.name == table for key in _keys_of(table)):
            # its own rows point at each other: more than those that are named are looked at
            said.named.pop(table, None)
    for mode, of in _HELD.findall(statement):
        for table in [name.strip() for name in of.split(",") if name.strip()] or list(said.modes):
            said.note(table, _MODES[mode])
    for table in _WHOLE.findall(statement):
        said.note(table, WHOLE)
    return said


def _looked_at(statement: str) -> Callable[[str], set[str]]:
    """For a table that a statement speaks of: its columns that it speaks of, but for those that it only sets."""
    body = re.sub(r"\b(INSERT INTO|COPY) (\"?\w+\"?) *\([^()]*\)", r"\1 \2", statement)
    body = _ASSIGNED.sub(" ", body)
    said = set(_QUALIFIED.findall(body))

    def columns(table: str) -> set[str]:
        if _ALL_COLUMNS.search(body):
            return {EVERY}
        if len(re.findall(rf"\b{table}\b", body)) == 1 and table in _INSERTED.findall(body):
            return set()
        return {
            column
            for name, column in said
            # a name that is no table's, `dids_1` or that of a part of the statement, may stand for any
            if column in _TABLES[table].c
            and (name == table or (name not in _TABLES and name not in _temporary))
        }

    return columns


@cache
def _unique(table: str) -> frozenset[str]:
    """The columns by which a row that is new can be one too many."""
    found: set[str] = set()
    if table in _TABLES:
        for one in _TABLES[table].constraints:
            if isinstance(one, (PrimaryKeyConstraint, UniqueConstraint)):
                found |= {column.name for column in one.columns}
        for index in _TABLES[table].indexes:
            if index.unique:
                found |= {column.name for column in index.columns}
                found |= set(_WORD.findall(str(index.dialect_options["postgresql"]["where"])))
    return frozenset(found)


def _note_update(said: _Said, table: str, assigned: str) -> None:
    """Note the rows of an UPDATE, where what follows SET is ``assigned``."""
    columns = set(_ASSIGNED.findall(assigned)) & set(_TABLES[table].c.keys() if table in _TABLES else ())
    mode = UPDATE if columns & _unique(table) else NO_KEY_UPDATE
    said.note(table, mode, reads=columns & _unique(table), writes=columns or {EVERY})
    _note_keys(said, table, assigned)


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


def _note_keys(said: _Said, table: str, assigned: str | None) -> None:
    """Note the rows that foreign keys hold: those of an INSERT, and those that an UPDATE sets."""
    for key in _keys_of(table):
        if assigned is None or key.parent.name in _ASSIGNED.findall(assigned):
            said.note(key.column.table.name, KEY_SHARE, reads={key.column.name})


def _note_children(said: _Said, table: str) -> None:
    """Note the rows that a DELETE looks for, or takes along."""
    for child in _TABLES.values():
        for key in child.foreign_keys:
            if key.column.table.name != table:
                continue
            if key.ondelete == "CASCADE":
                said.note(child.name, UPDATE, reads={key.parent.name}, writes={EVERY})
            else:
                said.note(child.name, KEY_SHARE, reads={key.parent.name})


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
