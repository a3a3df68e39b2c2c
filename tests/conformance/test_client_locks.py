"""What the official client asks for of locks."""

from __future__ import annotations

import pytest
from rucio.common import exception

from support.official_data import files, keys, rse, scope
from support.official_rules import evaluate

__all__ = ["rse", "scope"]


@pytest.fixture
def placed(official, client, scope, rse) -> dict[str, str]:
    """A container of two datasets with a rule each kind on them, evaluated."""
    client.add_replicas(rse, files(scope, "a", "b", "c"))
    for name, held in (("d 1/x", ("a", "b")), ("d2", ("c",))):
        client.add_dataset(scope, name)
        client.attach_dids(scope, name, keys(scope, *held))
    client.add_container(scope, "top")
    client.attach_dids(scope, "top", keys(scope, "d 1/x", "d2"))
    [each] = client.add_replication_rule(keys(scope, "d 1/x"), 1, rse)
    [whole] = client.add_replication_rule(keys(scope, "top"), 1, rse, grouping="ALL")
    evaluate(official)
    return {"each": each, "whole": whole}


@pytest.mark.client_method("LockClient.get_dataset_locks")
def test_dataset_locks(client, scope, rse, placed):
    found = list(client.get_dataset_locks(scope, "d 1/x"))
    assert {lock["rule_id"] for lock in found} == set(placed.values())
    for lock in found:
        assert (lock["scope"], lock["name"], lock["rse"], lock["state"]) == (scope, "d 1/x", rse, "OK")
        assert (lock["length"], lock["bytes"], lock["account"]) == (2, 5760, "root")
        assert lock["accessed_at"] is None
    # a container's are those of the datasets below
    below = list(client.get_dataset_locks(scope, "top"))
    assert sorted((lock["name"], lock["rule_id"]) for lock in below) == sorted(
        [("d 1/x", placed["each"]), ("d 1/x", placed["whole"]), ("d2", placed["whole"])]
    )
    with pytest.raises(exception.DataIdentifierNotFound):
        list(client.get_dataset_locks(scope, "missing"))


@pytest.mark.client_method("LockClient.get_locks_for_dids")
def test_locks_of_many_dids(client, scope, rse, placed):
    asked = [{**key, "type": "dataset"} for key in keys(scope, "d 1/x", "d2")]
    found = client.get_locks_for_dids(asked)
    assert len(found) == 3
    # each once, however often it is named
    assert len(client.get_locks_for_dids([*asked, {**keys(scope, "top")[0], "type": "container"}])) == 3
    assert [lock["name"] for lock in client.get_locks_for_dids(asked, rule_id=placed["each"])] == ["d 1/x"]
    assert client.get_locks_for_dids(asked, rse="ELSEWHERE") == []
    assert client.get_locks_for_dids([]) == []
    with pytest.raises(exception.RucioException):
        client.get_locks_for_dids(keys(scope, "missing"))


@pytest.mark.client_method("LockClient.get_dataset_locks_by_rse")
def test_dataset_locks_at_an_rse(official, client, scope, rse, placed):
    found = sorted((lock["name"], lock["rule_id"]) for lock in client.get_dataset_locks_by_rse(rse))
    assert found == sorted([("d 1/x", placed["each"]), ("d 1/x", placed["whole"]), ("d2", placed["whole"])])
    empty = official.unique("SITE") + "_DISK"
    client.add_rse(empty)
    assert list(client.get_dataset_locks_by_rse(empty)) == []
    with pytest.raises(exception.RSENotFound):
        list(client.get_dataset_locks_by_rse("NOWHERE"))


@pytest.mark.client_method("RuleClient.list_replica_locks")
def test_locks_of_a_rule(client, scope, rse, placed):
    found = list(client.list_replica_locks(placed["whole"]))
    assert sorted(lock["name"] for lock in found) == ["a", "b", "c"]
    assert {(lock["rse"], lock["state"], lock["rule_id"]) for lock in found} == {(rse, "OK", placed["whole"])}
    with pytest.raises(exception.RuleNotFound):
        list(client.list_replica_locks("0" * 32))
