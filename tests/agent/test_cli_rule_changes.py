"""`arriero rule move|reduce|update|boost|suspend|resume|approve|deny`."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.tables import dids, locks, rses, rules
from arriero.registry.states import LockState, RuleState
from support import cli as support_cli
from support import server
from support.catalogue import EVERYTHING

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment


@pytest.fixture
def client(registry):
    client = registry.client()
    client.add_scope("root", "raw")
    for rse in ("SLAC", "IN2P3"):
        client.add_rse(rse)
        client.add_protocol(rse, {"scheme": "file", "prefix": f"/tmp/{rse}", "domains": EVERYTHING})
        client.add_replicas(rse, [{"scope": "raw", "name": "f", "bytes": 2**20, "adler32": "0000002a"}])
    client.add_rse("LANCS")
    return client


@pytest.fixture
def rule_id(client) -> str:
    [added] = client.add_replication_rule([{"scope": "raw", "name": "f"}], 2, "SLAC|IN2P3")
    return added


def row_of(registry, rule_id):
    with registry.database.snapshot() as connection:
        found = connection.execute(select(rules).order_by(rules.c.id)).mappings().all()
    return next(row for row in found if row["uuid"].hex == rule_id)


def test_suspend_and_resume(registry, cli, rule_id):
    planned = cli("-o", "json", "rule", "suspend", rule_id, "--dry-run").json
    assert planned == {"id": rule_id, "scope": "raw", "name": "f", "state": "SUSPENDED"}
    assert row_of(registry, rule_id)["state"] == "INJECT"
    said = cli("-o", "table", "rule", "suspend", rule_id[:6])
    assert said.err.strip() == f"Rule {rule_id} is suspended."
    assert row_of(registry, rule_id)["state"] == "SUSPENDED"
    cli("rule", "resume", rule_id, "-n")
    assert row_of(registry, rule_id)["state"] == "SUSPENDED"
    cli("rule", "resume", rule_id)
    assert row_of(registry, rule_id)["state"] == "INJECT"
    cli("rule", "resume", rule_id, expect=4)


def test_boost(registry, cli, rule_id):
    with registry.database.transaction() as tx:
        file_id = tx.scalar(select(dids.c.id).where(dids.c.name == "f"))
        lock = {"rule_id": row_of(registry, rule_id)["id"], "file_id": file_id, "rse_id": 1, "bytes": 1}
        tx.execute(insert(locks).values(**lock, state=LockState.STUCK, code="timed_out"))
    cli("rule", "boost", rule_id, "--dry-run")
    with registry.database.snapshot() as connection:
        assert connection.scalar(select(locks.c.code)) == "timed_out"
    cli("rule", "boost", rule_id)
    with registry.database.snapshot() as connection:
        assert connection.scalar(select(locks.c.code)) == "retry_now"


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_approve_and_deny(registry, cli, client, verb):
    [waiting] = client.add_replication_rule([{"scope": "raw", "name": "f"}], 1, "LANCS", ask_approval=True)
    reason = () if verb == "approve" else ("--reason", "no room")
    cli("rule", verb, waiting, *reason, "--dry-run")
    assert row_of(registry, waiting)["state"] == "WAITING_APPROVAL"
    cli("rule", verb, waiting, *reason)
    if verb == "approve":
        assert row_of(registry, waiting)["state"] == "INJECT"
    else:
        assert list(client.list_replication_rules()) == []
    cli("rule", verb, waiting, expect=4 if verb == "approve" else 3)


def test_update(registry, cli, rule_id):
    words = ("--priority", "5", "--comment", "for the paper", "--locked", "true", "--lifetime", "3600")
    planned = cli("-o", "json", "rule", "update", rule_id, *words, "--dry-run").json
    assert planned["priority"] == 5
    assert row_of(registry, rule_id)["priority"] == 3
    cli("rule", "update", rule_id, *words)
    row = row_of(registry, rule_id)
    assert (row["priority"], row["comments"], row["locked"]) == (5, "for the paper", True)
    assert row["expires_at"] is not None
    cli("rule", "update", rule_id, "--lifetime", "none", "--source-rses", "SLAC")
    row = row_of(registry, rule_id)
    assert (row["expires_at"], row["source_replica_expression"]) == (None, "SLAC")
    cli("rule", "update", rule_id, "--source-rses", "none", "--suspend")
    row = row_of(registry, rule_id)
    assert (row["source_replica_expression"], row["state"]) == (None, "SUSPENDED")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--stuck", "--suspend"),
        ("--cancel-requests",),
        ("--lifetime", "soon"),
        ("--priority", "9"),
    ],
)
def test_updates_that_cannot_be_meant(cli, rule_id, words):
    cli("rule", "update", rule_id, *words, expect=2)


def test_move(registry, cli, client, rule_id):
    planned = cli("-o", "json", "rule", "move", rule_id, "--rses", "SLAC|LANCS", "--dry-run")
    rows = {row["rse"]: row for row in planned.json}
    assert (rows["SLAC"]["there_files"], rows["LANCS"]["to_move_files"]) == (1, 1)
    assert "1.0 MiB would be copied" in planned.err
    assert [rule["id"] for rule in client.list_replication_rules()] == [rule_id]
    child = cli(
        "-o", "table", "rule", "move", rule_id, "--rses", "SLAC|LANCS", "--source-rses", "SLAC"
    ).out.strip()
    assert client.get_replication_rule(rule_id)["child_rule_id"] == child
    assert client.get_replication_rule(child)["source_replica_expression"] == "SLAC"
    cli("rule", "move", rule_id, "--rses", "LANCS", expect=4)


def test_a_child_that_is_linked_by_hand(cli, client, rule_id):
    [other] = client.add_replication_rule([{"scope": "raw", "name": "f"}], 1, "LANCS")
    cli("rule", "update", rule_id, "--child-rule-id", other[:12])
    assert client.get_replication_rule(rule_id)["child_rule_id"] == other
    cli("rule", "update", rule_id, "--child-rule-id", "none")
    assert client.get_replication_rule(rule_id)["child_rule_id"] is None


def test_reduce(registry, cli, client, rule_id):
    with registry.database.transaction() as tx:
        file_id = tx.scalar(select(dids.c.id).where(dids.c.name == "f"))
        for row in tx.execute(select(rses.c.id).where(rses.c.name != "LANCS")).all():
            lock = {"rule_id": 1, "file_id": file_id, "rse_id": row.id, "bytes": 2**20}
            tx.execute(insert(locks).values(**lock, state=LockState.OK))
        tx.execute(update(rules).values(state=RuleState.OK, locks_ok=2))
    words = ("rule", "reduce", rule_id, "--copies", "1", "--exclude-rses", "SLAC", "--dry-run")
    nothing = {f"{part}_{of}": 0 for part in ("kept", "let_go", "unheld") for of in ("files", "bytes")}
    assert cli("-o", "json", *words).json == [
        {"rse": "IN2P3", **nothing, "kept_files": 1, "kept_bytes": 2**20},
        {
            "rse": "SLAC",
            **nothing,
            "let_go_files": 1,
            "let_go_bytes": 2**20,
            "unheld_files": 1,
            "unheld_bytes": 2**20,
        },
    ]
    shown = cli("-o", "table", *words)
    assert [line.split() for line in shown.lines[1:]] == [
        ["IN2P3", "1", "1.0", "MiB", "0", "0", "B", "0", "0", "B"],
        ["SLAC", "0", "0", "B", "1", "1.0", "MiB", "1", "1.0", "MiB"],
    ]
    assert shown.err == (
        f"raw:f: a rule for 1 copies on (SLAC|IN2P3)\\(SLAC) would take the place of {rule_id}; it keeps 1 copies "
        "(1.0 MiB) and lets 1 go (1.0 MiB), of which no other rule holds 1 (1.0 MiB): those may be deleted when "
        "space is needed.\n"
    )
    assert client.get_replication_rule(rule_id)["copies"] == 2
    refused = cli("rule", "reduce", rule_id, "--copies", "2", "--dry-run", expect=4)
    assert "2 are not fewer" in refused.err
    new = cli("-o", "table", "rule", "reduce", rule_id, "--copies", "1", "--exclude-rses", "SLAC").out.strip()
    told = client.get_replication_rule(new)
    assert (told["copies"], told["rse_expression"], told["state"]) == (1, "(SLAC|IN2P3)\\(SLAC)", "OK")
