"""The commands against a real registry: what an operator types, in the order in which it is typed."""

from __future__ import annotations

import csv
import io
import json
import zlib

import pytest

from arriero.registry.models import ArrivalOutcome
from arriero.rse.file import FileProtocol
from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment

DATASET = "raw:Dataset/LSSTComCam/raw/20241108"


@pytest.fixture
def storage(tmp_path):
    """A folder with a night of two exposures, as an RSE with the algorithm `identity` has it."""
    root = tmp_path / "slac"
    for exposure in (1, 2):
        folder = root / "raw" / "LSSTComCam" / "20241108" / f"CC_O_20241108_{exposure:06}"
        folder.mkdir(parents=True)
        for detector in range(3):
            (folder / f"R22_S0{detector}.fits").write_bytes(b"raw %d %d" % (exposure, detector))
        (folder / "_index.json").write_text("{}")
    return root


@pytest.fixture
def site(cli, storage):
    """SLAC_RAW_DISK is that folder."""
    cli("scope", "add", "raw")
    cli("rse", "add", "SLAC_RAW_DISK")
    cli("rse", "attribute", "set", "SLAC_RAW_DISK", "--key", "lfn2pfn_algorithm", "--value", "identity")
    cli("rse", "protocol", "add", "SLAC_RAW_DISK", "--scheme", "file", "--prefix", str(storage))


def test_rses(cli):
    told = cli("rse", "add", "SLAC_RAW_DISK")
    assert (told.out, told.err) == ("", "Added RSE SLAC_RAW_DISK.\n")
    added = cli("-o", "json", "rse", "add", "IN2P3_RAW_DISK", "--non-deterministic").json
    assert (added["rse"], added["deterministic"]) == ("IN2P3_RAW_DISK", False)
    cli("rse", "attribute", "add", "SLAC_RAW_DISK", "--key", "site", "--value", "SLAC")
    cli("rse", "attribute", "set", "SLAC_RAW_DISK", "--key", "fast", "--value", "True")
    rows = cli("-o", "json", "rse", "attribute", "list", "SLAC_RAW_DISK").json
    attributes = {row["key"]: row["value"] for row in rows}
    assert attributes["site"] == "SLAC"
    cli("rse", "attribute", "remove", "SLAC_RAW_DISK", "--key", "site")
    cli(
        *("rse", "protocol", "add", "SLAC_RAW_DISK", "--scheme", "davs", "--host-name", "dav.example.org"),
        *("--port", "1094", "--prefix", "/raw"),
    )
    cli("rse", "distance", "set", "SLAC_RAW_DISK", "IN2P3_RAW_DISK", "--distance", "3", "--bidirectional")
    cli("rse", "distance", "add", "SLAC_RAW_DISK", "IN2P3_RAW_DISK", "--distance", "2")
    there = cli("-o", "json", "rse", "distance", "show", "SLAC_RAW_DISK", "IN2P3_RAW_DISK").json
    back = cli("-o", "json", "rse", "distance", "show", "IN2P3_RAW_DISK", "SLAC_RAW_DISK").json
    assert (there[0]["distance"], back[0]["distance"]) == (2, 3)
    shown = cli("-o", "json", "rse", "show", "SLAC_RAW_DISK").json
    [protocol] = shown["protocols"]
    assert (protocol["scheme"], protocol["hostname"], protocol["port"]) == ("davs", "dav.example.org", 1094)
    assert protocol["domains"]["wan"]["third_party_copy_write"] == 1
    assert "site" not in shown["attributes"]
    listed = [row["rse"] for row in cli("-o", "json", "rse", "list").json]
    assert sorted(listed) == ["IN2P3_RAW_DISK", "SLAC_RAW_DISK"]
    assert [row["rse"] for row in cli("-o", "json", "rse", "list", "--rse-exp", "fast=True").json] == [
        "SLAC_RAW_DISK"
    ]
    rows = list(csv.DictReader(io.StringIO(cli("-o", "csv", "rse", "list").out)))
    assert {row["rse"] for row in rows} == {"SLAC_RAW_DISK", "IN2P3_RAW_DISK"}


def test_scopes_and_who_am_i(cli):
    cli("scope", "add", "raw")
    cli("scope", "add", "ancillary", "--account", "root")
    assert {row["scope"] for row in cli("-o", "json", "scope", "list").json} == {"raw", "ancillary"}
    assert len(cli("-o", "jsonl", "scope", "list", "-a", "root").lines) == 2
    assert cli("-o", "json", "whoami").json["account"] == "root"
    assert cli("-o", "json", "ping").json["version"]


