"""`arriero rse`: settings, protocols, space, and the configuration of all of them, against a real registry."""

from __future__ import annotations

import json

from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment

RSE = "SLAC_RAW_DISK"


def test_settings_and_removal(cli):
    cli("rse", "add", RSE)
    cli("rse", "update", RSE, "--key", "availability_write", "--value", "False")
    cli("rse", "update", RSE, "--key", "city", "--value", "Menlo Park")
    cli("rse", "update", RSE, "--key", "volatile", "--value", "true", "--dry-run")
    shown = cli("-o", "json", "rse", "show", RSE).json
    assert (shown["availability_write"], shown["city"], shown["volatile"]) == (False, "Menlo Park", False)
    assert "no setting" in cli("rse", "update", RSE, "--key", "colour", "--value", "red", expect=2).err
    cli("rse", "remove", RSE, "--dry-run")
    assert cli("rse", "remove", RSE).err == f"Removed RSE {RSE}.\n"
    assert cli("-o", "json", "rse", "list").json == []
    assert "there is no RSE" in cli("rse", "show", RSE, expect=3).err


def test_protocols_and_distances(cli):
    for name in (RSE, "IN2P3_RAW_DISK"):
        cli("rse", "add", name)
    for port in ("1094", "1095"):
        add = (
            "rse",
            "protocol",
            "add",
            RSE,
            "--scheme",
            "davs",
            "--hostname",
            "h.example.org",
            "--prefix",
            "/p",
        )
        cli(*add, "--port", port)
    one = ("--scheme", "davs", "--hostname", "h.example.org", "--port", "1095")
    cli("rse", "protocol", "update", RSE, *one, "--prefix", "/q", "--domain-json", '{"wan": {"read": 2}}')
    cli("rse", "protocol", "update", RSE, *one, expect=2)
    protocols = cli("-o", "json", "rse", "show", RSE).json["protocols"]
    assert [(one["prefix"], one["domains"]["wan"]["read"]) for one in protocols] == [("/p", 1), ("/q", 2)]
    cli("rse", "protocol", "remove", RSE, *one)
    assert len(cli("-o", "json", "rse", "show", RSE).json["protocols"]) == 1
    cli("rse", "distance", "set", RSE, "IN2P3_RAW_DISK", "--bidirectional")
    cli("rse", "distance", "unset", RSE, "IN2P3_RAW_DISK", "--bidirectional")
    assert cli("-o", "json", "rse", "distance", "show", "IN2P3_RAW_DISK", RSE).json == []


def test_space(cli):
    cli("rse", "add", RSE)
    cli("rse", "usage", "set", RSE, "--source", "storage", "--used", "10", "--free", "90")
    rows = cli("-o", "json", "rse", "usage", "list", RSE).json
    assert [(row["source"], row["used"]) for row in rows] == [("rucio", 0), ("storage", 10)]
    assert len(cli("-o", "json", "rse", "usage", "list", RSE, "--history").json) == 1
    cli("rse", "limit", "set", RSE, "--limit", "MinFreeSpace", "5")
    assert cli("-o", "json", "rse", "limit", "list", RSE).json == [{"limit": "MinFreeSpace", "value": 5}]
    cli("rse", "limit", "unset", RSE, "--limit", "MinFreeSpace")
    assert cli("-o", "json", "rse", "limit", "list", RSE).json == []
    cli("rse", "qos", "add", RSE, "--policy", "GOLD")
    assert "GOLD" in cli("rse", "qos", "list", RSE).out
    cli("rse", "qos", "remove", RSE, "--policy", "GOLD")


def test_export_and_import(cli, tmp_path):
    cli("rse", "add", RSE)
    cli("rse", "attribute", "set", RSE, "--key", "site", "--value", "SLAC")
    kept = tmp_path / "rses.json"
    cli("rse", "export", "--to", str(kept))
    document = json.loads(kept.read_text())
    document["rses"]["NEW"] = {"attributes": {"site": "LANCS"}}
    kept.write_text(json.dumps(document))
    assert cli("-o", "json", "rse", "import", str(kept), "--dry-run").json == {"new": ["NEW"], "known": [RSE]}
    assert cli("rse", "import", str(kept)).err == "Imported 2 RSEs (1 new) and 0 distances.\n"
    assert cli("-o", "json", "rse", "list", "--rse-exp", "site=LANCS").json[0]["rse"] == "NEW"
    kept.write_text("[")
    cli("rse", "import", str(kept), expect=2)
