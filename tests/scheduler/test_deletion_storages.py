"""Deletions on real servers, and the mark that tells whose storage it is."""

from __future__ import annotations

import json
import uuid

import pytest
from sqlalchemy import update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import installation, rse_deletions
from arriero.rse.errors import AccessDenied, NoSpace
from arriero.rse.file import FileProtocol
from arriero.scheduler.core.marks import (
    FOREIGN,
    GONE,
    REWOUND,
    SHARED,
    UNREADABLE,
    Mark,
    Refusal,
    Unreadable,
    judge,
    read_mark,
)
from arriero.scheduler.deletion_mark import PATH
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.transfer import TransferRunner
from support.deletions import Storages


@pytest.fixture
def storages(catalogue, tmp_path):
    return Storages(catalogue, tmp_path)


@pytest.mark.parametrize("name", ["xrootd_slac", "apache"])
def test_files_are_deleted_on_a_server_and_may_be_made_again(storages, services, name):
    server = services.webdav(name)
    slac, in2p3 = storages.webdav("SLAC", server), storages.rse("IN2P3")
    ids = storages.files(60, at=[slac, in2p3], verified=[in2p3])
    storages.let_go(ids[:50], slac, purge=True)
    storages.path(slac, "file-000003").unlink()
    blocked = storages.path(slac, "file-000007")
    blocked.unlink()
    storages.make_folder(blocked, with_file=True)
    done = storages.run(deletion_threads=8)
    assert (done.done, done.failed) == (49, 1)
    assert storages.names(slac) == ["file-000007", *(f"file-{number:06d}" for number in range(50, 60))]
    assert (blocked / "inside").exists(), "a folder and what is in it are never removed"
    [row] = storages.queue()
    assert row.code == "unsupported"
    assert len(storages.names(in2p3)) == 60
    # made again at the same path, and still there when everything has been looked at once more
    rule = storages.catalogue.rule(ids[0], "SLAC")
    Evaluator(storages.catalogue.context).run()
    assert TransferRunner(storages.context()).run().done == 1
    storages.wake()
    storages.run()
    assert storages.catalogue.rule_row(rule).locks_ok == 1
    assert storages.path(slac, "file-000000").stat().st_size == 100
    storages.catalogue.check_invariants()


def test_a_server_that_is_killed_costs_no_attempt_and_nothing_is_forgotten(storages, services):
    server = services.xrootd_in2p3
    slac, in2p3 = storages.webdav("SLAC", server), storages.rse("IN2P3")
    ids = storages.files(20, at=[slac, in2p3], verified=[in2p3])
    storages.let_go(ids, slac, purge=True)
    assert storages.run(deletion_threads=4).done == 20
    again = storages.files(50, at=[slac, in2p3], verified=[in2p3], prefix="again")
    storages.let_go(again, slac, purge=True)
    server.kill()
    try:
        assert storages.run(deletion_threads=4).done == 0
    finally:
        server.start()
    assert storages.site(slac).code == "unavailable"
    assert {row.attempt for row in storages.queue()} <= {0}
    storages.wake()
    assert storages.run(deletion_threads=4).done == 50
    assert storages.names(slac) == []
    storages.catalogue.check_invariants()


def going(storages, count: int = 1, prefix: str = "file"):
    """Files whose replicas at the first RSE may go."""
    slac, in2p3 = (
        sorted(storages.roots)[:2] if storages.roots else (storages.rse("SLAC"), storages.rse("IN2P3"))
    )
    ids = storages.files(count, at=[slac, in2p3], verified=[in2p3], prefix=prefix)
    storages.let_go(ids, slac, purge=True)
    return slac, ids


def age_mark(storages) -> None:
    """Have the mark be looked at again."""
    with storages.database.transaction() as tx:
        marked = rse_deletions.c.marked_at.is_not(None)
        tx.execute(update(rse_deletions).where(marked).values(marked_at=after(-3600.0)))
        tx.execute(update(rse_deletions).values(not_before=None))