def test_files_are_registered_where_they_lie(cli, site, registry):
    told = cli("replica", "add", "--rse", "SLAC_RAW_DISK", "--dataset", DATASET, "LSSTComCam/20241108")
    assert "Registered 8 files" in told.err
    shown = cli("-o", "json", "did", "show", DATASET).json
    assert (shown["length"], shown["type"], shown["open"]) == (8, "DATASET", True)
    rows = cli("-o", "json", "replica", "list", "file", DATASET).json
    by_name = {row["name"]: row for row in rows}
    first = by_name["LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits"]
    assert (first["rse"], first["state"], first["bytes"], first["adler32"]) == (
        "SLAC_RAW_DISK",
        "AVAILABLE",
        7,
        f"{zlib.adler32(b'raw 1 0'):08x}",
    )
    assert first["pfn"].startswith("file:///")
    assert len(cli("replica", "list", DATASET, "--pfns").lines) == 8
    assert "raw:missing" in cli("replica", "list", DATASET, "raw:missing", expect=3).err
    # again: what is there is neither read nor changed
    again = cli(
        "-o", "json", "replica", "add", "--rse", "SLAC_RAW_DISK", "--dataset", DATASET, "LSSTComCam/20241108"
    ).json
    assert (again["registered"], again["known"], again["failed"]) == (0, 8, 0)
    cli(
        "--error-on-nothing",
        "replica",
        "add",
        "--rse",
        "SLAC_RAW_DISK",
        "--dataset",
        DATASET,
        "LSSTComCam",
        expect=9,
    )


def test_only_what_is_new_is_added_to_a_dataset(cli, site, storage):
    add = ("-o", "json", "replica", "add", "--rse", "SLAC_RAW_DISK", "--dataset", DATASET)
    assert cli(*add, "LSSTComCam/**/*S00.fits").json["registered"] == 2
    assert cli(*add, "LSSTComCam/20241108/*/R22_S0?.fits").json["registered"] == 4
    folder = storage / "raw" / "LSSTComCam" / "20241108" / "CC_O_20241108_000002"
    (folder / "new.fits.7-1.part").write_bytes(b"half")
    (folder / ".arriero-0123456789abcdef%41").write_bytes(b"")
    (folder / "a b+%.fits").write_bytes(b"odd name")
    added = cli(*add, "LSSTComCam").json
    assert (added["registered"], added["known"], added["attached"]) == (3, 6, 3)
    names = [row["name"] for row in cli("-o", "json", "did", "content", "list", DATASET).json]
    assert "LSSTComCam/20241108/CC_O_20241108_000002/a b+%.fits" in names
    assert not any(name.endswith(".part") or ".arriero-" in name for name in names)


def test_a_file_that_is_still_being_written_is_not_registered(cli, site, storage, monkeypatch):
    """Its size is of the listing, its checksum of later: together they would fit no copy ever."""
    read = FileProtocol.read

    def growing(self, path):
        if path.endswith("000001/R22_S00.fits"):
            with (storage / path).open("ab") as file:
                file.write(b"more")
        return read(self, path)

    monkeypatch.setattr(FileProtocol, "read", growing)
    told = cli("replica", "add", "--rse", "SLAC_RAW_DISK", "--dataset", DATASET, "LSSTComCam", expect=8)
    assert "000001/R22_S00.fits" in told.err
    assert "while it was read" in told.err
    listed = cli("-o", "json", "did", "list", "raw", "--type", "file").json
    assert len(listed) == 7


def test_a_dry_run_registers_nothing(cli, site, tmp_path):
    listing = tmp_path / "names"
    listing.write_text("# of the first exposure\nLSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits\n\n")
    words = (
        "-o",
        "json",
        "replica",
        "add",
        "--rse",
        "SLAC_RAW_DISK",
        "--scope",
        "raw",
        "--from-file",
        str(listing),
    )
    [row] = cli(*words, "-n").json
    assert row["path"] == "raw/LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits"
    assert cli("-o", "json", "did", "list", "raw", "--type", "all").json == []
    assert cli(*words).json["registered"] == 1
    listed = cli("did", "list", "raw:*S00.fits", "--type", "file", "--short").lines
    assert listed == ["raw:LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits"]


