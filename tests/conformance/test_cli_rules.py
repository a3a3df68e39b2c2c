"""The official command line about rules, verb by verb."""

from __future__ import annotations

import re

import pytest

from support.official_data import DAVS, files, keys, rse, scope
from support.official_rules import copy, evaluate, sweep

__all__ = ["rse", "scope"]

ID = re.compile(r"\b[0-9a-f]{32}\b")


@pytest.fixture
def names(official, client, scope, rse) -> dict[str, str]:
    """A dataset of two files at one RSE, and another RSE."""
    there = official.unique("SITE") + "_DISK"
    client.add_rse(there)
    client.add_protocol(there, dict(DAVS))
    client.add_replicas(rse, files(scope, "a", "b"))
    client.add_dataset(scope, "d")
    client.attach_dids(scope, "d", keys(scope, "a", "b"))
    return {"did": f"{scope}:d", "file": f"{scope}:a", "here": rse, "there": there}


@pytest.mark.rucio_command("rule add", "rule show", "rule list", "rule history", "rule remove")
def test_add_show_list_history_and_remove(official, client, names):
    both = f"{names['here']}|{names['there']}"
    options = ("--copies", "1", "--rses", both, "--lifetime", "3600", "--activity", "Express")
    more = ("--comment", "why", "--grouping", "ALL", "--notify", "Y", "--source-rses", names["here"])
    [rule] = ID.findall(official.cli("rule", "add", names["did"], *options, *more, "--delay-injection", "5"))
    said = official.cli("rule", "add", names["did"], *options, expect=1)
    assert "already" in said
    assert "Duplicate rule" in official.cli("rule", "add", names["did"], *options, "--skip-duplicates")
    evaluate(official)
    shown = official.cli("rule", "show", rule)
    for key, value in {
        "State": "OK",
        "Locks OK/REPLICATING/STUCK": "2/0/0",
        "Grouping": "ALL",
        "Activity": "Express",
        "Comment": "why",
        "Notification": "YES",
        "Source replica expression": names["here"],
    }.items():
        assert re.search(rf"{key}:\s+{value}", shown), (key, shown)
    for query in (
        ("--did", names["did"]),
        ("--file", names["file"]),
        ("--did", names["did"], "--traverse"),
    ):
        assert rule in official.cli("rule", "list", *query), query
    assert f"{rule},root,{names['did']},OK[2/0/0]" in official.cli(
        "rule", "list", "--csv", "--account", "root"
    )
    official.cli("rule", "remove", names["did"], "--rses", both, "--purge-replicas")
    client.update_replication_rule(rule, {"lifetime": -1})
    sweep(official)
    history = official.cli("rule", "history", names["did"])
    assert history.index("Rule insertion") < history.index("Rule deletion")


@pytest.mark.rucio_command("rule move", "rule update")
def test_move_and_update(official, client, names):
    [rule] = client.add_replication_rule(keys(*names["did"].split(":")), 1, names["here"])
    evaluate(official)
    [child] = ID.findall(
        official.cli("rule", "move", rule, "--rses", names["there"], "--source-rses", names["here"])
    )
    assert client.get_replication_rule(child)["source_replica_expression"] == names["here"]
    said = official.cli("rule", "move", rule, "--rses", names["there"], expect=1)
    assert "replaces it already" in said
    evaluate(official)
    official.cli("rule", "update", child, "--priority", "5", "--locked", "True", "--lifetime", "None")
    official.cli("rule", "update", child, "--stuck", "--cancel-requests")
    assert "STUCK" in official.cli("rule", "show", child, "--examine")
    official.cli("rule", "update", child, "--boost-rule", "--comment", "go")
    evaluate(official)
    official.cli("rule", "update", child, "--source-rses", "none", "--activity", "Express")
    copy(official)
    found = client.get_replication_rule(child)
    kept = ("state", "locked", "priority", "comments", "activity", "source_replica_expression")
    assert [found[key] for key in kept] == ["OK", True, 5, "go", "Express", None]
    official.cli("rule", "update", rule, "--child-rule-id", "None")
    assert client.get_replication_rule(rule)["child_rule_id"] is None
    official.cli("rule", "update", rule, "--child-rule-id", child)
    official.cli("rule", "update", rule, "--suspend")
    assert "SUSPENDED" in official.cli("rule", "show", rule)
