"""What the official client asks for of replicas and rules, method by method, and the errors that it raises."""

from __future__ import annotations

from datetime import datetime

import pytest
from rucio.common import exception

from support.official_data import DAVS, files, keys, rse, scope

__all__ = ["rse", "scope"]


class TestReplicas:
    def test_add_replicas_once_and_again(self, client, scope, rse):
        new = [{**file, "meta": {"rubin_butler": "raw"}, "md5": "0" * 32} for file in files(scope, "a", "b")]
        assert client.add_replicas(rse, new)
        assert client.add_replicas(rse, new)
        assert client.add_replica(rse, scope, "c", 5, "0000002a")
        assert client.get_metadata(scope, "a", plugin="JSON") == {"rubin_butler": "raw"}
        found = client.get_did(scope, "a")
        assert (found["bytes"], found["adler32"], found["md5"]) == (2880, "0000002a", "0" * 32)
        with pytest.raises(exception.FileConsistencyMismatch):
            client.add_replica(rse, scope, "c", 6, "0000002a")
        with pytest.raises(exception.RSENotFound):
            client.add_replica("NOWHERE", scope, "d", 5, "0000002a")
        with pytest.raises(exception.ScopeNotFound):
            client.add_replica(rse, "nowhere", "d", 5, "0000002a")
        with pytest.raises(exception.InvalidObject):
            client.add_replica(rse, scope, "../d", 5, "0000002a")

    def test_list_replicas_with_pfns(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "x/a b.fits"))
        [found] = client.list_replicas(keys(scope, "x/a b.fits"), schemes=["davs"], rse_expression=rse)
        pfn = f"davs://dav.example.org:1094/data/{scope}/x/a%20b.fits"
        assert found["rses"] == {rse: [pfn]}
        assert (found["pfns"][pfn]["rse"], found["pfns"][pfn]["domain"]) == (rse, "wan")
        assert (found["bytes"], found["adler32"]) == (2880, "0000002a")
        [elsewhere] = client.list_replicas(keys(scope, "x/a b.fits"), schemes=["root"])
        assert elsewhere["pfns"] == {}

    def test_states_as_an_upload_sets_them(self, client, scope, rse):
        client.add_replicas(rse, [{**files(scope, "a")[0], "state": "C"}])
        [copying] = client.list_replicas(keys(scope, "a"), all_states=True)
        assert copying["states"] == {rse: "COPYING"}
        assert client.update_replicas_states(rse, [{"scope": scope, "name": "a", "state": "A"}])
        [there] = client.list_replicas(keys(scope, "a"))
        assert there["states"] == {rse: "AVAILABLE"}

    def test_dataset_replicas(self, client, scope, rse):
        client.add_replicas(rse, files(scope, "a", "b"))
        client.add_dataset(scope, "d")
        client.attach_dids(scope, "d", keys(scope, "a", "b"))
        [row] = client.list_dataset_replicas(scope, "d")
        assert (row["rse"], row["available_length"], row["length"], row["state"]) == (rse, 2, 2, "AVAILABLE")

    def test_a_pfn_where_there_is_no_rule_for_paths(self, official, client, scope):
        name = official.unique("TAPE")
        client.add_rse(name, deterministic=False)
        client.add_protocol(name, dict(DAVS))
        pfn = "davs://dav.example.org:1094/data/by/hand.fits"
        client.add_replica(name, scope, "a", 5, "0000002a", pfn=pfn)
        [found] = client.list_replicas(keys(scope, "a"))
        assert list(found["pfns"]) == [pfn]


class TestRules:
    @pytest.fixture
    def dataset(self, client, scope, rse) -> dict:
        client.add_replicas(rse, files(scope, "a"))
        client.add_dataset(scope, "d")
        client.attach_dids(scope, "d", keys(scope, "a"))
        return {"scope": scope, "name": "d"}

    @pytest.mark.client_method(
        "RuleClient.add_replication_rule",
        "RuleClient.get_replication_rule",
        "RuleClient.list_replication_rules",
    )
    def test_add_get_list(self, client, dataset, rse):
        options = {
            "lifetime": 3600,
            "grouping": "NONE",
            "notify": "Y",
            "priority": 2,
            "activity": "Production",
            "comment": "why",
            "meta": '{"k": "v"}',
            "source_replica_expression": rse,
        }
        [rule] = client.add_replication_rule([dataset], 1, rse, **options)
        described = client.get_replication_rule(rule)
        assert described["id"] == rule
        kept = (
            "grouping",
            "notification",
            "priority",
            "activity",
            "comments",
            "meta",
            "source_replica_expression",
        )
        assert [described[key] for key in kept] == ["NONE", "YES", 2, "Production", "why", '{"k": "v"}', rse]
        assert described["state"] == "INJECT"
        assert isinstance(described["expires_at"], datetime)
        assert [row["id"] for row in client.list_replication_rules(dataset)] == [rule]
        assert rule in [row["id"] for row in client.list_account_rules("root")]
        assert list(client.list_replica_locks(rule)) == []

    def test_refusals(self, client, dataset, rse):
        client.add_replication_rule([dataset], 1, rse)
        with pytest.raises(exception.DuplicateRule):
            client.add_replication_rule([dataset], 1, rse)
        with pytest.raises(exception.InsufficientTargetRSEs):
            client.add_replication_rule([dataset], 2, rse)
        with pytest.raises(exception.InvalidRSEExpression):
            client.add_replication_rule([dataset], 1, "NOWHERE")
        with pytest.raises(exception.InvalidSourceReplicaExpression):
            client.add_replication_rule([dataset], 1, rse, source_replica_expression="NOWHERE")
        with pytest.raises(exception.InvalidRuleWeight):
            client.add_replication_rule([dataset], 1, f"{rse}|{rse}", weight="none")
        with pytest.raises(exception.InvalidReplicationRule):
            client.add_replication_rule([dataset], 0, rse)
        with pytest.raises(exception.DataIdentifierNotFound):
            client.add_replication_rule([{**dataset, "name": "missing"}], 1, rse)
        with pytest.raises(exception.AccountNotFound):
            client.add_replication_rule([dataset], 1, rse, account="nobody")
        with pytest.raises(exception.RuleNotFound):
            client.get_replication_rule("0" * 32)
        client.update_rse(rse, {"availability_write": False})
        with pytest.raises(exception.RSEWriteBlocked):
            client.add_replication_rule([dataset], 1, f"{rse}&{rse}")

    @pytest.mark.client_method("RuleClient.update_replication_rule", "RuleClient.delete_replication_rule")
    def test_update_and_remove(self, client, dataset, rse):
        [rule] = client.add_replication_rule([dataset], 1, rse, locked=True)
        with pytest.raises(exception.UnsupportedOperation, match="locked"):
            client.delete_replication_rule(rule)
        assert client.update_replication_rule(rule, {"locked": False, "comment": "new", "priority": 1})
        assert client.get_replication_rule(rule)["comments"] == "new"
        assert client.delete_replication_rule(rule, purge_replicas=True)
        described = client.get_replication_rule(rule)
        assert described["purge_replicas"] is True
        assert described["expires_at"] > described["created_at"]

    @pytest.mark.client_method("RuleClient.approve_replication_rule")
    def test_approve(self, client, dataset, rse):
        [rule] = client.add_replication_rule([dataset], 1, rse, ask_approval=True)
        assert client.get_replication_rule(rule)["state"] == "WAITING_APPROVAL"
        assert client.approve_replication_rule(rule)
        assert client.get_replication_rule(rule)["state"] == "INJECT"