def test_what_cannot_be_found_or_escapes_is_refused(cli, site, storage, tmp_path):
    (tmp_path / "secret").write_text("not below the prefix")
    add = ("replica", "add", "--rse", "SLAC_RAW_DISK", "--scope", "raw")
    assert "matches" in cli(*add, "LSSTComCam/*.none", expect=3).err
    cli(*add, "LSSTComCam/none.fits", expect=3)
    cli(*add, "../../secret", expect=2)
    cli(*add, "/", "-n")
    cli("replica", "add", "--rse", "SLAC_RAW_DISK", "x", expect=2)
    cli(*add, expect=2)
    cli("replica", "add", "--rse", "NOWHERE", "--scope", "raw", "x", expect=3)


def test_folders_are_refused_where_paths_do_not_follow_names(cli, tmp_path):
    cli("scope", "add", "raw")
    cli("rse", "add", "HASHED")
    cli("rse", "protocol", "add", "HASHED", "--scheme", "file", "--prefix", str(tmp_path))
    told = cli("replica", "add", "--rse", "HASHED", "--scope", "raw", "LSSTComCam/*", expect=7)
    assert "--from-file" in told.err


def test_paths_become_names_at_an_rse_that_is_not_deterministic(cli, storage):
    cli("scope", "add", "raw")
    cli("rse", "add", "TAPELIKE", "--non-deterministic")
    cli("rse", "protocol", "add", "TAPELIKE", "--scheme", "file", "--prefix", str(storage))
    words = (
        "replica",
        "add",
        "--rse",
        "TAPELIKE",
        "--scope",
        "raw",
        "raw/LSSTComCam/20241108/CC_O_20241108_000001",
    )
    assert cli("-o", "json", *words).json["registered"] == 4
    [pfn] = cli(
        "replica", "list", "raw:raw/LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits", "--pfns"
    ).lines
    assert pfn.endswith("/raw/LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits")


def test_datasets_containers_and_what_they_hold(cli, site):
    cli("replica", "add", "--rse", "SLAC_RAW_DISK", "--scope", "raw", "LSSTComCam")
    file = "raw:LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits"
    other = "raw:LSSTComCam/20241108/CC_O_20241108_000001/R22_S01.fits"
    cli("did", "add", DATASET, "--type", "dataset")
    cli("did", "add", "raw:all", "--type", "container")
    cli("did", "add", DATASET, expect=4)
    cli("did", "content", "add", "-to", DATASET, file, other)
    cli("did", "content", "add", "--to-did", DATASET, file)
    cli("did", "content", "add", "-to", "raw:all", DATASET)
    assert sorted(cli("did", "content", "list", DATASET, "--short").lines) == sorted([file, other])
    cli("did", "content", "remove", "-f", DATASET, other)
    assert cli("did", "content", "list", DATASET, "--short").lines == [file]
    assert [row["name"] for row in cli("-o", "json", "did", "content", "list", "raw:all").json] == [
        DATASET[4:]
    ]
    shown = cli("-o", "json", "did", "show", "raw:all", DATASET).json
    assert [row["length"] for row in shown] == [1, 1]
    cli("did", "update", "--close", "--dry-run", DATASET)
    assert cli("-o", "json", "did", "show", DATASET).json["open"] is True
    assert "closed" in cli("did", "update", "--close", DATASET).err
    assert cli("-o", "json", "did", "show", DATASET).json["open"] is False
    cli("did", "content", "add", "-to", DATASET, other, expect=4)
    cli("did", "update", "--open", DATASET)
    names = {row["name"] for row in cli("-o", "json", "did", "list", "raw").json}
    assert names == {DATASET[4:], "all"}
    cli("did", "show", "raw:none", expect=3)


