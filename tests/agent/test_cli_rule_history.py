"""`arriero rule history`: who changed a rule, when and why, and which rules there were on a DID."""

from __future__ import annotations

import pytest

from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment


@pytest.fixture(autouse=True)
def catalogue(environment, registry):
    client = registry.client()
    client.add_scope("root", "raw")
    client.add_rse("SLAC")
    client.add_replicas("SLAC", [{"scope": "raw", "name": "a", "bytes": 1000, "adler32": "0000002a"}])


def test_the_history_of_a_rule_and_of_a_did(cli):
    words = ("rule", "add", "raw:a", "--copies", "1", "--rses", "SLAC", "--notify", "P")
    [rule_id] = cli(*words).lines
    cli("rule", "update", rule_id, "--comment", "for the visitors")
    cli("rule", "remove", rule_id[:8], "--now")
    # it is gone: its whole id still tells
    changes = cli("-o", "json", "rule", "history", rule_id).json
    assert [(row["account"], row["to_state"], row["code"]) for row in changes] == [
        ("root", "INJECT", "added"),
        ("root", "INJECT", "update"),
        ("root", None, "removed"),
    ]
    assert "for the visitors" in changes[1]["reason"]
    assert "for the visitors" in cli("-o", "table", "rule", "history", rule_id).out.replace("\n", " ")
    lives = cli("-o", "json", "rule", "history", "raw:a").json
    assert [(row["rule_id"], row["changed_by"], row["reason"]) for row in lives] == [
        (rule_id, "root", "added"),
        (rule_id, "root", "removed"),
    ]
    cli("rule", "history", "0" * 32, expect=3)
    cli("rule", "history", "raw:none", expect=3)