def change_mark(storages, rse_id: int, **said) -> None:
    path = storages.roots[rse_id] / PATH
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    age_mark(storages)


def test_a_mark_is_left_and_raised(storages):
    slac, _ = going(storages)
    assert storages.run().done == 1
    first = read_mark((storages.roots[slac] / PATH).read_bytes())
    ours = storages.catalogue.one(installation.select()).id
    assert (first.installation, first.rse, first.epoch) == (str(ours), "SLAC", 1)
    going(storages, prefix="more")
    assert storages.run().done == 1
    assert read_mark((storages.roots[slac] / PATH).read_bytes()).epoch == 1, "once a minute is enough"
    age_mark(storages)
    going(storages, prefix="last")
    assert storages.run().done == 1
    assert read_mark((storages.roots[slac] / PATH).read_bytes()).epoch == 2
    assert sorted(path.name for path in storages.roots[slac].iterdir()) == [PATH, "raw"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"installation": str(uuid.uuid4())}, FOREIGN),
        ({"rse": "OTHER"}, SHARED),
        ({"epoch": 17}, REWOUND),
        ({"epoch": "x"}, UNREADABLE),
    ],
)
def test_nothing_is_deleted_where_the_mark_is_not_ours(storages, said, code):
    slac, _ = going(storages)
    assert storages.run().done == 1
    going(storages, 3, prefix="more")
    change_mark(storages, slac, **said)
    assert storages.run().claimed == 0
    site = storages.site(slac)
    assert site.code == code
    assert "arriero deletion go --rse SLAC --take-over" in site.reason
    assert len(storages.names(slac)) == 3
    assert set(storages.states(slac).values()) == {"AVAILABLE"}
    with storages.database.transaction() as tx:
        tx.execute(update(rse_deletions).values(take_over=True, not_before=None))
    assert storages.run().done == 3
    assert read_mark((storages.roots[slac] / PATH).read_bytes()).epoch > (17 if code == REWOUND else 1)
    assert storages.site(slac).code is None


def test_nothing_is_deleted_where_the_mark_is_gone(storages):
    slac, _ = going(storages)
    assert storages.run().done == 1
    going(storages, 3, prefix="more")
    (storages.roots[slac] / PATH).unlink()
    age_mark(storages)
    assert storages.run().claimed == 0
    assert storages.site(slac).code == GONE


@pytest.mark.parametrize("error", [NoSpace, AccessDenied])
def test_a_storage_that_takes_no_mark_is_deleted_from_all_the_same(storages, monkeypatch, error):
    """It is the full one from which something has to go."""

    def refuse(*_: object) -> None:
        raise error("no")

    monkeypatch.setattr(FileProtocol, "write", refuse)
    slac, _ = going(storages, 2)
    assert storages.run().done == 2
    assert storages.site(slac).marked_at is None
    going(storages, 1, prefix="more")
    assert storages.run().done == 1


def test_an_rse_may_go_without_a_mark(storages):
    slac = storages.rse("SLAC", deletion_mark="False")
    storages.rse("IN2P3")
    going(storages)
    assert storages.run().done == 1
    assert not (storages.roots[slac] / PATH).exists()


def test_marks_are_judged():
    known = {"installation": "me", "rse": "SLAC", "epoch": 5, "has_mark": True}
    assert judge(Mark("me", "SLAC", 5), **known) is None
    assert judge(Mark("me", "SLAC", 3), **known) is None
    assert judge(Mark("me", "SLAC", 6), **known).code == REWOUND
    assert judge(None, **known).code == GONE
    assert judge(None, **known | {"has_mark": False}) is None
    assert judge(Refusal("x", "y"), **known).code == "x"
    mark = Mark("me", "SLAC", 7)
    assert read_mark(mark.written()) == mark
    for content in (
        b"",
        b"{}",
        b"[]",
        b"null",
        mark.written()[:-5],
        b'{"installation": 1, "rse": "a", "epoch": 1}',
    ):
        with pytest.raises(Unreadable):
            read_mark(content)
