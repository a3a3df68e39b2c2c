"""What the official client asks for of DIDs beside the daily calls: filters, histories, samples, and what comes back."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pytest
from rucio.common import exception

from arriero.registry.services.erasure import erase_expired_collections
from support.official_data import files, keys, names_in, rse, scope

__all__ = ["rse", "scope"]


@pytest.fixture
def tree(client, scope, rse) -> str:
    """A container ``top`` with the datasets ``d`` (files a, b) and ``e`` (file c)."""
    client.add_replicas(rse, files(scope, "a", "b", "c"))
    client.add_datasets(keys(scope, "d", "e"))
    client.add_container(scope, "top")
    client.attach_dids(scope, "d", keys(scope, "a", "b"))
    client.attach_dids(scope, "e", keys(scope, "c"))
    client.attach_dids(scope, "top", keys(scope, "d", "e"))
    return scope


@pytest.mark.client_method("DIDClient.list_dids")
def test_filters_compare_values_as_what_they_are(client, tree):
    client.set_metadata_bulk(tree, "d", {"exposure": 9, "filter": "r_03", "dark": True})
    client.set_metadata_bulk(tree, "e", {"exposure": 10, "filter": "i_06", "dark": False})

    def found(filters, **options) -> list[str]:
        return list(client.list_dids(tree, filters, **options))

    assert found({"exposure.gt": 9}) == ["e"]
    assert found({"exposure.gte": 9, "exposure.lt": 10}) == ["d"]
    assert found({"exposure.ne": 9}) == ["e"]
    assert found([{"exposure": 9}, {"exposure": 10}]) == ["d", "e"]
    assert found({"filter": "r_*"}) == ["d"]
    assert found({"dark": True}) == ["d"]
    assert found({"exposure": 9, "dark": False}) == []
    assert found({"name": "top"}, recursive=True, did_type="all") == [*"abcde", "top"]
    assert found({"length.gte": 2}) == ["d", "top"]
    with pytest.raises(exception.RucioException):
        found({"exposure.like": 9})


@pytest.mark.client_method("DIDClient.list_dids_extended")
def test_the_old_search_is_refused_by_the_client_itself(client, tree):
    with pytest.raises(exception.DeprecationError):
        client.list_dids_extended(tree, {})


@pytest.mark.client_method("DIDClient.scope_list")
def test_a_scope_from_its_tops_down(client, tree):
    assert names_in(client.scope_list(tree)) == ["top"]
    below = list(client.scope_list(tree, "top", recursive=True))
    assert names_in(below) == [*"abcde"]
    parents = {row["name"]: row["parent"] for row in below if row["type"] == "FILE"}
    assert {name: parent["name"] for name, parent in parents.items()} == {"a": "d", "b": "d", "c": "e"}
    with pytest.raises(exception.DataIdentifierNotFound):
        list(client.scope_list(tree, "missing"))


@pytest.mark.client_method(
    "DIDClient.add_datasets_to_containers",
    "DIDClient.add_containers_to_container",
    "DIDClient.add_containers_to_containers",
)
def test_collections_into_collections(client, tree):
    client.add_containers(keys(tree, "one", "two", "three"))
    client.add_datasets(keys(tree, "f", "g"))
    assert client.add_datasets_to_containers(
        [
            {"scope": tree, "name": "one", "dids": keys(tree, "f")},
            {"scope": tree, "name": "two", "dids": keys(tree, "f", "g")},
        ]
    )
    assert client.add_containers_to_container(tree, "three", keys(tree, "one"))
    assert client.add_containers_to_containers([{"scope": tree, "name": "three", "dids": keys(tree, "two")}])
    assert names_in(client.list_content(tree, "three")) == ["one", "two"]
    assert names_in(client.list_content(tree, "two")) == ["f", "g"]
    with pytest.raises(exception.UnsupportedOperation, match="circular"):
        client.add_containers_to_container(tree, "one", keys(tree, "three"))


@pytest.mark.client_method("DIDClient.list_content_history")
def test_what_was_held_once_is_told(client, tree):
    client.detach_dids(tree, "d", keys(tree, "b"))
    gone = {row["name"]: row["deleted_at"] is not None for row in client.list_content_history(tree, "d")}
    assert gone["b"] is True
    assert names_in(client.list_content(tree, "d")) == ["a"]
    with pytest.raises(exception.DataIdentifierNotFound):
        list(client.list_content_history(tree, "missing"))


@pytest.mark.client_method("DIDClient.create_did_sample")
def test_a_sample_is_a_dataset_of_some_files(client, tree):
    assert client.create_did_sample(tree, "top", tree, "sample", 2)
    drawn = names_in(client.list_files(tree, "sample"))
    assert len(set(drawn)) == 2
    assert set(drawn) <= {"a", "b", "c"}
    with pytest.raises(exception.DataIdentifierNotFound):
        client.create_did_sample(tree, "missing", tree, "another", 1)


@pytest.mark.client_method("DIDClient.get_dataset_by_guid")
def test_the_datasets_of_a_guid(client, tree):
    guid = uuid5(NAMESPACE_URL, tree).hex.upper()
    client.set_metadata(tree, "a", "guid", guid)
    assert names_in(client.get_dataset_by_guid(guid)) == ["d"]
    with pytest.raises(exception.DataIdentifierNotFound):
        list(client.get_dataset_by_guid("0" * 32))


@pytest.mark.client_method("DIDClient.resurrect")
def test_what_was_erased_comes_back(official, client, tree):
    client.set_metadata(tree, "e", "night", 20241108)
    client.set_metadata(tree, "e", "lifetime", -1)
    assert erase_expired_collections(official.registry.context) >= 1
    with pytest.raises(exception.DataIdentifierNotFound):
        client.get_did(tree, "e")
    assert client.resurrect(keys(tree, "e"))
    assert client.get_metadata(tree, "e", plugin="JSON") == {"night": 20241108}
    with pytest.raises(exception.DataIdentifierAlreadyExists):
        client.resurrect(keys(tree, "e"))
    with pytest.raises(exception.DataIdentifierNotFound):
        client.resurrect(keys(tree, "never"))


def test_metadata_go_down_the_tree_and_keep_their_types(client, tree):
    values = {"i": 2**53, "f": 0.5, "b": False, "s": "é☃", "n": None, "l": [1, {"x": "y"}], "o": {"k": []}}
    assert client.set_metadata_bulk(tree, "top", values, recursive=True)
    for name in ("top", "d", "a", "c"):
        assert client.get_metadata(tree, name, plugin="JSON") == values
    [inherited] = client.get_metadata_bulk(keys(tree, "c"), inherit=True, plugin="JSON")
    assert {key: inherited[key] for key in values} == values


def test_a_monotonic_collection_only_grows(client, scope, rse):
    client.add_replicas(rse, files(scope, "a"))
    client.add_dataset(scope, "m", statuses={"monotonic": True})
    client.attach_dids(scope, "m", keys(scope, "a"))
    with pytest.raises(exception.UnsupportedOperation, match="monotonic"):
        client.detach_dids(scope, "m", keys(scope, "a"))


def test_ten_thousand_in_one_call_and_no_more(client, scope):
    assert client.add_datasets(keys(scope, *(f"d{number}" for number in range(10_000))))
    assert len(list(client.list_dids(scope, {"name": "d*"}))) == 10_000
    with pytest.raises(exception.RucioException, match="10000"):
        client.add_datasets(keys(scope, *(f"e{number}" for number in range(10_001))))
    assert list(client.list_dids(scope, {"name": "e*"})) == []
