"""What the official client asks for of DIDs, method by method, and the errors that it raises."""

from __future__ import annotations

from datetime import datetime

import pytest
from rucio.common import exception

from support.official_data import NAMES, files, keys, names_in, rse, scope

__all__ = ["rse", "scope"]


class TestDids:
    @pytest.mark.client_method(
        "DIDClient.add_did",
        "DIDClient.add_dids",
        "DIDClient.add_dataset",
        "DIDClient.add_container",
        "DIDClient.add_datasets",
        "DIDClient.add_containers",
        "DIDClient.get_did",
        "DIDClient.list_dids",
    )
    def test_add_dataset_container_and_bulk(self, client, scope):
        assert client.add_dataset(
            scope, "d", statuses={"monotonic": True}, meta={"night": "1"}, lifetime=3600
        )
        assert client.add_container(scope, "c")
        assert client.add_datasets(keys(scope, "d1", "d2"))
        assert client.add_containers(keys(scope, "c1"))
        assert client.add_did(scope, "d3", "DATASET")
        assert client.add_dids([{**key, "type": "CONTAINER"} for key in keys(scope, "c2", "c3")])
        described = client.get_did(scope, "d")
        assert (described["type"], described["open"], described["monotonic"]) == ("DATASET", True, True)
        assert isinstance(described["expired_at"], datetime)
        assert sorted(client.list_dids(scope, {"name": "*"})) == [
            *("c", "c1", "c2", "c3"),
            *("d", "d1", "d2", "d3"),
        ]
        with pytest.raises(exception.DataIdentifierAlreadyExists):
            client.add_dataset(scope, "d")
        with pytest.raises(exception.ScopeNotFound):
            client.add_dataset("nowhere", "d")
        with pytest.raises(exception.DataIdentifierNotFound):
            client.get_did(scope, "missing")

    @pytest.mark.client_method(
        "DIDClient.list_parent_dids", "DIDClient.list_did_rules", "DIDClient.list_associated_rules_for_file"
    )
    @pytest.mark.parametrize("name", NAMES)
    def test_every_call_takes_every_name(self, client, scope, rse, name):
        assert client.add_replicas(rse, files(scope, name))
        dataset = f"set/{name}"
        assert client.add_dataset(scope, dataset)
        assert client.attach_dids(scope, dataset, keys(scope, name))
        assert client.get_did(scope, name)["name"] == name
        assert names_in(client.list_content(scope, dataset)) == [name]
        assert names_in(client.list_files(scope, dataset)) == [name]
        assert names_in(client.list_parent_dids(scope, name)) == [dataset]
        assert client.set_metadata(scope, dataset, "night", "20241108")
        assert client.get_metadata(scope, dataset, plugin="JSON") == {"night": "20241108"}
        [rule] = client.add_replication_rule(keys(scope, dataset), 1, rse)
        assert [row["id"] for row in client.list_did_rules(scope, dataset)] == [rule]
        assert [row["id"] for row in client.list_associated_rules_for_file(scope, name)] == [rule]
        [found] = client.list_replicas(keys(scope, dataset))
        assert found["name"] == name
        assert list(client.get_dataset_locks(scope, dataset)) == []
        assert client.close(scope, dataset)
        assert client.detach_dids(scope, dataset, keys(scope, name))

    @pytest.mark.client_method(
        "DIDClient.attach_dids",
        "DIDClient.detach_dids",
        "DIDClient.attach_dids_to_dids",
        "DIDClient.add_files_to_dataset",
        "DIDClient.add_files_to_datasets",
        "DIDClient.add_datasets_to_container",
        "DIDClient.list_content",
        "DIDClient.list_files",
        "DIDClient.bulk_list_files",
    )
    def test_attach_detach_and_lists(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a", "b", "c"))
        client.add_dataset(scope, "d")
        client.add_container(scope, "top")
        assert client.add_files_to_dataset(scope, "d", keys(scope, "a", "b"))
        assert client.add_datasets_to_container(scope, "top", keys(scope, "d"))
        assert client.attach_dids_to_dids(
            [{"scope": scope, "name": "d", "dids": keys(scope, "b", "c")}], ignore_duplicate=True
        )
        assert client.add_files_to_datasets(
            [{"scope": scope, "name": "d", "dids": keys(scope, "c")}], ignore_duplicate=True
        )
        assert names_in(client.list_content(scope, "top")) == ["d"]
        assert names_in(client.list_files(scope, "top")) == ["a", "b", "c"]
        assert names_in(client.bulk_list_files(keys(scope, "top", "d"))) == ["a", "a", "b", "b", "c", "c"]
        whole = client.get_did(scope, "top", dynamic=True)
        assert (whole["length"], whole["bytes"]) == (3, 3 * 2880)
        assert client.detach_dids(scope, "d", keys(scope, "a"))
        assert names_in(client.list_files(scope, "top")) == ["b", "c"]

    @pytest.mark.client_method("DIDClient.attach_dids")
    def test_what_cannot_be_attached(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        client.add_dataset(scope, "d")
        client.add_container(scope, "top")
        with pytest.raises(exception.DataIdentifierNotFound):
            client.attach_dids(scope, "d", keys(scope, "missing"))
        with pytest.raises(exception.UnsupportedOperation):
            client.attach_dids(scope, "top", keys(scope, "a"))
        with pytest.raises(exception.UnsupportedOperation, match="circular"):
            client.attach_dids(scope, "top", keys(scope, "top"))
        with pytest.raises(exception.FileConsistencyMismatch):
            client.attach_dids(scope, "d", [{**files(scope, "a")[0], "adler32": "0000002b"}])
        client.attach_dids(scope, "d", keys(scope, "a"))
        with pytest.raises(exception.FileAlreadyExists):
            client.attach_dids(scope, "d", keys(scope, "a"))
        client.attach_dids(scope, "top", keys(scope, "d"))
        with pytest.raises(exception.DuplicateContent):
            client.attach_dids(scope, "top", keys(scope, "d"))

    def test_attach_with_an_rse_as_an_upload_does(self, client, scope, rse):
        client.add_dataset(scope, "d")
        assert client.attach_dids(scope, "d", files(scope, "new"), rse=rse)
        [found] = client.list_replicas(keys(scope, "d"))
        assert found["states"] == {rse: "AVAILABLE"}

    @pytest.mark.client_method("DIDClient.close", "DIDClient.set_status")
    def test_close_and_reopen(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        client.add_dataset(scope, "d")
        assert client.close(scope, "d")
        assert client.get_did(scope, "d")["open"] is False
        with pytest.raises(exception.UnsupportedOperation, match="closed"):
            client.attach_dids(scope, "d", keys(scope, "a"))
        with pytest.raises(exception.UnsupportedOperation):
            client.close(scope, "d")
        assert client.set_status(scope, "d", open=True)
        assert client.attach_dids(scope, "d", keys(scope, "a"))

    @pytest.mark.client_method(
        "DIDClient.get_metadata",
        "DIDClient.get_metadata_bulk",
        "DIDClient.set_metadata",
        "DIDClient.set_metadata_bulk",
        "DIDClient.set_dids_metadata_bulk",
        "DIDClient.delete_metadata",
    )
    def test_metadata(self, client, scope):
        client.add_datasets(keys(scope, "d", "e"))
        assert client.set_metadata_bulk(scope, "d", {"rubin_butler": "raw", "rubin_sidecar": {"id": "x"}})
        assert client.set_metadata(scope, "d", "night", 20241108)
        assert client.set_dids_metadata_bulk([{**key, "meta": {"k": "v"}} for key in keys(scope, "d", "e")])
        assert client.get_metadata(scope, "d", plugin="JSON") == {
            "rubin_butler": "raw",
            "rubin_sidecar": {"id": "x"},
            "night": 20241108,
            "k": "v",
        }
        assert client.get_metadata(scope, "d")["did_type"] == "DATASET"
        bulk = list(client.get_metadata_bulk(keys(scope, "d", "e"), plugin="ALL"))
        assert {row["name"]: row["k"] for row in bulk} == {"d": "v", "e": "v"}
        assert client.delete_metadata(scope, "d", "k")
        with pytest.raises(exception.KeyNotFound):
            client.delete_metadata(scope, "d", "k")

    @pytest.mark.client_method("DIDClient.list_dids")
    def test_search(self, client, scope, rse):
        client.add_dataset(scope, "Dataset/one", meta={"night": "20241108"})
        client.add_container(scope, "Container/two")
        client.add_replicas(rse, files(scope, "three.fits"))
        assert list(client.list_dids(scope, [{"name": "Dataset/*"}])) == ["Dataset/one"]
        assert list(client.list_dids(scope, [{"name": "*"}], did_type="container")) == ["Container/two"]
        assert list(client.list_dids(scope, [{"name": "*"}], did_type="file")) == ["three.fits"]
        [long] = client.list_dids(scope, [{"night": "20241108"}, {"night": "x"}], long=True)
        assert (long["name"], long["did_type"]) == ("Dataset/one", "DATASET")
