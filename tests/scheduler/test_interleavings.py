"""Two sessions, stepped statement by statement on PostgreSQL through what changes rules, their files and copies.

`make interleavings` runs every order; here every order of the pairs that have few or matter most, and some of each other pair. A failure names its order; `ARRIERO_TEST_INTERLEAVING="attach+evaluate: 0x5 1x3"` runs that one again.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql

from arriero.registry.schema.tables import contents, dids, locks
from support import interleaving_tests
from support.interleaving_footprints import NO_KEY_UPDATE, Footprint, footprint
from support.interleaving_search import Failed, Search, order_of, text_of
from support.interleaving_tests import TIMEOUT_S, Sites, chosen

sites = interleaving_tests.sites

pytestmark = pytest.mark.timeout(TIMEOUT_S)

ALWAYS = None
"""Every order, in every run of the tests."""
SOME, MANY = 3, 40

PAIRS = [
    ("attach", "attach", "", SOME),
    ("attach", "add rule", "", ALWAYS),
    ("attach", "evaluate", "", MANY),
    ("attach", "settle", "", ALWAYS),
    ("attach", "remove rule", "", ALWAYS),
    ("attach", "claim deletion", "", ALWAYS),
    ("add rule", "add another", "", ALWAYS),
    ("add rule", "evaluate", "", SOME),
    ("add rule", "settle", "", ALWAYS),
    ("add rule", "remove rule", "", ALWAYS),
    ("add rule", "claim deletion", "", ALWAYS),
    ("evaluate", "evaluate", "", SOME),
    ("evaluate", "settle", "", ALWAYS),
    ("evaluate", "remove rule", "", SOME),
    ("evaluate", "claim deletion", "", ALWAYS),
    ("settle first", "settle second", "", ALWAYS),
    ("settle", "remove rule", "", ALWAYS),
    ("settle", "claim deletion", "", SOME),
    ("remove rule", "remove rule", "", ALWAYS),
    ("remove rule", "remove other", "shared", ALWAYS),
    ("remove rule", "claim deletion", "", ALWAYS),
    ("claim deletion", "delete source", "", ALWAYS),
    ("reap", "reap source", "no old, let go", SOME),
    ("reap", "reap", "no old, let go", SOME),
    ("reap", "evaluate", "no old, let go", SOME),
    ("reap", "add rule", "no old, let go", ALWAYS),
    ("reap", "claim deletion", "no old, let go", ALWAYS),
    ("reap", "delete source", "no old, let go", ALWAYS),
    ("reap", "declare bad", "no old, let go", ALWAYS),
    ("reap", "register", "no old, let go", SOME),
]


@pytest.mark.parametrize(
    ("one", "other", "kind", "drawn"),
    [pytest.param(*pair, id="+".join(pair[:2])) for pair in PAIRS if chosen(pair[:2])],
)
def test_two_sessions(sites, one, other, kind, drawn):
    report = sites.interleave([one, other], kind, drawn=drawn)
    assert report.orders > 1 or report.replayed
    assert report.diverged == 0, "an order went another way the second time"


class Ledger:
    """Two rows that sessions change, to see what the search finds."""

    def __init__(self, sites: Sites) -> None:
        self.site, self.stepper = sites.site("")
        self.ids = list(self.site.catalogue.database.run(lambda tx: tx.scalars(select(dids.c.id)).all()))[:2]

    def search(self, *works, rises: int) -> Search:
        def check(sessions) -> list[str]:
            said = [f"{one.name}: {one.error!r}" for one in sessions if one.error is not None]
            sums = [self.value(one) - 1000 for one in self.ids]
            return said if sums == [rises, rises] else [*said, f"rose by {sums}"]

        named = [(f"session {number}", work) for number, work in enumerate(works)]
        return Search(self.stepper, named, prepare=self.prepare, check=check)

    def prepare(self) -> None:
        self.site.prepare()
        self.site.catalogue.database.run(lambda tx: tx.execute(update(dids).values(bytes=1000)))

    def value(self, did_id: int) -> int:
        return self.site.catalogue.one(select(dids.c.bytes).where(dids.c.id == did_id))[0]

    def raises(self, *, reverse: bool = False, hold: bool):
        """Work that reads each row and writes it one higher."""

        def work(session) -> None:
            def rise(tx) -> None:
                for did_id in sorted(self.ids, reverse=reverse):
                    row = select(dids.c.bytes).where(dids.c.id == did_id)
                    value = tx.scalar(row.with_for_update() if hold else row)
                    tx.execute(update(dids).where(dids.c.id == did_id).values(bytes=value + 1))

            session.database.run(rise)

        return work


def test_a_lost_update_is_found_and_found_again_by_its_order(sites):
    ledger = Ledger(sites)
    works = [ledger.raises(hold=False), ledger.raises(hold=False)]
    with pytest.raises(Failed, match="rose by") as found:
        ledger.search(*works, rises=2).explore()
    order = str(found.value).split("'")[1]
    with pytest.raises(Failed, match="rose by"):
        ledger.search(*works, rises=2).replay(order_of(order))


def test_rows_that_are_held_lose_nothing_and_a_deadlock_is_tried_again(sites):
    ledger = Ledger(sites)
    same = ledger.search(ledger.raises(hold=True), ledger.raises(hold=True), rises=2).explore()
    assert same.complete
    crossed = ledger.search(
        ledger.raises(hold=True), ledger.raises(hold=True, reverse=True), rises=2
    ).explore()
    assert crossed.complete
    assert crossed.orders > same.orders


SETS_BYTES = Footprint(
    {("dids", None): frozenset({NO_KEY_UPDATE})}, {}, {("dids", None): frozenset({"bytes"})}
)


@pytest.mark.parametrize(
    ("statement", "matters"),
    [
        (select(dids.c.name).where(dids.c.bytes > 5), True),
        (select(dids.c.name).where(dids.c.id == 5), False),
        (select(locks.c.bytes).join(dids, dids.c.id == locks.c.file_id), False),
        (select(dids.alias("aliased").c.bytes), True),
        (select(func.count()).select_from(dids), False),
        (insert(contents).values(parent_id=1, child_id=2), False),
        (update(dids).values(monotonic=True), True),
    ],
    ids=str,
)
def test_a_commit_matters_to_what_looks_at_what_it_has_set_or_wants_its_rows(statement, matters):
    commit = replace(SETS_BYTES, ends=True, keeps=True)
    text = str(statement.compile(dialect=postgresql.dialect()))
    assert commit.depends_on(footprint(text)) is matters


def test_rows_that_come_or_go_matter_to_whatever_looks_at_their_table():
    done = footprint(str(delete(contents).compile(dialect=postgresql.dialect())))
    counts = footprint(str(select(func.count()).select_from(contents)))
    assert not done.depends_on(counts)
    assert replace(done.changes(), ends=True, keeps=True).depends_on(counts)


def test_an_order_in_short_is_read_as_it_was_written():
    assert text_of([0, 0, 1, 0]) == "0x2 1x1 0x1"
    assert order_of("0x2 1x1 0x1") == [0, 0, 1, 0]
