"""What is told of copies: each attempt, why one went its way, how far it is, what storages can do."""

from __future__ import annotations

import threading

from arriero.registry.store.rse_health import keep_abilities
from arriero.rse.abilities import Abilities
from arriero.rse.copy_order import CopyResult, StepDown
from arriero.rse.errors import ChecksumMismatch
from arriero.scheduler.mover import Finished
from arriero.scheduler.testing import ScriptedMover
from support import cli as support_cli
from support import transfers as support_transfers
from support.dying import wait_until

cli = support_cli.cli
site = support_transfers.site

NO_WAY = "the destination has no third-party copy"


class Streaming(ScriptedMover):
    """Streams, because the destination cannot pull."""

    def _end(self, copy):
        ended = super()._end(copy)
        if ended.result is None:
            return ended
        steps = (StepDown("third_party_pull", "unsupported", NO_WAY),)
        return Finished(copy, CopyResult("streamed", NO_WAY, copy.order.bytes, "0000002a", 0.5, steps))


def test_every_attempt_and_why_it_went_its_way(site, cli):
    site.dataset("night", 1)
    site.rule("night")
    wrong = ChecksumMismatch("it differs", rse="IN2P3")
    for _ in range(2):
        assert site.copy(lambda _name: wrong, transfer_backoff_s=600.0).retried == 1
        site.all_due()
    assert site.runner(Streaming()).run().done == 1
    told = cli("-o", "json", "transfer", "show", "raw:night-000").json["attempts"]
    assert [(one["state"], one["attempt"], one["code"], one["mode"], one["mode_reason"]) for one in told] == [
        ("DONE", 3, None, "streamed", NO_WAY),
        ("QUEUED", 2, "checksum_mismatch", None, None),
        ("QUEUED", 1, "checksum_mismatch", None, None),
    ]
    assert all(one["source"] == "SLAC" and one["started_at"] and one["reason"] for one in told[1:])
    table = cli("-o", "table", "transfer", "show", "raw:night-000").out
    assert "WHY SO" in table
    assert "no third-party" in " ".join(table.split())
    # what went as usual says nothing
    site.dataset("day", 1)
    site.rule("day")
    site.copy()
    [usual] = cli("-o", "json", "transfer", "show", "raw:day-000").json["attempts"]
    assert (usual["mode"], usual["mode_reason"]) == ("third_party_pull", None)


def test_how_far_a_copy_is(site, cli):
    site.dataset("night", 2)
    site.rule("night")
    mover = ScriptedMover(hold=True)
    worker = threading.Thread(target=site.runner(mover).run)
    worker.start()
    try:
        wait_until(lambda: len(mover.under_way()) == 2, "nothing has begun")
        [first, _] = sorted(one.request.id for one in mover.under_way())
        mover.told[first] = 400

        def copied() -> list[int | None]:
            found = cli("-o", "json", "transfer", "list", "--state", "submitted").json
            return [one["copied"] for one in found]

        wait_until(lambda: copied() == [400, None], "it is not told")
        assert "400 B" in cli("-o", "table", "transfer", "list").out
    finally:
        mover.release()
        worker.join(20)
    site.check_invariants()


def test_what_storages_can_do(site, cli):
    site.dataset("night", 1)
    site.rule("night")
    site.copy()
    pulls = Abilities(True, False, frozenset({"adler32"}), True, False, True, True, server="xrootd/v5")
    found = {("IN2P3", "https://in2p3.example.org:1094"): pulls.as_dict(), ("GONE", "https://x:1"): {}}
    site.database.run(lambda tx: keep_abilities(tx, found))
    [health] = cli("-o", "json", "rse", "health", "IN2P3").json["abilities"]
    assert (health["server"], health["third_party_pull"], health["digest_algorithms"]) == (
        "xrootd/v5",
        True,
        ["adler32"],
    )
    assert health["probed_at"]
    assert cli("-o", "json", "rse", "health", "SLAC").json["abilities"] == []
    assert "xrootd/v5: pull, move, ranges, list, adler32" in cli("-o", "csv", "rse", "health").out
    [link] = cli("-o", "json", "link", "list", "--from", "SLAC").json
    assert link["ways"] == ["third_party_pull", "streamed"]
    # what is found out later takes its place
    less = Abilities(False, False, frozenset(), True, True, True, True, server="apache")
    site.database.run(lambda tx: keep_abilities(tx, {next(iter(found)): less.as_dict()}))
    [link] = cli("-o", "json", "link", "list", "--from", "SLAC").json
    assert link["ways"] == ["streamed"]
