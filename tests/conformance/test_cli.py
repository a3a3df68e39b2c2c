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


def test_the_commands_of_the_technote(official, names):
    said = official.cli("did", "update", "--close", names["dataset"])
    assert f"{names['dataset']} has been closed." in said
    both = f"{names['slac']}|{names['in2p3']}"
    said = official.cli("rule", "add", "--rse-exp", both, "--copies", "2", names["dataset"])
    two = ID.search(said)
    assert two
    said = official.cli("rule", "add", "--rse-exp", names["in2p3"], "--copies", "1", names["dataset"])
    assert ID.search(said)
    shown = official.cli("rule", "show", two.group())
    assert re.search(rf"RSE Expression:\s+{re.escape(both)}", shown)
    assert re.search(r"State:\s+INJECT", shown)
    listed = official.cli("rule", "list", "--did", names["dataset"])
    assert two.group() in listed
    assert "INJECT[0/0/0]" in listed
    official.cli("rule", "update", two.group(), "--comment", "for the campaign", "--priority", "5")
    official.cli("rule", "remove", two.group())
    assert re.search(r"Expires at:\s+20\d\d-", official.cli("rule", "show", two.group()))


def test_who_and_where(official, names):
    assert re.search(r"\d+\.\d+", official.cli("ping"))
    assert re.search(r"account\s*: root", official.cli("whoami"))
    assert names["scope"] in official.cli("scope", "list")
    assert names["slac"] in official.cli("rse", "list")
    assert official.cli("rse", "list", "--rses", names["slac"]).split() == [names["slac"]]
    shown = official.cli("rse", "show", names["slac"])
    assert "lfn2pfn_algorithm: identity" in shown
    assert "hostname: dav.example.org" in shown


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


def test_where_files_are(official, names):
    listed = official.cli("replica", "list", "file", names["dataset"])
    assert f"{names['slac']}: davs://dav.example.org:1094/data/{names['scope']}/dark/0.fits" in listed
    pfns = official.cli("replica", "list", "file", "--pfns", names["file"])
    assert f"davs://dav.example.org:1094/data/{names['scope']}/dark/0.fits" in pfns
    assert re.search(
        rf"{names['slac']}\s*\|\s*2\s*\|\s*2", official.cli("replica", "list", "dataset", names["dataset"])
    )


def test_administration(official, names):
    rse = official.unique("NEW") + "_DISK"
    official.cli("rse", "add", rse)
    official.cli("rse", "attribute", "set", rse, "--key", "site", "--value", "LANCS")
    assert "site: LANCS" in official.cli("rse", "attribute", "list", rse)
    official.cli("rse", "update", rse, "--key", "availability_write", "--value", "False")
    official.cli("rse", "distance", "set", names["slac"], rse, "--distance", "2", "--bidirectional")
    assert "distance=2" in official.cli("rse", "distance", "show", rse, names["slac"])
    official.cli("rse", "limit", "set", rse, "--limit", "MinFreeSpace", "10")
    account = official.unique("person")
    official.cli("account", "add", account, "USER", "--email", "p@example.org")
    assert account in official.cli("account", "list")
    official.cli("scope", "add", official.unique("scope"), "--account", account)


def test_errors_say_what_to_do(official, names):
    said = official.cli("rule", "add", "--rse-exp", "NOWHERE", "--copies", "1", names["dataset"], expect=1)
    assert "neither an RSE nor an attribute" in said
    said = official.cli("did", "show", f"{names['scope']}:missing", expect=1)
    assert "missing" in said