def test_rules(cli, site):
    cli("rse", "add", "IN2P3_RAW_DISK")
    cli("replica", "add", "--rse", "SLAC_RAW_DISK", "--dataset", DATASET, "LSSTComCam")
    words = ("rule", "add", DATASET, "--copies", "1", "--rses", "IN2P3_RAW_DISK", "--comment", "please")
    [rule_id] = cli(*words, "--lifetime", "86400").lines
    assert len(rule_id) == 32
    cli(*words, expect=4)
    assert cli(*words, "--skip-duplicates").lines == []
    shown = cli("-o", "json", "rule", "show", rule_id[:8]).json
    assert (shown["id"], shown["rse_expression"], shown["comments"]) == (rule_id, "IN2P3_RAW_DISK", "please")
    assert shown["expires_at"].endswith("Z")
    assert [row["id"] for row in cli("-o", "json", "rule", "list").json] == [rule_id]
    assert [row["id"] for row in cli("-o", "json", "rule", "list", "--did", DATASET).json] == [rule_id]
    assert cli("-o", "json", "rule", "list", "--did", "raw:other").json == []
    assert cli("-o", "json", "rule", "list", "--rses", "ELSEWHERE").json == []
    assert cli("-o", "json", "rule", "list", "--state", shown["state"].lower()).json != []
    file = "raw:LSSTComCam/20241108/CC_O_20241108_000001/R22_S00.fits"
    cli("-o", "json", "rule", "list", "--file", file)
    assert cli("-o", "json", "rule", "show", "--locks", rule_id).json == [], (
        "not evaluated: nobody works here"
    )
    cli("rule", "add", DATASET, "--copies", "1", "--rses", "NOWHERE", expect=2)
    cli("rule", "add", "raw:none", "--copies", "1", "--rses", "IN2P3_RAW_DISK", expect=3)
    cli("rule", "show", "0" * 32, expect=3)
    cli("rule", "show", "xyz", expect=2)
    assert cli("-o", "json", "rule", "remove", rule_id, "--dry-run").json["id"] == rule_id
    assert "ends in an hour" in cli("rule", "remove", rule_id[:10]).err
    cli("rule", "remove", DATASET, expect=2)
    cli("rule", "remove", DATASET, "--rses", "ELSEWHERE", expect=3)
    assert "is removed" in cli("rule", "remove", DATASET, "--rses", "IN2P3_RAW_DISK", "--now").err
    cli("rule", "show", rule_id, expect=3)


def test_butlers_arrivals_tokens_and_the_trace(cli, site, registry):
    cli("replica", "add", "--rse", "SLAC_RAW_DISK", "--dataset", DATASET, "LSSTComCam")
    words = (
        *("butler", "add", "slac", "--uri", "/repo", "--rse", "SLAC_RAW_DISK=file:///sps/raw"),
        *("--select", "raw:LSSTComCam/*.fits", "--instrument", "LSSTComCam"),
    )
    assert cli("-o", "json", *words, "-n").json["selections"] == [
        {"scope": "raw", "pattern": "LSSTComCam/*.fits"}
    ]
    assert cli("-o", "json", "butler", "list").json == []
    cli(*words)
    assert cli("-o", "json", "butler", "show", "slac").json["rses"] == [
        {"rse": "SLAC_RAW_DISK", "uri_prefix": "file:///sps/raw"}
    ]
    assert [row["name"] for row in cli("-o", "json", "butler", "list").json] == ["slac"]
    issued = cli("token", "create", "--label", "agent", "--butler", "slac", "--lifetime", "12h")
    token = issued.out.strip()
    assert "holds until" in issued.err
    agent = registry.client(token=token)
    files = agent.claim_arrivals("slac", "worker", 2, 0, 60)
    assert files[0].uri.startswith("file:///sps/raw/raw/LSSTComCam/")
    done, failed = files
    agent.report_arrivals(
        [
            ArrivalOutcome(id=done.id, fence=done.fence, state="ingested"),
            ArrivalOutcome(
                id=failed.id, fence=failed.fence, state="failed", code="malformed", reason="no END"
            ),
        ]
    )
    [row] = cli("-o", "json", "arrival", "list", "--state", "failed", "--butler", "slac").json
    assert (row["name"], row["reason"]) == (failed.name, "no END")
    narrowed = ["--rse", "SLAC_RAW_DISK", "--code", "malformed"]
    assert [row["id"] for row in cli("-o", "json", "arrival", "list", *narrowed).json] == [failed.id]
    cli("arrival", "list", "--rse", "NOWHERE", expect=3)
    assert len(cli("-o", "jsonl", "arrival", "list").lines) == 6
    cli("arrival", "list", "--butler", "nobody", expect=3)
    table = cli("-o", "table", "trace", f"raw:{failed.name}")
    assert "no END" in table.out
    assert "registered" in table.out
    steps = cli("-o", "json", "trace", f"raw:{failed.name}").json["steps"]
    assert steps[0]["step"] == "registered"
    assert cli("-o", "csv", "trace", f"raw:{failed.name}").lines[0].startswith("at,age_s,step")
    cli("trace", "raw:none", expect=3)
    [listed] = cli("-o", "json", "token", "list").json
    assert (listed["label"], listed["butlers"]) == ("agent", ["slac"])
    assert token not in json.dumps(listed)
    cli("token", "revoke", str(listed["id"]))
    assert cli("-o", "json", "token", "list").json[0]["revoked_at"].endswith("Z")
    cli("token", "create", "--label", "x", "--lifetime", "soon", expect=2)
    made = cli("-o", "json", "token", "create", "--label", "x").json
    assert {"id", "token", "expires_at", "label"} <= set(made)
