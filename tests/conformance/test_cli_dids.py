"""`rucio did ...`: the official command line against the registry."""

from __future__ import annotations

import pytest

from support.official_data import files, rse, scope

__all__ = ["rse", "scope"]


@pytest.fixture
def held(client, scope, rse) -> str:
    client.add_replicas(rse, files(scope, "a", "b"))
    return scope


@pytest.mark.rucio_command(
    "did add", "did show", "did list", "did content add", "did content list", "did content remove"
)
@pytest.mark.rucio_command("did content history")
def test_a_dataset_and_what_it_holds(official, client, held):
    dataset = f"{held}:d"
    official.cli("did", "add", "--type", "dataset", "--lifetime", "86400", dataset)
    official.cli("did", "content", "add", "--to-did", dataset, f"{held}:a", f"{held}:b")
    said = official.cli("did", "content", "list", "--short", dataset)
    assert f"{held}:a" in said
    assert f"{held}:b" in said
    assert "DATASET" in official.cli("did", "show", dataset)
    assert dataset in official.cli("did", "list", "--short", f"{held}:*")
    official.cli("did", "content", "remove", "--from-did", dataset, f"{held}:b")
    assert [row["name"] for row in client.list_content(held, "d")] == ["a"]
    assert f"{held}:b" in official.cli("did", "content", "history", dataset)


@pytest.mark.rucio_command("did metadata list", "did metadata unset", "did metadata set")
@pytest.mark.rucio_command("did remove", "did update")
def test_metadata_and_the_end_of_a_dataset(official, client, held):
    client.add_dataset(held, "d")
    dataset = f"{held}:d"
    official.cli("did", "metadata", "set", "--key", "night", "--value", "20241108", dataset)
    assert "20241108" in official.cli("did", "metadata", "list", "--plugin", "JSON", dataset)
    assert list(client.list_dids(held, {"night": 20241108})) == ["d"]
    official.cli("did", "metadata", "unset", "--key", "night", dataset)
    assert client.get_metadata(held, "d", plugin="JSON") == {}
    official.cli("did", "remove", dataset)
    assert client.get_did(held, "d")["expired_at"] is not None
    official.cli("did", "remove", "--undo", dataset)
    assert client.get_did(held, "d")["expired_at"] is None
    official.cli("did", "update", "--close", dataset)
    assert client.get_did(held, "d")["open"] is False
    official.cli("did", "update", "--open", dataset)
    assert client.get_did(held, "d")["open"] is True
