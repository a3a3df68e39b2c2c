"""`arriero link`, `arriero rse pause|resume|health|retry`: what stands in the way of copies is told wherever one asks."""

from __future__ import annotations

from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import audit_log, links, requests, rse_health, rse_pauses, rses
from arriero.registry.states import RequestState
from arriero.rse.errors import ChecksumMismatch, Unavailable
from support import cli as support_cli
from support import transfers as support_transfers

cli = support_cli.cli
site = support_transfers.site


def unreachable(_name: str) -> Unavailable:
    return Unavailable("connection refused", rse="IN2P3")


def waits(cli, rule: str) -> dict[str, str]:
    """What the files of a rule wait for: sentence by code."""
    return {one["code"]: one["sentence"] for one in cli("-o", "json", "rule", "explain", rule).json["waits"]}


def test_links(site, cli):
    site.dataset("night", 8)
    site.rule("night")
    site.client.set_distance("LANCS", "SLAC", 3)
    limit = {"rse_expression": "IN2P3", "max_transfers": 20, "activity": "User Subscriptions"}
    site.client._call("PUT", "/requests/transfer_limits", body=limit)
    wrong = ChecksumMismatch("it differs", rse="IN2P3")
    site.copy(lambda name: wrong if name.endswith("007") else None, transfer_backoff_s=600.0)
    with site.database.transaction() as tx:
        tx.execute(update(links).values(since=after(-60.0)))
    site.dataset("day", 5)
    site.rule("day")
    site.copy()
    site.dataset("dusk", 2)
    site.rule("dusk")
    [far, near] = cli("-o", "json", "link", "list").json
    assert (far["source"], far["destination"], far["distance"], far["slots"]) == ("LANCS", "SLAC", 3, None)
    told = {
        key: near[key] for key in ("source", "destination", "slots", "under_way", "queued", "mode", "code")
    }
    assert told == {
        "source": "SLAC",
        "destination": "IN2P3",
        "slots": 7,
        "under_way": 0,
        "queued": 3,
        "mode": "third_party_pull",
        "code": "checksum_mismatch",
    }
    assert near["decision"] == "one less: 92% of 13 copies succeeded"
    assert near["decided_at"]
    assert near["throughput"] > 0
    [limit] = near["limits"]
    assert (limit["rse"], limit["direction"], limit["under_way"], limit["max_transfers"]) == (
        "IN2P3",
        "DESTINATION",
        0,
        20,
    )
    table = cli("-o", "table", "link", "list", "--from", "SLAC").out
    assert "0/20" in table
    assert "one less: 92% of 13 copies succeeded" in table
    assert cli("-o", "json", "link", "list", "--to", "LANCS").json == []
    shown = cli("-o", "json", "link", "show", "SLAC", "IN2P3").json
    assert [(one["code"], one["copies"], one["bytes"]) for one in shown["totals"]] == [
        (None, 12, 12_000),
        ("checksum_mismatch", 1, 0),
    ]
    table = cli("-o", "table", "link", "show", "SLAC", "IN2P3").out
    assert "succeeded" in table
    cli("link", "show", "SLAC", "NOWHERE", expect=3)


def test_an_rse_that_is_paused(site, cli):
    site.dataset("night", 2)
    rule = site.rule("night")
    cli("rse", "pause", "IN2P3", "--write", "--dry-run", "--reason", "upgrade")
    assert cli("-o", "json", "rse", "health", "--trouble").json == []
    done = cli("rse", "pause", "IN2P3", "--write", "--delete", "--reason", "dCache upgrade").err
    assert done == "IN2P3 is closed for writing and deleting.\n"
    assert site.copy().claimed == 0
    said = waits(cli, rule)["blocked"]
    assert said.startswith("IN2P3 is closed for writing since 20")
    assert said.endswith(" UTC by root: dCache upgrade")
    [one, _] = cli("-o", "json", "transfer", "list", "--code", "blocked").json
    assert (one["reason"], one["next_attempt_at"]) == (said, None)
    [total] = cli("-o", "json", "transfer", "list", "--totals").json
    assert (total["code"], total["files"], total["reason"]) == ("blocked", 2, said)
    [step] = [
        one for one in cli("-o", "json", "trace", "raw:night-000").json["steps"] if one["step"] == "request"
    ]
    assert step["detail"].endswith(f"blocked: {said}")
    [health] = cli("-o", "json", "rse", "health", "--trouble").json
    assert [(one["operation"], one["account"], one["reason"]) for one in health["pauses"]] == [
        ("DELETE", "root", "dCache upgrade"),
        ("WRITE", "root", "dCache upgrade"),
    ]
    shown = cli("-o", "json", "rse", "show", "IN2P3").json
    assert shown["health"]["availability_write"] is shown["availability_write"] is False
    assert "write by root: dCache upgrade" in cli("-o", "table", "rse", "health").out
    [audited] = site.rows(select(audit_log).order_by(audit_log.c.id.desc()).limit(1))
    assert audited.detail == {
        "availability_write": False,
        "availability_delete": False,
        "reason": "dCache upgrade",
    }
    # whoever closes it once more without a word does not take the reason away
    cli("rse", "update", "IN2P3", "--key", "availability_write", "--value", "false")
    assert waits(cli, rule)["blocked"] == said
    assert cli("rse", "resume", "IN2P3", "--write").err == "IN2P3 is open for writing.\n"
    assert [row.operation for row in site.rows(select(rse_pauses))] == ["DELETE"]
    assert site.copy().done == 2
    cli("rse", "resume", "IN2P3")
    assert cli("-o", "json", "rse", "health", "IN2P3").json["pauses"] == []
    assert "What for?" in cli("rse", "pause", "IN2P3", expect=2).err
    cli("rse", "pause", "NOWHERE", "--read", expect=3)
    site.check_invariants()


