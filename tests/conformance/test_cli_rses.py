"""`rucio rse` and `rucio config`, as an operator types them."""

from __future__ import annotations

import json
import re

import pytest

from support.official_data import rse

__all__ = ["rse"]


@pytest.mark.rucio_command(
    "rse add", "rse update", "rse show", "rse attribute set", "rse attribute list", "rse attribute unset"
)
def test_an_rse_and_its_attributes(official):
    new = official.unique("NEW") + "_DISK"
    official.cli("rse", "add", new)
    official.cli("rse", "attribute", "set", new, "--key", "site", "--value", "LANCS")
    official.cli("rse", "attribute", "set", new, "--key", "tier", "--value", "2")
    assert "site: LANCS" in official.cli("rse", "attribute", "list", new)
    official.cli("rse", "attribute", "unset", new, "--attribute", "tier")
    official.cli("rse", "update", new, "--key", "availability_write", "--value", "False")
    official.cli("rse", "update", new, "--key", "city", "--value", "Lancaster")
    shown = official.cli("rse", "show", new)
    for line in ("availability_write: False", "city: Lancaster", "site: LANCS", "rucio"):
        assert line in shown
    assert "tier" not in shown


@pytest.mark.rucio_command("rse list", "rse remove")
def test_lists(official, rse):
    gone = official.unique("GONE")
    official.cli("rse", "add", gone, "--non-deterministic")
    assert {rse, gone} <= set(official.cli("rse", "list").split())
    assert official.cli("rse", "list", "--rse-exp", rse).split() == [rse]
    official.cli("rse", "remove", gone)
    listed = official.cli("rse", "list", "--csv").split()
    assert rse in listed
    assert gone not in listed
    assert "neither an RSE nor an attribute" in official.cli("rse", "list", "--rse-exp", gone, expect=1)


@pytest.mark.rucio_command("rse protocol add", "rse protocol remove")
def test_protocols(official, client, rse):
    add = [
        "rse",
        "protocol",
        "add",
        rse,
        "--hostname",
        "h.example.org",
        "--scheme",
        "https",
        "--prefix",
        "/p",
    ]
    domains = json.dumps({"wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1}})
    official.cli(*add, "--port", "443", "--domain-json", domains)
    [added] = [one for one in client.get_protocols(rse) if one["scheme"] == "https"]
    assert (added["hostname"], added["port"], added["domains"]["wan"]["write"]) == ("h.example.org", 443, 1)
    assert "already" in official.cli(*add, "--port", "443", expect=1)
    official.cli(
        "rse", "protocol", "remove", rse, "--scheme", "https", "--hostname", "h.example.org", "--port", "443"
    )
    assert [one["scheme"] for one in client.get_protocols(rse)] == ["davs"]


@pytest.mark.rucio_command("rse distance set", "rse distance show", "rse distance unset")
def test_distances(official, client, rse):
    other = official.unique("SITE") + "_DISK"
    client.add_rse(other)
    official.cli("rse", "distance", "set", rse, other, "--distance", "2", "--bidirectional")
    official.cli("rse", "distance", "set", rse, other, "--distance", "3")
    assert "distance=3" in official.cli("rse", "distance", "show", rse, other)
    official.cli("rse", "distance", "unset", rse, other)
    assert "No distance" in official.cli("rse", "distance", "show", rse, other)
    assert client.get_distance(other, rse)[0]["distance"] == 2


@pytest.mark.rucio_command(
    "rse limit set", "rse limit unset", "rse qos add", "rse qos list", "rse qos remove"
)
def test_limits_and_classes_of_service(official, client, rse):
    official.cli("rse", "limit", "set", rse, "--limit", "MinFreeSpace", "10")
    assert client.get_rse_limits(rse) == {"MinFreeSpace": 10}
    official.cli("rse", "limit", "unset", rse, "--limit", "MinFreeSpace")
    assert client.get_rse_limits(rse) == {}
    official.cli("rse", "qos", "add", rse, "--policy", "GOLD")
    assert official.cli("rse", "qos", "list", rse).split() == ["GOLD"]
    official.cli("rse", "qos", "remove", rse, "--policy", "GOLD")
    assert official.cli("rse", "qos", "list", rse).split() == []


@pytest.mark.rucio_command("config list")
def test_settings(official):
    assert "[policy]" in official.cli("config", "list")
    assert re.search(r"max_bulk_items=\d+", official.cli("config", "list", "--section", "limits"))
    said = official.cli("config", "set", "-s", "limits", "--key", "max_bulk_items", "--value", "1", expect=1)
    assert "files and environment" in said
