"""The official command line about replicas, verb by verb."""

from __future__ import annotations

import re

import pytest
from rucio.common.utils import parse_replicas_from_string

from support.official_data import DAVS, files, keys, scope

__all__ = ["scope"]


@pytest.fixture
def rse(official, client) -> str:
    name = official.unique("CLI") + "_DISK"
    client.add_rse(name)
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    client.add_protocol(name, {**DAVS, "hostname": f"{name.lower().replace('_', '-')}.example.org"})
    return name


@pytest.fixture
def dataset(client, scope, rse) -> str:
    client.add_replicas(rse, files(scope, "night 1/a.fits", "b.fits"))
    client.add_dataset(scope, "d")
    client.attach_dids(scope, "d", keys(scope, "night 1/a.fits", "b.fits"))
    return f"{scope}:d"


def pfn(rse: str, scope: str, path: str) -> str:
    return f"davs://{rse.lower().replace('_', '-')}.example.org:1094/data/{scope}/{path}"


@pytest.mark.rucio_command("replica list file")
def test_list_file(official, scope, rse, dataset):
    listed = official.cli("replica", "list", "file", "--all-states", "--protocols", "davs", dataset)
    assert f"(A) {rse}: {pfn(rse, scope, 'night%201/a.fits')}" in listed
    shown = official.cli("replica", "list", "file", "--pfns", "--sort", "random", "--rses", rse, dataset)
    assert set(shown.split()) == {pfn(rse, scope, "night%201/a.fits"), pfn(rse, scope, "b.fits")}
    metalink = official.cli("replica", "list", "file", "--metalink", dataset)
    found = parse_replicas_from_string(metalink[metalink.index("<?xml") :])
    assert {file["did"] for file in found} == {f"{scope}:night 1/a.fits", f"{scope}:b.fits"}


@pytest.mark.rucio_command("replica list file")
def test_list_what_is_missing(official, client, scope, rse, dataset):
    client.update_replicas_states(rse, [{"scope": scope, "name": "b.fits", "state": "D"}])
    missing = official.cli("replica", "list", "file", "--missing", "--rses", rse, dataset)
    assert re.search(rf"b\.fits\s+.*\(D\) {rse}", missing)
    assert "a.fits" not in missing
    assert "missing" in official.cli("replica", "list", "file", f"{scope}:missing", expect=1)


@pytest.mark.rucio_command("replica list dataset")
def test_list_dataset(official, client, scope, rse, dataset):
    for arguments in ((dataset,), ("--deep", dataset)):
        assert re.search(rf"{rse}\s*\|\s*2\s*\|\s*2", official.cli("replica", "list", "dataset", *arguments))
    client.add_dataset(scope, "e")
    client.attach_dids(scope, "e", keys(scope, "b.fits"))
    both = official.cli("replica", "list", "dataset", "--csv", dataset, f"{scope}:e")
    assert {f"{rse},2,2", f"{rse},1,1"} <= set(both.split())
    assert {dataset, f"{scope}:e"} <= set(official.cli("replica", "list", "dataset", "--rse", rse).split())
    assert f"{dataset}2/2" in official.cli("replica", "list", "dataset", "--rse", rse, "--long")


@pytest.mark.rucio_command("replica remove")
def test_remove(official, client, scope, rse, dataset):
    official.cli("replica", "remove", "--rse", rse, f"{scope}:b.fits")
    said = official.cli("replica", "remove", "--rse", rse, f"{scope}:missing", expect=1)
    assert "there is no replica of" in said


@pytest.mark.rucio_command("replica state update bad")
def test_state_bad(official, client, scope, rse, dataset, tmp_path):
    bad = pfn(rse, scope, "b.fits")
    said = official.cli("replica", "state", "update", "bad", "--reason", "broken", bad, f"{bad}x")
    assert f"{rse} : PFN {bad}x Unknown replica cannot be declared." in said
    [file] = client.list_replicas(keys(scope, "b.fits"), all_states=True)
    assert file["states"] == {rse: "BAD"}
    official.cli("replica", "state", "update", "bad", "--reason", "broken", f"{scope}:night 1/a.fits")
    lfns = tmp_path / "lfns"
    lfns.write_text("b.fits\nmissing\n")
    named = ("--lfn", "--scope", scope, "--rse", rse, str(lfns))
    said = official.cli("replica", "state", "update", "bad", "--reason", "broken", *named)
    assert f"{scope}:missing Unknown replica" in said


@pytest.mark.rucio_command("replica state update unavailable")
def test_state_unavailable(official, client, scope, rse, dataset):
    away = pfn(rse, scope, "b.fits")
    arguments = ("--reason", "pool down", "--duration", "3600", away)
    said = official.cli("replica", "state", "update", "unavailable", *arguments)
    assert "1 replicas successfully declared" in said
    [file] = client.list_replicas(keys(scope, "b.fits"), all_states=True)
    assert file["states"] == {rse: "TEMPORARY_UNAVAILABLE"}


@pytest.mark.rucio_command("replica state list")
def test_state_list(official, client, scope, rse, dataset):
    client.declare_suspicious_file_replicas([pfn(rse, scope, "b.fits")], "slow")
    arguments = ("--rses", rse, "--younger-than", "2021-11-29T00:00:00", "--n-attempts", "1")
    listed = official.cli("replica", "state", "list", "suspicious", *arguments)
    assert re.search(rf"{rse}\s+{scope}\s+.*\s1\s+b\.fits", listed)
    nothing = official.cli("replica", "state", "list", "suspicious", "--rses", rse, "--n-attempts", "2")
    assert "b.fits" not in nothing
