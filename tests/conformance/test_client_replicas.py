"""What the official client asks for of replicas, method by method, and the errors that it raises."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from rucio.common import exception
from rucio.common.utils import parse_replicas_from_string

from support.official import make_client
from support.official_data import DAVS, NAMES, files, keys, scope

__all__ = ["scope"]


def add_rse(official, client, stem: str) -> str:
    """An RSE on a host of its own: a PFN says which one is meant."""
    name = official.unique(stem) + "_DISK"
    client.add_rse(name)
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    client.add_protocol(name, {**DAVS, "hostname": f"{name.lower().replace('_', '-')}.example.org"})
    return name


@pytest.fixture
def rse(official, client) -> str:
    return add_rse(official, client, "MINE")


@pytest.fixture
def other_rse(official, client) -> str:
    return add_rse(official, client, "OTHER")


def listed(client, sent, **options) -> dict:
    return {row["name"]: row for row in client.list_replicas(sent, **options)}


def pfns_of(client, scope: str, *names: str) -> list[str]:
    return [next(iter(row["pfns"])) for row in client.list_replicas(keys(scope, *names))]


class TestRegistration:
    @pytest.mark.client_method("ReplicaClient.add_replica", "ReplicaClient.add_replicas")
    def test_add(self, client, scope, rse):
        assert client.add_replica(rse, scope, "one", 2880, "0000002a", md5="d" * 32, meta={"night": 1})
        assert client.add_replicas(rse, files(scope, *NAMES))
        assert client.add_replicas(rse, files(scope, *NAMES), ignore_availability=False)
        found = listed(client, keys(scope, "one", *NAMES))
        assert set(found) == {"one", *NAMES}
        assert (found["one"]["bytes"], found["one"]["md5"]) == (2880, "d" * 32)

    @pytest.mark.client_method("ReplicaClient.add_replicas")
    def test_add_refused(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        with pytest.raises(exception.FileConsistencyMismatch):
            client.add_replica(rse, scope, "a", 1, "0000002a")
        with pytest.raises(exception.RSENotFound):
            client.add_replicas("NOWHERE", files(scope, "a"))
        with pytest.raises(exception.ScopeNotFound):
            client.add_replicas(rse, files("nowhere", "a"))
        with pytest.raises(exception.InvalidPath):
            client.add_replica(rse, scope, "b", 1, "0000002a", pfn="davs://evil.example.org/b")

    @pytest.mark.client_method("ReplicaClient.add_replica")
    def test_add_where_the_pfn_says_it(self, official, client, scope):
        name = official.unique("TAPE") + "_TAPE"
        client.add_rse(name, deterministic=False)
        client.add_protocol(name, dict(DAVS))
        pfn = "davs://dav.example.org:1094/data/night%201/a.fits"
        assert client.add_replica(name, scope, "a", 2880, "0000002a", pfn=pfn)
        assert pfns_of(client, scope, "a") == [pfn]
        with pytest.raises(exception.UnsupportedOperation):
            client.add_replica(name, scope, "b", 2880, "0000002a")

    @pytest.mark.client_method("ReplicaClient.update_replicas_states")
    def test_update_states(self, client, scope, rse):
        client.add_replicas(rse, [{**file, "state": "C"} for file in files(scope, "a", "b")])
        assert listed(client, keys(scope, "a"))["a"]["states"] == {}
        changes = [{"scope": scope, "name": "a", "state": "A"}, {"scope": scope, "name": "b", "state": "U"}]
        assert client.update_replicas_states(rse, changes)
        found = listed(client, keys(scope, "a", "b"), all_states=True)
        assert [found[name]["states"] for name in "ab"] == [{rse: "AVAILABLE"}, {rse: "UNAVAILABLE"}]
        for state in ("T", "A", "D"):
            assert client.update_replicas_states(rse, [{"scope": scope, "name": "a", "state": state}])
        with pytest.raises(exception.ReplicaNotFound):
            client.update_replicas_states(rse, [{"scope": scope, "name": "z", "state": "A"}])
        with pytest.raises(exception.UnsupportedOperation):
            client.update_replicas_states(rse, [{"scope": scope, "name": "a", "state": "B"}])


class TestLists:
    @pytest.mark.client_method("ReplicaClient.list_replicas")
    def test_list(self, client, scope, rse, other_rse):
        client.add_replicas(rse, files(scope, "a", "b"))
        client.add_replicas(other_rse, files(scope, "b"))
        client.add_dataset(scope, "d1")
        client.add_dataset(scope, "d2")
        client.add_container(scope, "c")
        client.attach_dids(scope, "d1", keys(scope, "a", "b"))
        client.attach_dids(scope, "d2", keys(scope, "b"))
        client.attach_dids(scope, "c", keys(scope, "d1", "d2"))
        rows = list(client.list_replicas([*keys(scope, "c"), *keys(scope, "b")], resolve_parents=True))
        assert [row["name"] for row in rows] == ["a", "b"]
        assert rows[1]["parents"] == [f"{scope}:{name}" for name in ("c", "d1", "d2")]
        [pfn] = rows[1]["rses"][other_rse]
        assert pfn.endswith(f".example.org:1094/data/{scope}/b")
        assert (rows[1]["pfns"][pfn]["type"], rows[1]["pfns"][pfn]["domain"]) == ("DISK", "wan")
        assert sorted(place["priority"] for place in rows[1]["pfns"].values()) == [1, 2]
        assert listed(client, keys(scope, "c"), rse_expression=other_rse)["a"]["rses"] == {}
        assert listed(client, keys(scope, "b"), schemes=["root"])["b"]["pfns"] == {}
        [chosen] = client.list_replicas(keys(scope, "c"), nrandom=1)
        assert chosen["name"] in {"a", "b"}
        client.update_rse(other_rse, {"availability_read": False})
        assert set(listed(client, keys(scope, "b"), ignore_availability=False)["b"]["rses"]) == {rse}
        assert set(listed(client, keys(scope, "b"))["b"]["rses"]) == {rse, other_rse}

    @pytest.mark.client_method("ReplicaClient.list_replicas")
    def test_list_near_and_far(self, client, scope, rse, other_rse):
        client.add_rse_attribute(other_rse, "site", "CC-IN2P3")
        for one in (rse, other_rse):
            client.add_replicas(one, files(scope, "a"))
        here = {"ip": "127.0.0.1", "fqdn": "x", "site": "CC-IN2P3", "latitude": None, "longitude": None}
        pfns = listed(client, keys(scope, "a"), client_location=here, signature_lifetime=60)["a"]["pfns"]
        domains = [(place["rse"], place["domain"]) for place in pfns.values()]
        assert domains == [(other_rse, "lan"), (rse, "wan")]
        for domain in ("lan", "wan", "all"):
            assert len(listed(client, keys(scope, "a"), domain=domain)["a"]["pfns"]) == 2
        for sort in ("random", "geoip", "custom_table"):
            assert len(listed(client, keys(scope, "a"), sort=sort)["a"]["pfns"]) == 2
        with pytest.raises(exception.InvalidObject):
            list(client.list_replicas(keys(scope, "a"), sort="by_magic"))

    @pytest.mark.client_method("ReplicaClient.list_replicas")
    def test_list_what_changed_since(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        later = datetime.now(tz=UTC).replace(tzinfo=None) + timedelta(hours=1)
        assert list(client.list_replicas(keys(scope, "a"), updated_after=later)) == []
        assert (
            len(list(client.list_replicas(keys(scope, "a"), updated_after=later - timedelta(hours=2)))) == 1
        )
        assert list(client.list_replicas(keys(scope, "a"), updated_after=int(time.time()) + 3600)) == []

    @pytest.mark.client_method("ReplicaClient.list_replicas")
    def test_list_as_metalink(self, client, scope, rse):
        name = "a<b>&\"c'.fits"
        client.add_replicas(rse, files(scope, name, *NAMES))
        client.add_dataset(scope, "d")
        client.attach_dids(scope, "d", keys(scope, name, *NAMES))
        text = client.list_replicas(keys(scope, "d"), metalink=True, resolve_parents=True)
        found = {file["did"]: file for file in parse_replicas_from_string(text)}
        assert set(found) == {f"{scope}:{one}" for one in (name, *NAMES)}
        file = found[f"{scope}:{name}"]
        assert (file["bytes"], file["adler32"], file["parent_dids"]) == (2880, "0000002a", {f"{scope}:d"})
        [source] = file["sources"]
        assert source["pfn"] == pfns_of(client, scope, name)[0]
        assert (source["rse"], source["domain"], source["priority"]) == (rse, "wan", "1")
        assert source["client_extract"] is False
        assert ET.fromstring(text).tag == "{urn:ietf:params:xml:ns:metalink}metalink"
        assert parse_replicas_from_string(client.list_replicas([], metalink=True)) == []

    @pytest.mark.client_method("ReplicaClient.list_replicas")
    def test_list_what_is_not_there(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        asked = [*keys(scope, "missing", "a"), {"scope": "nowhere", "name": "a"}]
        assert [row["name"] for row in client.list_replicas(asked)] == ["a"]
        found = parse_replicas_from_string(client.list_replicas(asked, metalink=True))
        assert [file["did"] for file in found] == [f"{scope}:a"]
        assert list(client.list_replicas(keys(scope, "missing"))) == []
        with pytest.raises(exception.InvalidRSEExpression):
            list(client.list_replicas(keys(scope, "a"), rse_expression="NOWHERE"))

    @pytest.mark.client_method("ReplicaClient.get_did_from_pfns")
    def test_dids_of_pfns(self, client, scope, rse):
        client.add_replicas(rse, files(scope, *NAMES))
        pfns = pfns_of(client, scope, *NAMES)
        found = {
            pfn: did
            for row in client.get_did_from_pfns([*pfns, "davs://x/y"], rse)
            for pfn, did in row.items()
        }
        assert {did["name"] for did in found.values()} == set(NAMES)
        assert set(found) == set(pfns)
        with pytest.raises(exception.RSENotFound):
            list(client.get_did_from_pfns(pfns, "NOWHERE"))


class TestDatasets:
    @pytest.fixture
    def dataset(self, client, scope, rse, other_rse) -> str:
        client.add_replicas(rse, files(scope, "a", "b"))
        client.add_replicas(other_rse, files(scope, "a"))
        client.add_dataset(scope, "d+ 1/2")
        client.attach_dids(scope, "d+ 1/2", keys(scope, "a", "b"))
        return "d+ 1/2"

    @pytest.mark.client_method("ReplicaClient.list_dataset_replicas")
    def test_dataset_replicas(self, client, scope, rse, other_rse, dataset):
        for deep in (False, True):
            rows = {row["rse"]: row for row in client.list_dataset_replicas(scope, dataset, deep=deep)}
            counts = {
                name: (row["available_length"], row["length"], row["state"]) for name, row in rows.items()
            }
            assert counts == {rse: (2, 2, "AVAILABLE"), other_rse: (1, 2, "UNAVAILABLE")}
            assert (rows[other_rse]["available_bytes"], rows[other_rse]["bytes"]) == (2880, 5760)
            assert isinstance(rows[rse]["created_at"], datetime)
        with pytest.raises(exception.DataIdentifierNotFound):
            list(client.list_dataset_replicas(scope, "missing"))

    @pytest.mark.client_method("ReplicaClient.list_dataset_replicas_bulk")
    def test_dataset_replicas_bulk(self, client, scope, rse, other_rse, dataset):
        client.add_container(scope, "c")
        client.attach_dids(scope, "c", keys(scope, dataset))
        rows = list(client.list_dataset_replicas_bulk(keys(scope, dataset, "c", "missing")))
        assert {(row["name"], row["rse"], row["available_length"]) for row in rows} == {
            (name, where, count) for name in (dataset, "c") for where, count in ((rse, 2), (other_rse, 1))
        }
        with pytest.raises(exception.InvalidObject):
            list(client.list_dataset_replicas_bulk([]))

    @pytest.mark.client_method("ReplicaClient.list_datasets_per_rse")
    def test_datasets_per_rse(self, client, scope, other_rse, dataset):
        client.add_dataset(scope, "empty")
        [row] = client.list_datasets_per_rse(other_rse)
        assert (row["scope"], row["name"], row["rse"]) == (scope, dataset, other_rse)
        assert (row["available_length"], row["length"], row["available_bytes"], row["bytes"]) == (
            1,
            2,
            2880,
            5760,
        )
        with pytest.raises(exception.RSENotFound):
            list(client.list_datasets_per_rse("NOWHERE"))

    @pytest.mark.client_method("ReplicaClient.list_dataset_replicas_vp")
    def test_virtual_placement_has_no_sites(self, client, scope, dataset):
        assert list(client.list_dataset_replicas_vp(scope, dataset)) == []
        with pytest.raises(exception.DataIdentifierNotFound):
            list(client.list_dataset_replicas_vp(scope, "missing"))


class TestRemoval:
    @pytest.mark.client_method("ReplicaClient.delete_replicas")
    def test_delete(self, official, client, scope, rse, other_rse, monkeypatch):
        for one in (rse, other_rse):
            client.add_replicas(one, files(scope, "a"))
        assert client.delete_replicas(rse, keys(scope, "a"))
        assert set(listed(client, keys(scope, "a"), all_states=True)["a"]["rses"]) == {other_rse}
        with pytest.raises(exception.ReplicaNotFound):
            client.delete_replicas(rse, keys(scope, "a"))
        with pytest.raises(exception.UnsupportedOperation, match="last good"):
            client.delete_replicas(other_rse, keys(scope, "a"))
        with pytest.raises(exception.RSENotFound):
            client.delete_replicas("NOWHERE", keys(scope, "a"))
        name = official.unique("person")
        client.add_account(name, "USER", "p@example.org")
        client.add_identity(
            account=name, identity=name, authtype="USERPASS", email="p@example.org", password="long enough"
        )
        person = make_client(official, monkeypatch, name, "long enough")
        with pytest.raises(exception.AccessDenied):
            person.delete_replicas(other_rse, keys(scope, "a"))

    @pytest.mark.client_method("ReplicaClient.set_tombstone")
    def test_set_tombstone(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        assert client.set_tombstone([{"scope": scope, "name": "a", "rse": rse}])
        with pytest.raises(exception.ReplicaNotFound):
            client.set_tombstone([{"scope": scope, "name": "b", "rse": rse}])

    @pytest.mark.client_method("ReplicaClient.quarantine_replicas")
    def test_quarantine(self, client, rse):
        client.quarantine_replicas(
            [{"path": "/dark/1"}, {"path": "dark/2", "scope": "x", "name": "y"}], rse=rse
        )
        rse_id = client.get_rse(rse)["id"]
        client.quarantine_replicas([{"path": "dark/3"}], rse_id=str(rse_id))
        with pytest.raises(exception.RSENotFound):
            client.quarantine_replicas([{"path": "dark/1"}], rse="NOWHERE")


class TestBad:
    @pytest.fixture
    def pfns(self, client, scope, rse) -> list[str]:
        client.add_replicas(rse, files(scope, "a", "b"))
        return pfns_of(client, scope, "a", "b")

    def states(self, client, scope, rse) -> list[str]:
        found = listed(client, keys(scope, "a", "b"), all_states=True)
        return [found[name]["states"][rse] for name in "ab"]

    @pytest.mark.client_method("ReplicaClient.declare_bad_file_replicas")
    def test_bad_files(self, client, scope, rse, pfns):
        assert client.declare_bad_file_replicas([pfns[0], f"{pfns[0]}x"], "broken") == {
            rse: [f"{pfns[0]}x Unknown replica"]
        }
        assert self.states(client, scope, rse) == ["BAD", "AVAILABLE"]
        named = [{"scope": scope, "name": name, "rse": rse} for name in "ab"]
        assert client.declare_bad_file_replicas(named, "broken") == {rse: [f"{scope}:a Already declared"]}
        assert client.declare_bad_file_replicas(named, "broken", force=True) == {}
        assert self.states(client, scope, rse) == ["BAD", "BAD"]
        assert client.add_replicas(rse, files(scope, "a"))
        assert self.states(client, scope, rse) == ["AVAILABLE", "BAD"]
        with pytest.raises(exception.RSENotFound):
            client.declare_bad_file_replicas([{"scope": scope, "name": "a", "rse": "NOWHERE"}], "broken")

    @pytest.mark.client_method("ReplicaClient.declare_bad_did_replicas")
    @pytest.mark.usefixtures("pfns")
    def test_bad_dids(self, client, scope, rse):
        assert client.declare_bad_did_replicas(rse, keys(scope, "a", "missing"), "broken") == {
            rse: [f"{scope}:missing Unknown replica"]
        }
        assert self.states(client, scope, rse) == ["BAD", "AVAILABLE"]
        with pytest.raises(exception.RSENotFound):
            client.declare_bad_did_replicas("NOWHERE", keys(scope, "a"), "broken")

    @pytest.mark.client_method("ReplicaClient.add_bad_pfns")
    def test_bad_pfns(self, client, scope, rse, pfns):
        until = (datetime.now(tz=UTC) + timedelta(hours=1)).replace(tzinfo=None).isoformat()
        assert client.add_bad_pfns(pfns[:1], "pool down", "TEMPORARY_UNAVAILABLE", until)
        assert client.add_bad_pfns([pfns[1], "davs://x/y"], "broken", "BAD", None)
        assert self.states(client, scope, rse) == ["TEMPORARY_UNAVAILABLE", "BAD"]
        with pytest.raises(exception.InputValidationError):
            client.add_bad_pfns(pfns, "x", "AVAILABLE", None)
        with pytest.raises(exception.InputValidationError):
            client.add_bad_pfns(pfns, "x", "TEMPORARY_UNAVAILABLE", None)

    @pytest.mark.client_method(
        "ReplicaClient.declare_suspicious_file_replicas", "ReplicaClient.list_suspicious_replicas"
    )
    def test_suspicious(self, client, scope, rse, pfns):
        for _ in range(2):
            assert client.declare_suspicious_file_replicas(pfns[:1], "slow") == {}
        assert client.declare_suspicious_file_replicas([pfns[1], "davs://x/y"], "slow") == {
            "unknown": ["davs://x/y No RSE has this prefix"]
        }
        [rows] = client.list_suspicious_replicas(rse_expression=rse)
        assert [(row["name"], row["cnt"]) for row in rows] == [("a", 2), ("b", 1)]
        assert isinstance(rows[0]["created_at"], datetime)
        [rows] = client.list_suspicious_replicas(rse, datetime.now(tz=UTC) - timedelta(days=1), 2)
        assert [row["name"] for row in rows] == ["a"]
        assert self.states(client, scope, rse) == ["AVAILABLE", "AVAILABLE"]
