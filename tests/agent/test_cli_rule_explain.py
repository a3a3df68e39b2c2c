"""`arriero rule explain`: readable at a terminal, whole for programs, and safe whatever files are called."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, insert, select, update

from arriero.registry.schema.tables import dids, evaluation_items, locks, rses, rules, unplaced_groups
from arriero.registry.states import RuleState
from support import cli as support_cli
from support.cli import root_environment
from support.explained import IN2P3, LANCS, SLAC, Explained
from support.server import running_registry

cli = support_cli.cli

HOSTILE = "evil/\x1b[2J\x1b]0;owned\x07\u202egnp.\nRule 0 is OK; [red]all is well[/red]"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, services, tmp_path_factory) -> Iterator[Explained]:
    with running_registry(services, request.param, tmp_path_factory.mktemp("explained")) as running:
        yield Explained(running)


@pytest.fixture
def explained(world, tmp_path, monkeypatch) -> Explained:
    for name, value in root_environment(world.registry.url, tmp_path).items():
        monkeypatch.setenv(name, value)
    world.lay()
    return world


def test_for_people(explained, cli):
    told = cli("-o", "table", "rule", "explain", explained.rule_id[:8])
    text = told.out
    assert told.lines[0] == f"Rule {explained.rule_id} of root on raw:c (container):"
    assert told.lines[1] == "1 copy on tier=2, grouping DATASET, weighed by w"
    assert told.lines[2].startswith("STUCK since ")
    assert told.lines[3] == "Locks: 4 OK, 11 replicating, 3 stuck; 13.7 KiB left"
    assert told.lines[4].startswith("Next look: in 59 min")
    assert "what is stuck is tried again in 59 min" in told.lines[4]
    assert told.lines[5].startswith("To the end: ")
    titles = ["RSEs", "Without a place", "What files wait for", "Left to copy", "What you can do"]
    assert [line for line in told.lines if line in titles] == titles
    [failing] = [line for line in told.lines if " timed_out " in line and line.endswith("no answer in 60 s")]
    assert failing.split()[:2] == ["2", "2.0"]
    assert "in 4 min 5" in failing
    assert SLAC in failing
    assert "raw:failing/000" in failing
    [closed] = [line for line in told.lines if line.startswith("CLOSED")]
    assert closed.endswith("is blocked for writing")
    assert "500 B/s" in text
    assert "    arriero rse resume CLOSED --write" in told.lines


def test_for_programs(explained, cli):
    told = cli("-o", "json", "rule", "explain", explained.rule_id).json
    assert told["rule"]["id"] == explained.rule_id
    assert {wait["code"]: wait["files"] for wait in told["waits"]}["queued"] == 5
    assert {rse["rse"] for rse in told["rses"] if rse["chosen"]} == {IN2P3, LANCS}
    lines = cli("-o", "csv", "rule", "explain", explained.rule_id).lines
    assert lines[0].startswith("files,bytes,rse,state,code,")
    assert len(lines) == 1 + len(told["waits"])


def test_a_rule_without_trouble(explained, cli):
    with explained.database.transaction() as tx:
        for table in (locks, unplaced_groups, evaluation_items):
            tx.execute(table.delete())
        tx.execute(
            update(rules).values(
                state=RuleState.OK, code=None, reason=None, locks_replicating=0, locks_stuck=0
            )
        )
    out = cli("-o", "table", "rule", "explain", explained.rule_id).out
    assert "What files wait for" not in out
    assert "To the end: 0 ms. everything is there" in out


def test_names_do_nothing_to_the_terminal(explained, cli):
    with explained.database.transaction() as tx:
        first = tx.execute(select(locks).where(locks.c.code == "no_source").order_by(locks.c.file_id)).first()
        plain = tx.scalar(select(dids.c.name).where(dids.c.id == first.file_id))
        tx.execute(update(dids).where(dids.c.id == first.file_id).values(name=HOSTILE))
        tx.execute(update(locks).where(locks.c.code == "no_source").values(reason=HOSTILE))
        tx.execute(update(rules).values(reason=HOSTILE))
    out = cli("-o", "table", "rule", "explain", explained.rule_id).out
    with explained.database.transaction() as tx:
        tx.execute(update(dids).where(dids.c.name == HOSTILE).values(name=plain))
    for character in ("\x1b", "\x07", "\u202e"):
        assert character not in out
    assert "\\x1b[2J" in out
    assert "[red]all is well[/red]" in out
    assert not [line for line in out.splitlines() if line.startswith("Rule 0 is OK")]


def test_many_rses_are_counted(explained, cli):
    with explained.database.transaction() as tx:
        new = [{"name": f"R{number:03d}", "type": "DISK"} for number in range(50)]
        tx.execute(insert(rses), new)
        tx.execute(update(rules).values(rse_expression="*"))
    out = cli("-o", "table", "rule", "explain", explained.rule_id).out
    with explained.database.transaction() as tx:
        tx.execute(delete(rses).where(rses.c.name.like("R%")))
    # 4 of the world's, SLAC, and 50; 30 are shown
    assert "25 more RSEs were not chosen; -o json has them." in out


def test_a_rule_that_is_not_there(explained, cli):
    ended = cli("rule", "explain", "0" * 32, expect=3)
    assert "there is no rule" in ended.err
