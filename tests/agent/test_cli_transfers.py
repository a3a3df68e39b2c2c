"""`arriero transfer`: what waits and why, trying again, taking back; against a real registry and the scheduler's own code."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from sqlalchemy import select

from arriero.registry.client import RegistryClient
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import accounts, audit_log, dids, requests
from arriero.registry.services.authentication import issue_token
from arriero.registry.states import RequestState, TokenKind
from arriero.rse.errors import InvalidName, Unavailable
from arriero.scheduler.testing import ScriptedMover
from support import cli as support_cli
from support import transfers as support_transfers

cli = support_cli.cli
site = support_transfers.site


def listed(cli, *words: str) -> list[dict]:
    return cli("-o", "json", "transfer", "list", *words).json


def broken(name: str):
    return InvalidName("no such names here", rse="IN2P3") if name.endswith("000") else None


class BrokenOff(Unavailable):
    """A failure that comes and goes, and that no RSE is to blame for."""

    code = "transfer_failed"

    def __init__(self) -> None:
        super().__init__("broken off", rse="IN2P3")


def test_what_waits_is_listed_narrowed_and_counted(site, cli):
    site.dataset("night", 4)
    rule = site.rule("night", activity="Express")
    site.dataset("day", 2)
    site.rule("day", "LANCS")
    site.copy(lambda name: broken(name) if name.startswith("night") else None, transfer_batch=2)
    [given_up] = listed(cli, "--state", "failed")
    assert (given_up["name"], given_up["code"], given_up["attempt"]) == ("night-000", "invalid_name", 1)
    assert (given_up["source"], given_up["destination"], given_up["rule_id"]) == ("SLAC", "IN2P3", rule)
    assert given_up["next_attempt_at"] is None
    site.dataset("dusk", 3)
    dusk = site.rule("dusk")
    assert [one["name"] for one in listed(cli)] == ["night-000", "dusk-000", "dusk-001", "dusk-002"]
    for words, names in (
        (("--rule", dusk[:8], "--limit", "2"), ["dusk-000", "dusk-001"]),
        (("--did", "raw:dusk", "--to", "IN2P3", "--code", "queued"), ["dusk-000", "dusk-001", "dusk-002"]),
        (("--did", "raw:dusk-001"), ["dusk-001"]),
        (("--to", "LANCS"), []),
        (("--from", "SLAC"), ["night-000"]),
        (("--activity", "Express"), ["night-000"]),
        (("--code", "invalid_name", "--problems"), ["night-000"]),
    ):
        assert [one["name"] for one in listed(cli, *words)] == names, words
    totals = cli("-o", "json", "transfer", "list", "--totals").json
    assert [(one["files"], one["bytes"], one["destination"], one["code"]) for one in totals] == [
        (3, 3000, "IN2P3", "queued"),
        (1, 1000, "IN2P3", "invalid_name"),
    ]
    table = cli("-o", "table", "transfer", "list", "--limit", "1")
    assert "night-000" in table.out
    assert table.err.startswith(
        "0 under way, 3 in the queue (2.9 KiB to copy), 1 given up.\nOnly the first 1"
    )
    assert cli("-o", "csv", "transfer", "list").lines[0].startswith("scope,name,bytes,source,")
    cli("transfer", "list", "--to", "NOWHERE", expect=3)
    site.check_invariants()


def test_all_that_is_known_of_one(site, cli):
    site.dataset("night", 1)
    rule = site.rule("night")
    site.copy(broken)
    cli("transfer", "retry", "--rule", rule)
    site.evaluate()
    site.copy(broken)
    told = cli("-o", "json", "transfer", "show", "raw:night-000").json
    assert told["replica"] == "UNAVAILABLE"
    assert told["request"]["code"] == "invalid_name"
    assert [(one["state"], one["code"], one["source"]) for one in told["attempts"]] == [
        ("FAILED", "invalid_name", "SLAC")
    ] * 2
    assert [(one["rule_id"], one["state"], one["code"]) for one in told["locks"]] == [
        (rule, "STUCK", "invalid_name")
    ]
    assert told["fence"] == 2
    table = cli("-o", "table", "transfer", "show", "raw:night-000", "--to", "IN2P3").out
    assert table.startswith("raw:night-000 to IN2P3: replica UNAVAILABLE")
    assert "Tried before" in table
    assert "was ever asked for" in cli("transfer", "show", "raw:night-000", "--to", "LANCS", expect=3).err
    assert "is a dataset" in cli("transfer", "show", "raw:night", expect=2).err


@pytest.mark.parametrize(
    "words", [("--rule", "RULE"), ("--to", "IN2P3"), ("raw:night",), ("raw:night-000", "raw:night-001")]
)
def test_what_failed_begins_anew(site, cli, words):
    names = site.dataset("night", 2)
    rule = site.rule("night")
    # one is given up, the other waits for its next attempt
    site.copy(lambda name: broken(name) or BrokenOff(), transfer_backoff_s=600.0)
    assert site.locks() == {names[0]: ("STUCK", "invalid_name"), names[1]: ("REPLICATING", None)}
    words = [rule if word == "RULE" else word for word in words]
    planned = cli("-o", "json", "transfer", "retry", *words, "--dry-run").json
    assert (planned["due_now"], planned["tried_again"]) == (1, 1)
    assert site.copy().claimed == 0, "nothing was done yet"
    done = cli("transfer", "retry", *words, "--reason", "the header was repaired").err
    assert done == "1 transfers are due now, 1 that were given up are tried again.\n"
    assert site.rows(select(requests.c.attempt).where(requests.c.state == RequestState.QUEUED)) == [(0,)]
    site.evaluate()
    assert site.copy().done == 2
    assert site.state_of(rule)["state"] == "OK"
    [audited] = site.rows(select(audit_log).where(audit_log.c.action == "transfer_retry").limit(1))
    assert audited.detail["reason"] == "the header was repaired"
    assert "0 transfers are due now" in cli("transfer", "retry", *words).err
    site.check_invariants()


def test_a_boosted_file_comes_first(site, cli):
    site.dataset("night", 5)
    site.rule("night")
    assert "1 transfers are due now" in cli("transfer", "boost", "raw:night-003").err
    first = ScriptedMover()
    site.runner(first, transfer_batch=1).run()
    assert len(first.copied) == 5
    [name] = site.rows(select(dids.c.name).where(dids.c.id == first.copied[0].request.file_id))
    assert name == ("night-003",)


def test_what_a_rule_has_in_the_queue_is_taken_back_and_rests(site, cli):
    names = site.dataset("night", 3)
    rule = site.rule("night")
    site.client.add_did("raw", "mine", "DATASET")
    site.client.attach_dids("raw", "mine", [{"scope": "raw", "name": names[0]}])
    site.rule("mine")
    planned = cli("transfer", "cancel", "--rule", rule, "--dry-run").err
    assert planned == (
        "2 transfers in the queue and 0 under way would be taken back; 1 that other rules want too were left alone.\n"
    )
    done = cli("-o", "json", "transfer", "cancel", "--rule", rule[:8], "--reason", "wrong night").json
    assert done == {"queued": 2, "under_way": 0, "rules": 1, "shared": 1}
    site.check_invariants()
    told = site.state_of(rule)
    assert (told["state"], told["locks_stuck_cnt"], told["locks_replicating_cnt"]) == ("STUCK", 2, 1)
    assert "taken back by root at 20" in told["error"]
    assert told["error"].endswith(": wrong night")
    waits = cli("-o", "json", "rule", "explain", rule).json["waits"]
    [cancelled] = [one for one in waits if one["code"] == "cancelled"]
    assert (cancelled["files"], cancelled["sentence"]) == (2, told["error"])
    site.evaluate()
    assert site.copy().done == 1, "the one that others want"
    assert site.state_of(rule)["locks_stuck_cnt"] == 2, "nothing of it is tried by itself yet"
    history = cli("-o", "json", "rule", "history", rule).json
    assert [(one["account"], one["to_state"]) for one in history if one["code"] == "cancelled"] == [
        ("root", "STUCK")
    ]
    cli("transfer", "retry", "--rule", rule)
    site.evaluate()
    assert site.copy().done == 2
    assert site.state_of(rule)["state"] == "OK"
    site.check_invariants()


def test_what_was_taken_back_is_tried_again_when_its_time_comes(site, cli):
    site.dataset("night", 2)
    rule = site.rule("night")
    cli("transfer", "cancel", "raw:night-000", "--to", "IN2P3")
    assert site.copy().done == 1
    site.evaluate()
    assert site.copy().claimed == 0
    site.all_due()
    site.evaluate()
    assert site.copy().done == 1
    assert site.state_of(rule)["state"] == "OK"
    site.check_invariants()


def test_a_copy_under_way_is_ended_by_its_worker(site, cli):
    site.dataset("night", 3)
    rule = site.rule("night")

    class Holding(ScriptedMover):
        def __init__(self) -> None:
            super().__init__(hold=True)
            self.begun = threading.Event()
            self.ended = threading.Event()
            self.stopped: set[int] = set()

        def submit(self, copies, slots):
            super().submit(copies, slots)
            self.begun.set()

        def cancel(self, request_ids):
            super().cancel(request_ids)
            self.stopped |= set(request_ids)
            self.ended.set()

    mover = Holding()
    done = []
    worker = threading.Thread(target=lambda: done.append(site.runner(mover).run()))
    worker.start()
    try:
        assert mover.begun.wait(20)
        shown = cli("-o", "json", "transfer", "show", "raw:night-001").json["request"]
        assert (shown["state"], shown["code"]) == ("SUBMITTED", "copying")
        assert shown["lease_owner"]
        told = cli("-o", "json", "transfer", "cancel", "raw:night-001").json
        assert told == {"queued": 0, "under_way": 1, "rules": 1, "shared": 0}
        assert mover.ended.wait(20), "its worker is told"
        assert mover.stopped == {shown["id"]}
    finally:
        mover.release()
        worker.join(20)
    [summary] = done
    assert (summary.done, summary.discarded) == (2, 1), "what the worker says of it does not count"
    assert site.locks()["night-001"] == ("STUCK", "cancelled")
    assert site.state_of(rule)["state"] == "STUCK"
    site.check_invariants()
    cli("transfer", "retry", "raw:night-001")
    site.evaluate()
    assert site.copy().done == 1
    site.check_invariants()


def test_of_a_rule_what_has_begun_goes_on_unless_it_is_asked_for(site, cli):
    site.dataset("night", 2)
    rule = site.rule("night")
    with site.database.transaction() as tx:
        tx.execute(
            requests.update().values(
                state=RequestState.SUBMITTED, attempt=1, fence=1, lease_owner="w", lease_until=after(60.0)
            )
        )
    assert (
        "There was nothing" in cli("--error-on-nothing", "transfer", "cancel", "--rule", rule, expect=9).err
    )
    done = cli("-o", "json", "transfer", "cancel", "--rule", rule, "--under-way", "--to", "IN2P3").json
    assert done == {"queued": 0, "under_way": 2, "rules": 1, "shared": 0}
    assert {(row.state, row.fence, row.lease_owner) for row in site.rows(select(requests))} == {
        (RequestState.FAILED, 2, None)
    }
    site.check_invariants()


def test_nobody_touches_the_copies_of_others(site, cli, tmp_path):
    site.dataset("night", 1)
    rule = site.rule("night")
    with site.database.transaction() as tx:
        eva = accounts.insert().values(name="eva", type="USER", role="data_manager").returning(accounts.c.id)
        key = tx.execute(eva).scalar_one()
        issued = issue_token(tx, account_id=key, account="eva", kind=TokenKind.SESSION, lifetime_s=60)
    (tmp_path / "token").write_text(issued.token)
    for words in (
        ("retry", "--to", "IN2P3"),
        ("retry", "--rule", rule),
        ("cancel", "raw:night-000"),
        ("cancel", "--rule", rule),
    ):
        said = cli("--token-file", str(tmp_path / "token"), "transfer", *words, expect=6).err
        assert "ask its owner or an administrator" in said
    assert site.rows(select(requests.c.state)) == [(RequestState.QUEUED,)]


def test_watching_ends_when_nothing_is_left(site, cli):
    site.dataset("night", 2)
    site.rule("night")
    rounds = []

    class Hurried(threading.Thread):
        def run(self) -> None:
            rounds.append(site.copy(broken))

    worker = Hurried()
    worker.start()
    ended = cli("-o", "jsonl", "transfer", "list", "--watch", "--every", "0.1", expect=8)
    worker.join(20)
    last = json.loads(ended.lines[-1])
    assert last == {"queued_files": 0, "under_way_files": 0, "failed_files": 1, "bytes_left": 0}
    assert "1 transfers were given up" in ended.err
    assert cli("-o", "table", "transfer", "list", "--did", "raw:night-001", "--watch").lines == [
        "0 under way, 0 in the queue (0 B to copy), 0 given up."
    ]
    cli("-o", "csv", "transfer", "list", "--watch", expect=2)


def test_watching_on_a_terminal_shows_a_bar(site, cli, monkeypatch):
    site.dataset("night", 2)
    site.rule("night")
    asked = []
    totals = RegistryClient.total_transfers

    def total_transfers(client, chosen):
        if asked:
            # between the first round and the second
            site.copy()
        asked.append(chosen)
        return totals(client, chosen)

    monkeypatch.setattr(RegistryClient, "total_transfers", total_transfers)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    out = cli("-o", "table", "transfer", "list", "--watch", "--every", "0.1").out
    assert "0 under way, 0 in the queue (0 B to copy), 0 given up." in out
    assert "2.0/2.0 KiB" in out
    assert len(asked) == 2


def test_what_is_meant_has_to_be_said(site, cli):
    assert "Which transfers?" in cli("transfer", "retry", expect=2).err
    assert "Which transfers?" in cli("transfer", "cancel", "--to", "IN2P3", expect=2).err
    site.dataset("night", 1)
    assert "is a dataset" in cli("transfer", "cancel", "raw:night", expect=2).err
    cli("transfer", "retry", "raw:nothing", expect=3)
    cli("transfer", "retry", "--rule", "0" * 32, expect=3)
