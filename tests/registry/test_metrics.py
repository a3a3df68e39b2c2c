"""`/metrics`: what Prometheus reads of the queues, links and RSEs, counted from the database's rows for all who ask."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as families
from sqlalchemy import text, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    arrivals,
    butlers,
    deletions,
    dids,
    evaluations,
    links,
    requests,
    rses,
)
from arriero.registry.services import metrics as service
from arriero.registry.states import RequestState
from arriero.rse.errors import InvalidName, Unavailable
from support import transfers as support_transfers
from support.database import counted_statements

site = support_transfers.site


def measured(site) -> dict[str, dict[tuple[str, ...], float]]:
    """Every figure by its name, and by its labels in the order of their names."""
    answered = httpx2.get(f"{site.registry.url}/metrics")
    assert answered.status_code == 200
    assert answered.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families(answered.text):
        assert family.documentation
        for sample in family.samples:
            key = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[key] = sample.value
    return found


def broken(name: str):
    return InvalidName("no such names here", rse="IN2P3") if name.endswith("000") else None


def test_queues_links_and_rses(site):
    site.dataset("night", 4)
    site.rule("night", activity="Express")
    site.copy(broken)
    site.dataset("day", 7)
    site.rule("day", "LANCS")
    site.copy(lambda _name: Unavailable("connection refused", rse="LANCS"))
    site.client.update_rse("SLAC", {"availability_delete": False})
    site.client.set_rse_usage("IN2P3", "storage", used=10, free=90)
    with site.database.transaction() as tx:
        tx.execute(update(links).values(throughput=5e6, success=0.75, decided_at=after(-60.0)))
        tx.execute(update(requests).where(requests.c.activity != "Express").values(created_at=after(-500.0)))
    found = measured(site)
    # labels by their names: activity, destination, state
    assert found["arriero_requests"] == {
        ("Express", "IN2P3", "FAILED"): 1,
        ("User Subscriptions", "LANCS", "QUEUED"): 7,
    }
    assert found["arriero_request_bytes"]["User Subscriptions", "LANCS", "QUEUED"] == 7000
    assert found["arriero_requests_waiting"] == {("rse_down", "LANCS"): 7}
    assert found["arriero_requests_failed"] == {("invalid_name", "IN2P3"): 1}
    assert 495 < found["arriero_request_oldest_seconds"]["User Subscriptions", "LANCS"] < 600
    assert "arriero_request_oldest_due_seconds" not in found, "it is not the workers' fault"
    # code, destination, result, source
    assert found["arriero_transfers_total"] == {
        ("", "IN2P3", "succeeded", "SLAC"): 3,
        ("invalid_name", "IN2P3", "failed", "SLAC"): 1,
        ("unavailable", "LANCS", "failed", "SLAC"): 7,
    }
    assert found["arriero_transfer_bytes_total"] == {("IN2P3", "SLAC"): 3000}
    assert found["arriero_transfer_seconds_total"]["IN2P3", "SLAC"] > 0
    assert found["arriero_link_slots"] == {("IN2P3", "SLAC"): 8}
    assert found["arriero_link_throughput_bytes"] == {("IN2P3", "SLAC"): 5e6}
    assert found["arriero_link_success_ratio"] == {("IN2P3", "SLAC"): 0.75}
    assert found["arriero_rse_down"] == {("IN2P3",): 0, ("LANCS",): 1, ("SLAC",): 0}
    assert found["arriero_rse_failures"]["LANCS",] == 5
    assert found["arriero_rse_available"]["delete", "SLAC"] == 0
    assert found["arriero_rse_available"]["write", "SLAC"] == 1
    assert found["arriero_rse_bytes"]["free", "IN2P3"] == 90
    assert found["arriero_rules"] == {("REPLICATING",): 1, ("STUCK",): 1}
    assert found["arriero_locks"] == {("OK",): 3, ("REPLICATING",): 7, ("STUCK",): 1}
    assert set(found["arriero_metrics_missing"].values()) == {0}
    assert {part for (part,) in found["arriero_metrics_seconds"]} == set(service.PARTS)


def test_what_workers_do(site):
    site.dataset("night", 3)
    site.rule("night")
    site.dataset("day", 1)
    site.client.add_replication_rule([{"scope": "raw", "name": "day"}], 1, "IN2P3")
    held = {"lease_owner": "w1", "lease_until": after(-1.0)}
    with site.database.transaction() as tx:
        ids = {row.name: row.id for row in tx.execute(dids.select())}
        places = {row.name: row.id for row in tx.execute(rses.select())}
        tx.execute(
            update(requests)
            .where(requests.c.file_id == ids["night-000"])
            .values(state=RequestState.SUBMITTED, source_id=places["SLAC"], attempt=1, fence=1, **held)
        )
        tx.execute(update(evaluations).values(not_before=after(-100.0)))
        tx.execute(update(requests).values(not_before=after(-10.0)))
        butler = {"name": "embargo", "uri": "/repo", "instruments": []}
        butler_id = tx.execute(butlers.insert().values(**butler).returning(butlers.c.id)).scalar_one()
        for name, state in (("night-000", "pending"), ("night-001", "ingested"), ("night-002", "leased")):
            row = {"butler_id": butler_id, "file_id": ids[name], "rse_id": places["SLAC"], "state": state}
            tx.execute(arrivals.insert().values(**row, **(held if state == "leased" else {})))
        for name, more in (("night-001", {}), ("night-002", held), ("day-000", {"code": "unavailable"})):
            row = {"file_id": ids[name], "rse_id": places["LANCS"], "bytes": 1000, "cause": "unlocked"}
            tx.execute(deletions.insert().values(**row, was="AVAILABLE", **more))
    found = measured(site)
    assert found["arriero_transfers_running"] == {("IN2P3", "SLAC"): 1}
    assert found["arriero_workers_busy"] == {
        ("transfer",): 1,
        ("rules",): 0,
        ("delete",): 1,
        ("ingest",): 1,
    }
    assert found["arriero_leases_expired"]["transfer",] == 1
    assert 9 < found["arriero_request_oldest_due_seconds"]["User Subscriptions", "IN2P3"] < 100
    assert found["arriero_evaluations"] == {("due",): 1}
    assert 99 < found["arriero_evaluation_oldest_due_seconds"][()] < 200
    assert found["arriero_arrivals"] == {("embargo", "leased"): 1, ("embargo", "pending"): 1}
    assert found["arriero_arrived"] == {("embargo", "ingested"): 1}
    assert found["arriero_arrival_reasons"] == {("embargo", "", "pending"): 1}
    assert found["arriero_deletions"] == {
        ("LANCS", "failing"): 1,
        ("LANCS", "held"): 1,
        ("LANCS", "waiting"): 1,
    }
    assert found["arriero_deletion_stopped"] == {(): 0}


def test_every_figure_is_in_the_manual(site):
    manual = (Path(__file__).resolve().parents[2] / "docs/operations/monitoring.md").read_text()
    table, _, alerts = manual.partition("Alerts")
    listed = set(re.findall(r"`(arriero_[a-z_]+)`", table))
    families = {family.name for family in service.measure(site.context)}
    assert listed == families
    assert set(re.findall(r"\b(arriero_[a-z_]+)", alerts)) <= families


def test_nothing_is_told_that_needs_a_login(site):
    site.dataset("embargoed-night", 2)
    rule = site.rule("embargoed-night", comment="for the press")
    site.copy(broken)
    said = httpx2.get(f"{site.registry.url}/metrics").text
    for secret in ("embargoed", "root", "no such names", "press", rule, "example.org", "raw"):
        assert secret not in said
    assert "invalid_name" in said


def test_asking_again_costs_the_database_nothing(site):
    with counted_statements(site.database) as first:
        measured(site)
    assert first
    with counted_statements(site.database) as later:
        for accept in ("*/*", "application/openmetrics-text"):
            answered = httpx2.get(f"{site.registry.url}/metrics", headers={"Accept": accept})
            assert answered.status_code == 200
    assert later == []
    assert answered.headers["content-type"].startswith("application/openmetrics-text")
    assert list(open_metrics(answered.text))


def test_the_figures_are_as_many_whatever_activities_people_make_up(site, monkeypatch):
    monkeypatch.setattr(service, "MAX_ACTIVITIES", 3)
    site.dataset("night", 20)
    site.rule("night")
    with site.database.transaction() as tx:
        tx.execute(text("UPDATE requests SET activity = 'a' || id WHERE id > 8"))
    found = measured(site)["arriero_requests"]
    assert len(found) == 4
    assert found["User Subscriptions", "IN2P3", "QUEUED"] == 8
    assert found[service.OTHERS, "IN2P3", "QUEUED"] == 10


SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


def test_what_takes_too_long_is_left_out_and_said_to_be(site, database_kind, monkeypatch):
    def slow(connection):
        connection.execute(text(SLOW[database_kind]))
        yield service.Family("never", "Never.")

    monkeypatch.setattr(service, "STATEMENT_S", 0.2)
    monkeypatch.setattr(service, "PARTS", {"links": slow, "rules": service.PARTS["rules"]})
    found = measured(site)
    assert found["arriero_metrics_missing"] == {("links",): 1, ("rules",): 0}
    assert "arriero_evaluation_oldest_due_seconds" in found
    assert "never" not in found
    # the connection is as good as before
    site.dataset("night", 1)
    site.rule("night")
    assert site.copy().done == 1