def test_an_import_that_opens_an_rse_ends_the_pause(site, cli, tmp_path):
    cli("rse", "pause", "IN2P3", "--read", "--reason", "upgrade")
    document = tmp_path / "rses.json"
    document.write_text('{"rses": {"IN2P3": {"availability_read": true}}}')
    cli("rse", "import", str(document))
    assert site.rows(select(rse_pauses)) == []


def test_an_rse_that_is_down(site, cli):
    site.dataset("night", 6)
    rule = site.rule("night")
    assert site.copy(unreachable).done == 0
    [health] = cli("-o", "json", "rse", "health", "--trouble").json
    assert (health["rse"], health["breaker"], health["failures"], health["code"]) == (
        "IN2P3",
        "OPEN",
        5,
        "unavailable",
    )
    assert health["next_look_at"] > health["down_since"]
    [(code, said)] = waits(cli, rule).items()
    assert code == "rse_down"
    assert said.startswith("IN2P3 is down since 20")
    assert "connection refused" in said
    [one] = cli("-o", "json", "transfer", "list", "--limit", "1", "--code", "rse_down", "--problems").json
    assert one["next_attempt_at"] >= health["next_look_at"]
    link = cli("-o", "json", "link", "show", "SLAC", "IN2P3").json
    assert len(link["in_the_way"]) == 1
    assert cli("transfer", "retry", "--rule", rule).err.startswith("6 transfers are due now")
    assert site.copy().claimed == 0, "it is left alone all the same"
    cli("rse", "retry", "IN2P3", "--dry-run")
    done = cli("-o", "json", "rse", "retry", "IN2P3").json
    assert done == {"rse": "IN2P3", "was_down": True, "due_now": 0}
    assert site.copy().done == 6
    assert "was not down" in cli("rse", "retry", "IN2P3").err
    assert site.rows(select(rse_health.c.breaker, rse_health.c.failures)) == [("CLOSED", 0)]
    site.check_invariants()


def test_what_waits_for_a_source_that_is_down_goes_on_when_it_counts_as_up(site, cli):
    site.dataset("night", 3)
    rule = site.rule("night")
    with site.database.transaction() as tx:
        slac = tx.execute(select(rses.c.id).where(rses.c.name == "SLAC")).scalar_one()
        down = {"breaker": "OPEN", "failures": 5, "code": "timed_out", "reason": "no answer"}
        tx.execute(
            rse_health.insert().values(
                rse_id=slac, **down, opened_at=after(-60.0), retry_at=after(200.0), updated_at=after(0.0)
            )
        )
    assert site.copy().released == 3
    said = waits(cli, rule)["link_busy"]
    assert said.startswith("waits: SLAC is down since")
    assert "no answer" in said
    assert "3 transfers that waited are due now" in cli("rse", "retry", "SLAC").err
    assert site.copy().done == 3


def test_a_limit_that_is_used_up(site, cli):
    site.dataset("night", 3)
    rule = site.rule("night")
    limit = {"rse_expression": "IN2P3|LANCS", "max_transfers": 1}
    site.client._call("PUT", "/requests/transfer_limits", body=limit)
    with site.database.transaction() as tx:
        first = tx.execute(select(requests.c.id).order_by(requests.c.id).limit(1)).scalar_one()
        held = {"state": RequestState.SUBMITTED, "lease_owner": "w", "lease_until": after(60.0)}
        tx.execute(update(requests).where(requests.c.id == first).values(attempt=1, fence=1, **held))
    said = waits(cli, rule)
    assert sorted(said) == ["copying", "link_busy"]
    assert said["link_busy"] == (
        "as many copies are under way there as the transfer limit on IN2P3|LANCS allows (1 of 1)"
    )
    busy = cli("-o", "json", "transfer", "list", "--code", "link_busy").json
    assert len(busy) == 2
    assert all(one["next_attempt_at"] for one in busy)
