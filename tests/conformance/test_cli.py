"""The official command line, as the technotes write it, against the registry."""

from __future__ import annotations

import re

import pytest

ID = re.compile(r"\b[0-9a-f]{32}\b")


@pytest.fixture
def names(official, client) -> dict[str, str]:
    """A scope, two RSEs and a dataset with two files, as a technote starts from."""
    scope = official.unique("scope")
    client.add_scope("root", scope)
    rses = [official.unique("SITE") + "_DISK" for _ in range(2)]
    for rse in rses:
        client.add_rse(rse)
        client.add_rse_attribute(rse, "lfn2pfn_algorithm", "identity")
        client.add_protocol(
            rse,
            {
                "scheme": "davs",
                "hostname": "dav.example.org",
                "port": 1094,
                "prefix": "/data",
                "domains": {"wan": {"read": 1, "write": 1}},
            },
        )
    dataset = "Dataset/LSSTComCam/dark/DM-48520"
    files = [{"scope": scope, "name": f"dark/{i}.fits", "bytes": 2880, "adler32": "2a"} for i in range(2)]
    client.add_dataset(scope, dataset)
    client.add_replicas(rses[0], files)
    client.attach_dids(scope, dataset, files)
    return {
        "scope": scope,
        "dataset": f"{scope}:{dataset}",
        "file": f"{scope}:dark/0.fits",
        "slac": rses[0],
        "in2p3": rses[1],
    }


TECHNOTE = r"""
rucio did update --close ancillary:$DATASET
rucio rule add --rse-exp 'SLAC_BUTLER_DISK|IN2P3_RAW_DISK' \
    --copies 2 ancillary:$DATASET
rucio rule add --rse-exp 'IN2P3_RAW_DISK' \
    --copies 1 ancillary:$DATASET
rucio rule add --rse-exp 'IN2P3_RAW_DISK' \
    --copies 1 raw:Dataset/refcats/the_monster_20240219_1
"""
"""The commands of the DP1 technote, letter by letter; its other three differ in the name of the dataset."""


@pytest.mark.rucio_command("did update", "rule add")
def test_the_commands_of_the_technote(official, client):
    dataset = "Dataset/LSSTComCam/dark/DM-48520"
    refcat = "Dataset/refcats/the_monster_20240219_1"
    for rse in ("SLAC_BUTLER_DISK", "IN2P3_RAW_DISK"):
        client.add_rse(rse)
    for scope, name in (("ancillary", dataset), ("raw", refcat)):
        client.add_scope("root", scope)
        files = [
            {"scope": scope, "name": f"{name}/{i}.fits", "bytes": 2880, "adler32": "2a"} for i in range(2)
        ]
        client.add_replicas("SLAC_BUTLER_DISK", files)
        client.add_dataset(scope, name)
        client.attach_dids(scope, name, files)
    said = official.shell(TECHNOTE, DATASET=dataset)
    assert f"ancillary:{dataset} has been closed." in said
    first, second, third = (client.get_replication_rule(rule) for rule in ID.findall(said))
    assert (first["rse_expression"], first["copies"]) == ("SLAC_BUTLER_DISK|IN2P3_RAW_DISK", 2)
    assert (second["rse_expression"], second["copies"]) == ("IN2P3_RAW_DISK", 1)
    assert (third["scope"], third["name"]) == ("raw", refcat)


@pytest.mark.rucio_command("rule show", "rule list", "rule update", "rule remove")
def test_a_rule_and_what_becomes_of_it(official, client, names):
    both = f"{names['slac']}|{names['in2p3']}"
    scope, _, name = names["dataset"].partition(":")
    [two] = client.add_replication_rule([{"scope": scope, "name": name}], 2, both)
    shown = official.cli("rule", "show", two)
    assert re.search(rf"RSE Expression:\s+{re.escape(both)}", shown)
    assert re.search(r"State:\s+INJECT", shown)
    listed = official.cli("rule", "list", "--did", names["dataset"])
    assert two in listed
    assert "INJECT[0/0/0]" in listed
    official.cli("rule", "update", two, "--comment", "for the campaign", "--priority", "5")
    assert client.get_replication_rule(two)["comments"] == "for the campaign"
    official.cli("rule", "remove", two)
    assert client.get_replication_rule(two)["expires_at"] is not None


@pytest.mark.rucio_command("ping", "whoami", "scope list")
def test_who_and_where(official, names):
    assert re.search(r"\d+\.\d+", official.cli("ping"))
    assert re.search(r"account\s*: root", official.cli("whoami"))
    assert names["scope"] in official.cli("scope", "list")


@pytest.mark.rucio_command(
    "did add",
    "did content add",
    "did content list",
    "did content remove",
    "did show",
    "did list",
    "did metadata set",
    "did metadata list",
)
def test_collections(official, names):
    new = f"{names['scope']}:night 1/plus+slash"
    official.cli("did", "add", "--type", "dataset", new)
    official.cli("did", "content", "add", "--to-did", new, names["file"])
    assert names["file"] in official.cli("did", "content", "list", new)
    shown = official.cli("did", "show", new)
    assert re.search(r"length:\s+1", shown)
    assert re.search(r"bytes:\s+2880", shown)
    assert new in official.cli("did", "list", f"{names['scope']}:night*")
    assert new in official.cli("did", "list", "--parent", names["file"])
    official.cli("did", "content", "remove", "--from-did", new, names["file"])
    assert names["file"] not in official.cli("did", "content", "list", new)
    official.cli("did", "metadata", "set", new, "--key", "night", "--value", "20241108")
    assert "20241108" in official.cli("did", "metadata", "list", new, "--plugin", "JSON")


@pytest.mark.rucio_command("replica list file", "replica list dataset")
def test_where_files_are(official, names):
    listed = official.cli("replica", "list", "file", names["dataset"])
    assert f"{names['slac']}: davs://dav.example.org:1094/data/{names['scope']}/dark/0.fits" in listed
    pfns = official.cli("replica", "list", "file", "--pfns", names["file"])
    assert f"davs://dav.example.org:1094/data/{names['scope']}/dark/0.fits" in pfns
    assert re.search(
        rf"{names['slac']}\s*\|\s*2\s*\|\s*2", official.cli("replica", "list", "dataset", names["dataset"])
    )


@pytest.mark.rucio_command("account add", "account list", "scope add")
def test_administration(official):
    account = official.unique("person")
    official.cli("account", "add", account, "USER", "--email", "p@example.org")
    assert account in official.cli("account", "list")
    scope = official.unique("scope")
    official.cli("scope", "add", scope, "--account", account)
    assert scope in official.cli("scope", "list")


def test_errors_say_what_to_do(official, names):
    said = official.cli("rule", "add", "--rse-exp", "NOWHERE", "--copies", "1", names["dataset"], expect=1)
    assert "neither an RSE nor an attribute" in said
    said = official.cli("did", "show", f"{names['scope']}:missing", expect=1)
    assert "missing" in said
