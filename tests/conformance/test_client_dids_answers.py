"""DIDs by the official client: what comes with a new one, what lists answer to the letter, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rucio.common import exception

from arriero.registry import unsupported
from support.official import make_client
from support.official_data import files, keys, names_in, rse, scope
from support.official_rules import evaluate

__all__ = ["rse", "scope"]


@pytest.fixture
def held(client, scope, rse) -> str:
    """A scope of ``top`` > ``middle`` > ``d`` > ``a``, ``b``, and of the file ``loose`` beside them."""
    client.add_replicas(rse, files(scope, "a", "b", "loose"))
    client.add_dataset(scope, "d", files=keys(scope, "a", "b"))
    client.add_containers(keys(scope, "middle", "top"))
    client.add_datasets_to_container(scope, "middle", keys(scope, "d"))
    client.add_containers_to_container(scope, "top", keys(scope, "middle"))
    return scope


@pytest.mark.client_method("DIDClient.add_did", "DIDClient.add_dids")
def test_add_with_all_that_can_come_with_it(official, client, scope, rse):
    assert client.add_did(
        scope,
        "d",
        "DATASET",
        statuses={"monotonic": True},
        meta={"night": 20241108},
        rules=[{"copies": 1, "rse_expression": rse, "account": "root"}],
        lifetime=3600,
        dids=[{**files(scope, "new")[0], "meta": {"guid": "g"}}],
        rse=rse,
    )
    described = client.get_did(scope, "d", dynamic_depth="FILE")
    kept = ("type", "account", "open", "monotonic", "length", "bytes")
    assert [described[key] for key in kept] == ["DATASET", "root", True, True, 1, 2880]
    left = described["expired_at"] - datetime.now(UTC).replace(tzinfo=None)
    assert timedelta(seconds=3480) < left <= timedelta(seconds=3601)
    assert client.get_metadata(scope, "d", plugin="JSON") == {"night": 20241108}
    assert client.get_metadata(scope, "new")["guid"] == "g"
    [made] = client.list_did_rules(scope, "d")
    assert (made["rse_expression"], made["copies"]) == (rse, 1)
    evaluate(official)
    [above] = client.list_associated_rules_for_file(scope, "new")
    assert (above["id"], above["name"], above["state"]) == (made["id"], "d", "OK")


@pytest.mark.client_method("DIDClient.add_did", "DIDClient.add_dids")
def test_all_of_them_or_none(client, held):
    with pytest.raises(exception.DataIdentifierAlreadyExists):
        client.add_datasets(keys(held, "f", "d"))
    with pytest.raises(exception.DataIdentifierNotFound):
        client.add_dataset(held, "f", files=keys(held, "missing"))
    with pytest.raises(exception.UnsupportedOperation):
        client.add_did(held, "f", "FILE")
    with pytest.raises(exception.DataIdentifierNotFound):
        client.get_did(held, "f")
    with pytest.raises(exception.DataIdentifierNotFound):
        client.detach_dids(held, "d", keys(held, "a", "loose"))
    assert names_in(client.list_content(held, "d")) == ["a", "b"]


@pytest.mark.client_method("DIDClient.list_dids")
def test_search_goes_down_and_names_its_faults(client, held):
    below = [{"name": "top"}]
    assert list(client.list_dids(held, below, did_type="all", recursive=True)) == [
        *("a", "b", "d"),
        *("middle", "top"),
    ]
    # the type is asked of what lies below, too
    assert list(client.list_dids(held, below, recursive=True)) == ["d", "middle", "top"]
    [long] = client.list_dids(held, [{"name": "a"}], did_type="file", long=True)
    assert long == {"scope": held, "name": "a", "did_type": "FILE", "bytes": 2880, "length": 1}
    for where, filters, options, refused in (
        ("nowhere", {"name": "*"}, {}, exception.ScopeNotFound),
        (held, {"name": "*"}, {"did_type": "blob"}, exception.UnsupportedOperation),
        (held, {"night.near": "1"}, {}, exception.DIDFilterSyntaxError),
        (held, {"bytes.gt": "many"}, {}, exception.DIDFilterSyntaxError),
        (held, {"night": "1", "night.eq": "2"}, {}, exception.DuplicateCriteriaInDIDFilter),
    ):
        with pytest.raises(refused):
            list(client.list_dids(where, [filters], **options))


@pytest.mark.client_method("DIDClient.list_files", "DIDClient.bulk_list_files", "DIDClient.list_parent_dids")
def test_lists_to_the_letter(client, held):
    [file, _] = sorted(client.list_files(held, "top", long=True), key=lambda row: row["name"])
    known = {"scope": held, "name": "a", "bytes": 2880, "adler32": "0000002a"}
    assert file == {**known, "md5": None, "guid": None, "events": None, "lumiblocknr": None}
    of_each = {
        (row["parent_name"], row["name"]) for row in client.bulk_list_files(keys(held, "top", "loose"))
    }
    assert of_each == {("loose", "loose"), ("top", "a"), ("top", "b")}
    [parent] = client.list_parent_dids(held, "d")
    assert (parent["scope"], parent["name"], parent["type"]) == (held, "middle", "CONTAINER")
    assert list(client.list_parent_dids(held, "top")) == []
    for call in (
        client.list_content,
        client.list_content_history,
        client.list_files,
        client.list_parent_dids,
        client.list_did_rules,
        client.get_metadata,
        client.close,
    ):
        with pytest.raises(exception.DataIdentifierNotFound):
            list(call(held, "missing"))
    with pytest.raises(exception.DataIdentifierNotFound):
        list(client.bulk_list_files(keys(held, "top", "missing")))


@pytest.mark.client_method("DIDClient.set_metadata", "DIDClient.get_metadata_bulk")
def test_metadata_is_inherited_and_refused(client, held):
    client.set_metadata(held, "top", "only", "above")
    wanted = keys(held, "a", "missing")
    [alone] = client.get_metadata_bulk(wanted, plugin="JSON")
    [heir] = client.get_metadata_bulk(wanted, inherit=True, plugin="JSON")
    assert ("only" in alone, heir["name"], heir["only"]) == (False, "a", "above")
    with pytest.raises(exception.DataIdentifierNotFound):
        client.set_dids_metadata_bulk([{**key, "meta": {"k": 1}} for key in keys(held, "d", "missing")])
    assert client.get_metadata(held, "d", plugin="JSON") == {}
    for key in ("account", "bytes", ""):
        with pytest.raises(exception.InvalidMetadata):
            client.set_metadata_bulk(held, "d", {key: "x"})
    with pytest.raises(exception.InvalidValueForKey):
        client.set_metadata(held, "d", "lifetime", "long")
    with pytest.raises(exception.UnsupportedMetadataPlugin):
        client.get_metadata(held, "d", plugin="MONGO")
    with pytest.raises(exception.UnsupportedStatus):
        client.set_status(held, "d", monotonic=True)
    with pytest.raises(exception.UnsupportedOperation):
        client.close(held, "a")


def test_others_read_and_change_nothing(official, client, held, monkeypatch):
    person = official.unique("person")
    client.add_account(person, "USER", "p@example.org")
    client.add_identity(person, person, "USERPASS", "x@example.org", True, "a long password")
    theirs = make_client(official, monkeypatch, person, "a long password")
    for call in (
        lambda: theirs.close(held, "d"),
        lambda: theirs.add_dataset(held, "theirs"),
        lambda: theirs.detach_dids(held, "d", keys(held, "a")),
        lambda: theirs.set_metadata(held, "d", "k", "v"),
        lambda: theirs.resurrect(keys(held, "d")),
    ):
        with pytest.raises(exception.AccessDenied):
            call()
    assert theirs.get_did(held, "d")["open"] is True
    assert names_in(theirs.list_content(held, "d")) == ["a", "b"]


def test_what_is_not_there_says_why(official, client, held):
    """The reasons of `not_yet` that need a DID which is there."""
    with pytest.raises(exception.UnsupportedOperation) as refused:
        client.add_files_to_archive(held, "a", keys(held, "b"))
    assert unsupported.ARCHIVES in str(refused.value)
