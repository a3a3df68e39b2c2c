"""`arriero rule add --dry-run`: what a rule would do, and adding exactly that one."""

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
    client = support_cli.add_two_sites(registry)
    new = {"scope": "raw", "name": "a", "bytes": 1000, "adler32": "0000002a"}
    client.add_replicas("SLAC", [new])


def test_a_plan_and_the_rule_that_it_is_of(cli):
    words = ("rule", "add", "raw:a", "--copies", "2", "--rses", "SLAC|IN2P3")
    planned = cli("-o", "json", *words, "--dry-run")
    rows = {row["rse"]: row for row in planned.json}
    assert (rows["SLAC"]["there_files"], rows["SLAC"]["chosen"]) == (1, True)
    assert "1000 of 1000 bytes are there" in rows["SLAC"]["reason"]
    assert rows["IN2P3"]["chosen"] is True
    assert "raw:a: 1 files, 1000 B; 0 B would be copied; the rule would be STUCK: " in planned.err
    assert cli("-o", "json", "rule", "list").json == []
    rule_id = rows["SLAC"]["rule_id"]
    assert cli(*words, "--id", rule_id).out.strip() == rule_id
    said = cli(*words, "--dry-run", expect=4)
    assert "already" in said.err
    cli("rule", "add", "raw:a", "--copies", "1", "--rses", "SLAC", "--id", rule_id, expect=4)
