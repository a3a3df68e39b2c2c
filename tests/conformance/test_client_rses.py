"""What the official client asks for of RSEs and of the service's settings, method by method, and the errors it raises."""

from __future__ import annotations

import itertools
from datetime import datetime

import pytest
from rucio.common import exception
from rucio.rse import rsemanager

from support.official_data import DAVS, files, keys, rse, scope

__all__ = ["rse", "scope"]

WHERE = {
    "city": "Lyon",
    "region_code": "FR",
    "country_name": "France",
    "continent": "EU",
    "time_zone": "Europe/Paris",
    "ISP": "RENATER",
    "ASN": "789",
    "longitude": 4.87,
    "latitude": 45.78,
}


def of_scheme(client, rse: str, scheme: str) -> list[dict]:
    return [one for one in client.get_rse(rse)["protocols"] if one["scheme"] == scheme]


class TestRses:
    @pytest.mark.client_method("RSEClient.add_rse", "RSEClient.get_rse")
    def test_add_and_get(self, official, client):
        name = official.unique("SITE") + "_DISK"
        assert client.add_rse(name, deterministic=False, rse_type="TAPE", staging_area=True, **WHERE)
        described = client.get_rse(name)
        assert {key: described[key] for key in WHERE} == WHERE
        assert (described["rse"], described["rse_type"], described["deterministic"]) == (name, "TAPE", False)
        assert (described["availability"], described["staging_area"], described["volatile"]) == (
            7,
            True,
            False,
        )
        assert (described["credentials"], described["sign_url"]) == (None, None)
        assert (described["lfn2pfn_algorithm"], described["verify_checksum"]) == ("hash", True)
        with pytest.raises(exception.Duplicate):
            client.add_rse(name)
        with pytest.raises(exception.InvalidObject):
            client.add_rse("a b")
        with pytest.raises(exception.RSENotFound):
            client.get_rse("NOWHERE")

    @pytest.mark.client_method("RSEClient.update_rse")
    def test_update(self, client, rse):
        assert client.update_rse(
            rse, {"availability_write": False, "city": "Menlo Park", "qos_class": "gold"}
        )
        assert client.update_rse(rse, {"rse_type": "TAPE", "city": None, "latitude": "37.4"})
        described = client.get_rse(rse)
        assert (described["availability_write"], described["availability"]) == (False, 5)
        assert (described["city"], described["qos_class"], described["latitude"]) == (None, "gold", 37.4)
        assert client.update_rse(rse, {"availability": 7})
        assert client.get_rse(rse)["availability_write"] is True
        with pytest.raises(exception.InputValidationError, match="not renamed"):
            client.update_rse(rse, {"name": "OTHER"})
        with pytest.raises(exception.InputValidationError, match="latitude"):
            client.update_rse(rse, {"latitude": 91})
        with pytest.raises(exception.RSENotFound):
            client.update_rse("NOWHERE", {"volatile": True})

    @pytest.mark.client_method("RSEClient.list_rses")
    def test_list(self, client, rse):
        rows = {row["rse"]: row for row in client.list_rses()}
        assert isinstance(rows[rse]["created_at"], datetime)
        assert [row["rse"] for row in client.list_rses(rse)] == [rse]
        with pytest.raises(exception.InvalidRSEExpression):
            list(client.list_rses("NOWHERE"))
        with pytest.raises(exception.InvalidRSEExpression):
            list(client.list_rses(f"{rse}|"))

    @pytest.mark.client_method("RSEClient.delete_rse")
    def test_delete(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        with pytest.raises(exception.RSEOperationNotSupported, match="1 replicas"):
            client.delete_rse(rse)
        with pytest.raises(exception.RSENotFound):
            client.delete_rse("NOWHERE")
        gone = f"{rse}_2"
        client.add_rse(gone)
        assert client.delete_rse(gone)
        with pytest.raises(exception.RSENotFound):
            client.get_rse(gone)
        assert gone not in [row["rse"] for row in client.list_rses()]
        with pytest.raises(exception.InvalidRSEExpression):
            list(client.list_rses(gone))
        with pytest.raises(exception.Duplicate, match="removed"):
            client.add_rse(gone)

    @pytest.mark.client_method(
        "RSEClient.add_rse_attribute", "RSEClient.list_rse_attributes", "RSEClient.delete_rse_attribute"
    )
    def test_attributes(self, client, rse):
        for key, value in (
            ("site", "SLAC"),
            ("istape", False),
            ("isdisk", "True"),
            ("tier", 1),
            ("era", "1"),
        ):
            assert client.add_rse_attribute(rse, key, value)
        attributes = client.list_rse_attributes(rse)
        shown = [attributes[key] for key in ("site", "istape", "isdisk", "tier", "era", rse)]
        assert shown == ["SLAC", False, True, "1", "1", True]
        found = client.list_rses(f"site=SLAC&istape=false&isdisk&tier<2&era=1&{rse}")
        assert [row["rse"] for row in found] == [rse]
        client.add_rse_attribute(rse, "tier", 2)
        with pytest.raises(exception.InvalidRSEExpression):
            list(client.list_rses(f"{rse}&tier<2"))
        assert client.delete_rse_attribute(rse, "site")
        with pytest.raises(exception.RSEAttributeNotFound):
            client.delete_rse_attribute(rse, "site")
        with pytest.raises(exception.InputValidationError):
            client.add_rse_attribute(rse, "k", {"not": "one value"})
        with pytest.raises(exception.RSENotFound):
            client.add_rse_attribute("NOWHERE", "k", "v")


class TestProtocols:
    @pytest.mark.client_method(
        "RSEClient.add_protocol", "RSEClient.get_protocols", "RSEClient.delete_protocols"
    )
    def test_add_get_delete(self, client, rse):
        assert client.add_protocol(
            rse, {**DAVS, "port": 1095, "domains": {"wan": {"read": 2, "write": None}}}
        )
        assert client.add_protocol(rse, {**DAVS, "scheme": "root", "domains": {"wan": {"read": 3}}})
        assert [one["port"] for one in client.get_protocols(rse)] == [1094, 1095, 1094]
        first = client.get_protocols(rse)[0]
        assert {**first, "domains": DAVS["domains"]} == DAVS
        assert first["domains"]["wan"]["third_party_copy_read"] == 1
        readers = client.get_protocols(rse, protocol_domain="wan", operation="read")
        assert [one["domains"]["wan"]["read"] for one in readers] == [1, 2, 3]
        [best] = client.get_protocols(rse, protocol_domain="wan", operation="write", default=True)
        assert best["port"] == 1094
        assert client.get_protocols(rse, scheme="root")["protocols"][0]["scheme"] == "root"
        with pytest.raises(exception.Duplicate):
            client.add_protocol(rse, dict(DAVS))
        with pytest.raises(exception.RSEProtocolPriorityError):
            client.add_protocol(rse, {**DAVS, "port": 1, "domains": {"wan": {"read": -1}}})
        with pytest.raises(exception.RSEProtocolDomainNotSupported):
            client.add_protocol(rse, {**DAVS, "port": 1, "domains": {"moon": {"read": 1}}})
        with pytest.raises(exception.RSEOperationNotSupported):
            client.add_protocol(rse, {**DAVS, "port": 1, "domains": {"wan": {"look": 1}}})
        with pytest.raises(exception.RSEProtocolNotSupported):
            client.get_protocols(rse, scheme="srm")
        assert client.delete_protocols(rse, "davs", "dav.example.org", 1095)
        assert client.delete_protocols(rse, "root")
        assert [one["port"] for one in client.get_protocols(rse)] == [1094]
        with pytest.raises(exception.RSEProtocolNotSupported):
            client.delete_protocols(rse, "davs", "other.example.org")
        client.delete_protocols(rse, "davs")
        with pytest.raises(exception.RSEProtocolNotSupported):
            client.get_protocols(rse)

    @pytest.mark.client_method("RSEClient.update_protocols")
    def test_update(self, client, rse):
        client.add_protocol(rse, {**DAVS, "port": 1095})
        assert client.update_protocols(
            rse, "davs", {"prefix": "/new", "domains": {"wan": {"read": 0}}}, "dav.example.org", 1095
        )
        untouched, changed = of_scheme(client, rse, "davs")
        assert (untouched["prefix"], untouched["domains"]["wan"]["read"]) == ("/data", 1)
        assert (changed["prefix"], changed["domains"]["wan"]["read"]) == ("/new", None)
        assert changed["domains"]["wan"]["write"] == 1
        assert client.update_protocols(rse, "davs", {"extended_attributes": {"web_service_path": "/?x="}})
        assert all(one["extended_attributes"] for one in of_scheme(client, rse, "davs"))
        with pytest.raises(exception.RSEProtocolNotSupported):
            client.update_protocols(rse, "srm", {"prefix": "/new"})
        with pytest.raises(exception.InvalidObject, match="cannot change"):
            client.update_protocols(rse, "davs", {"hostname": "other.example.org"})
        with pytest.raises(exception.RSEProtocolPriorityError):
            client.update_protocols(rse, "davs", {"domains": {"wan": {"read": 10**9}}})

    @pytest.mark.client_method("RSEClient.swap_protocols")
    def test_swap(self, client, rse):
        client.add_protocol(rse, {**DAVS, "scheme": "root", "domains": {"wan": {"read": 2}}})
        assert client.swap_protocols(rse, "wan", "read", "davs", "root")
        [davs], [root] = of_scheme(client, rse, "davs"), of_scheme(client, rse, "root")
        assert (davs["domains"]["wan"]["read"], root["domains"]["wan"]["read"]) == (2, 1)
        assert davs["domains"]["wan"]["write"] == 1

    @pytest.mark.parametrize("algorithm", ["hash", "identity", "lsst_butler"])
    @pytest.mark.client_method("RSEClient.lfns2pfns")
    def test_lfns_to_pfns(self, client, scope, rse, algorithm):
        client.add_rse_attribute(rse, "lfn2pfn_algorithm", algorithm)
        lfns = [f"{scope}:a/b.fits", f"{scope}:c d+e%f:g.fits"]
        pfns = client.lfns2pfns(rse, lfns)
        client.add_replicas(rse, files(scope, "a/b.fits", "c d+e%f:g.fits"))
        listed = client.list_replicas(keys(scope, "a/b.fits", "c d+e%f:g.fits"))
        assert pfns == {f"{scope}:{row['name']}": next(iter(row["pfns"])) for row in listed}
        assert client.lfns2pfns(rse, lfns, protocol_domain="lan", operation="read", scheme="davs") == pfns
        with pytest.raises(exception.RSEProtocolNotSupported):
            client.lfns2pfns(rse, lfns, scheme="srm")
        with pytest.raises(exception.RSEOperationNotSupported):
            client.lfns2pfns(rse, lfns, protocol_domain="lan", operation="third_party_copy_read")
        with pytest.raises(exception.InvalidPath):
            client.lfns2pfns(rse, ["no-colon"])

    def test_the_client_finds_its_way_through_what_it_is_told(self, client, rse):
        """As an upload and a download choose their protocol."""
        client.add_protocol(rse, {**DAVS, "port": 1095, "domains": {"wan": {"read": 1}}})
        settings = client.get_rse(rse)
        for domain, operation in itertools.product(("wan", "lan"), ("read", "write", "delete")):
            chosen = rsemanager.get_protocols_ordered(settings, operation, scheme="davs", domain=domain)
            ports = [one["port"] for one in chosen]
            assert ports == ([1094, 1095] if (domain, operation) == ("wan", "read") else [1094])


class TestLinks:
    @pytest.mark.client_method("RSEClient.add_distance", "RSEClient.get_distance")
    def test_add_and_get(self, official, client, rse):
        other = official.unique("SITE") + "_DISK"
        client.add_rse(other)
        assert client.get_distance(rse, other) == []
        assert client.add_distance(rse, other, {"distance": 3})
        [found] = client.get_distance(rse, other)
        assert (found["src_rse"], found["dest_rse"], found["distance"]) == (rse, other, 3)
        with pytest.raises(exception.Duplicate):
            client.add_distance(other, rse, {"distance": 4}, bidirectional=True)
        assert client.get_distance(other, rse) == []
        with pytest.raises(exception.RSENotFound):
            client.add_distance(rse, "NOWHERE", {"distance": 3})

    @pytest.mark.client_method("RSEClient.update_distance", "RSEClient.delete_distance")
    def test_update_and_delete(self, official, client, rse):
        other = official.unique("SITE") + "_DISK"
        client.add_rse(other)
        with pytest.raises(exception.NoDistance):
            client.update_distance(rse, other, {"distance": 4})
        client.add_distance(rse, other, {"distance": 3}, bidirectional=True)
        assert client.update_distance(rse, other, {"distance": 4}, bidirectional=True)
        assert client.get_distance(other, rse)[0]["distance"] == 4
        assert client.delete_distance(rse, other)
        assert client.get_distance(rse, other) == []
        with pytest.raises(exception.NoDistance):
            client.delete_distance(rse, other)


class TestSpace:
    @pytest.mark.client_method("RSEClient.set_rse_usage", "RSEClient.get_rse_usage")
    def test_usage(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a", "b"))
        assert client.set_rse_usage(rse, "storage", 10, 90, 3)
        counted, measured = client.get_rse_usage(rse)
        assert (counted["source"], counted["used"], counted["files"]) == ("rucio", 5760, 2)
        assert (measured["used"], measured["free"], measured["total"], measured["files"]) == (10, 90, 100, 3)
        assert isinstance(measured["updated_at"], datetime)
        assert [row["source"] for row in client.get_rse_usage(rse, {"source": "storage"})] == ["storage"]
        client.add_replication_rule(keys(scope, "a"), 1, rse)
        [counted] = client.get_rse_usage(rse, {"source": "rucio", "per_account": True})
        assert "account_usages" in counted
        with pytest.raises(exception.InputValidationError):
            client.set_rse_usage(rse, "rucio", 10, 90)
        with pytest.raises(exception.RSENotFound):
            client.get_rse_usage("NOWHERE")

    @pytest.mark.client_method("RSEClient.list_rse_usage_history")
    def test_history(self, client, rse):
        for used in (1, 2):
            client.set_rse_usage(rse, "storage", used, 100 - used)
        client.set_rse_usage(rse, "quota", 3, 7)
        assert [(row["source"], row["used"]) for row in client.list_rse_usage_history(rse)] == [
            ("storage", 1),
            ("storage", 2),
            ("quota", 3),
        ]
        assert [row["used"] for row in client.list_rse_usage_history(rse, {"source": "quota"})] == [3]

    @pytest.mark.client_method(
        "RSEClient.set_rse_limits", "RSEClient.get_rse_limits", "RSEClient.delete_rse_limits"
    )
    def test_limits(self, client, rse):
        assert client.set_rse_limits(rse, "MinFreeSpace", 5)
        assert client.set_rse_limits(rse, "MinFreeSpace", 6)
        assert client.get_rse_limits(rse) == {"MinFreeSpace": 6}
        assert client.delete_rse_limits(rse, "MinFreeSpace")
        assert client.get_rse_limits(rse) == {}
        with pytest.raises(exception.RucioException):
            client.delete_rse_limits(rse, "MinFreeSpace")

    @pytest.mark.client_method(
        "RSEClient.add_qos_policy", "RSEClient.list_qos_policies", "RSEClient.delete_qos_policy"
    )
    def test_classes_of_service(self, client, rse):
        assert client.add_qos_policy(rse, "SILVER")
        assert client.add_qos_policy(rse, "GOLD")
        assert client.list_qos_policies(rse) == ["GOLD", "SILVER"]
        with pytest.raises(exception.Duplicate):
            client.add_qos_policy(rse, "GOLD")
        assert client.delete_qos_policy(rse, "GOLD")
        assert client.list_qos_policies(rse) == ["SILVER"]


class TestService:
    @pytest.mark.client_method("ExportClient.export_data", "ImportClient.import_data")
    def test_export_and_import(self, official, client, rse):
        other = official.unique("SITE") + "_DISK"
        client.add_rse(other, **WHERE)
        client.add_distance(rse, other, {"distance": 3})
        client.set_rse_limits(other, "MinFreeSpace", 5)
        exported = client.export_data()
        assert exported["rses"][rse]["protocols"][0]["hostname"] == "dav.example.org"
        assert exported["distances"][rse][other]["distance"] == 3
        assert "distances" not in client.export_data(distance=False)
        assert client.import_data(exported)
        assert client.export_data() == exported
        new = official.unique("NEW") + "_DISK"
        wanted = {**exported["rses"][rse], "attributes": {"site": "LANCS"}, "MinFreeSpace": 7}
        client.import_data({"rses": {new: wanted}, "distances": {new: {rse: {"distance": 9}}}})
        assert client.list_rse_attributes(new) == {new: True, "site": "LANCS"}
        assert client.get_rse_limits(new) == {"MinFreeSpace": 7}
        assert client.get_distance(new, rse)[0]["distance"] == 9
        with pytest.raises(exception.InvalidObject, match=r"rses\.SITE\.protocols\[0\]"):
            client.import_data({"rses": {"SITE": {"protocols": [{"scheme": "davs", "port": "x"}]}}})
        with pytest.raises(exception.UnsupportedOperation, match="accounts"):
            client.import_data({"accounts": [{"account": "somebody"}]})

    @pytest.mark.client_method("ConfigClient.get_config")
    def test_settings(self, client):
        whole = client.get_config()
        assert client.get_config("limits") == whole["limits"]
        assert client.get_config("limits", "max_bulk_items") == whole["limits"]["max_bulk_items"]
        assert "sqlite" not in str(whole)
        assert "postgresql" not in str(whole)
        with pytest.raises(exception.ConfigNotFound):
            client.get_config("nothing")
        with pytest.raises(exception.ConfigNotFound):
            client.get_config("limits", "nothing")
