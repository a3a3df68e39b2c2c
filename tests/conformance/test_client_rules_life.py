"""The life of a rule as the official client drives it: filters, changes, approval, moves, reductions, history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rucio.common import exception

from arriero.rse.errors import Unavailable
from support.official import make_client
from support.official_data import DAVS, files, keys, rse, scope
from support.official_rules import copy, evaluate, sweep

__all__ = ["rse", "scope"]


@pytest.fixture
def dataset(client, scope, rse) -> dict:
    client.add_replicas(rse, files(scope, "a", "b"))
    client.add_dataset(scope, "d")
    client.attach_dids(scope, "d", keys(scope, "a", "b"))
    return {"scope": scope, "name": "d"}


@pytest.fixture
def there(official, client) -> str:
    """Another RSE that can be copied to."""
    name = official.unique("SITE") + "_DISK"
    client.add_rse(name)
    client.add_protocol(name, dict(DAVS))
    return name


@pytest.fixture
def someone(official, client, monkeypatch):
    """A client of an account of its own."""
    name = official.unique("person")
    client.add_account(name, "USER", "p@example.org")
    client.add_identity(name, name, "USERPASS", "x@example.org", True, "a long password")
    return make_client(official, monkeypatch, name, "a long password")


def test_every_field_of_a_new_rule(client, dataset, rse, there):
    client.add_rse_attribute(rse, "quota", "2")
    client.add_rse_attribute(there, "quota", "1")
    options = {
        "priority": 5,
        "lifetime": 3600,
        "grouping": "ALL",
        "notify": "P",
        "source_replica_expression": rse,
        "activity": "Express",
        "account": "root",
        "meta": {"night": [20241108, "é"]},
        "ignore_availability": True,
        "purge_replicas": True,
        "asynchronous": True,
        "locked": True,
        "delay_injection": 60,
        "comment": "why",
        "weight": "quota",
    }
    [rule] = client.add_replication_rule([dataset], 1, f"{rse}|{there}", **options)
    found = client.get_replication_rule(rule)
    same = set(options) - {"lifetime", "notify", "asynchronous", "delay_injection", "comment"}
    assert {key: found[key] for key in same} == {key: options[key] for key in same}
    assert (found["comments"], found["notification"], found["state"]) == ("why", "PROGRESS", "INJECT")
    client.add_rse_attribute(there, "wrong", "much")
    with pytest.raises(exception.InvalidRuleWeight):
        client.add_replication_rule([dataset], 1, f"{there}|{rse}", weight="wrong")
    with pytest.raises(exception.InsufficientTargetRSEs):
        client.add_rse_attribute(rse, "only", "1")
        client.add_replication_rule([dataset], 2, f"{there}|{rse}", weight="only")


def test_many_dids_in_one_call(client, scope, rse):
    names = [f"f{number}" for number in range(50)]
    client.add_replicas(rse, files(scope, *names))
    rules = client.add_replication_rule(keys(scope, *names), 1, rse)
    assert [client.get_replication_rule(rules[at])["name"] for at in (0, 49)] == ["f0", "f49"]
    with pytest.raises(exception.DuplicateRule, match="f7"):
        client.add_replication_rule(keys(scope, "f7"), 1, rse)


@pytest.mark.client_method("RuleClient.list_replication_rules")
def test_every_filter(client, dataset, rse):
    [rule] = client.add_replication_rule([dataset], 1, rse, activity="Express", locked=True, grouping="NONE")
    now = datetime.now(tz=UTC)
    rucio = "%a, %d %b %Y %H:%M:%S UTC"
    early, late = ((now + timedelta(hours=hours)) for hours in (-1, 1))
    matching = {
        "id": rule,
        "account": "root",
        "name": "d",
        "state": "I",
        "rse_expression": rse,
        "activity": "Express",
        "did_type": "DATASET",
        "grouping": "N",
        "locked": True,
        "copies": 1,
        "priority": 3,
        "created_before": late.strftime(rucio),
        "created_after": early.isoformat(),
        "updated_before": late.strftime(rucio),
        "updated_after": early.strftime(rucio),
        "purge_replicas": False,
        "ignore_availability": "false",
    }
    for key, value in matching.items():
        found = client.list_replication_rules({"scope": dataset["scope"], key: value})
        assert [row["id"] for row in found] == [rule], key
    pattern = f"{dataset['scope'][:-1]}*"
    assert rule in [row["id"] for row in client.list_replication_rules({"scope": pattern, "account": "ro*"})]
    for key, value in {
        "state": "OK",
        "locked": False,
        "created_before": early.strftime(rucio),
        "updated_after": late.strftime(rucio),
        "did_type": "FILE",
        "scope": "nowhere",
        "subscription_id": "0" * 32,
    }.items():
        assert list(client.list_replication_rules({"id": rule, key: value})) == [], key
    for key, value in {
        "locked": "perhaps",
        "created_before": "soon",
        "updated_after": "0001-01-01T00:00+14:00",
        "copies": "x",
        "colour": "red",
    }.items():
        with pytest.raises(exception.InputValidationError):
            list(client.list_replication_rules({key: value}))


@pytest.mark.client_method("RuleClient.update_replication_rule")
def test_every_change(official, client, someone, dataset, rse, there):
    [rule] = client.add_replication_rule([dataset], 1, there)
    evaluate(official)
    changes = {
        "comment": "new",
        "meta": {"k": "v"},
        "priority": 5,
        "activity": "Express",
        "locked": True,
        "purge_replicas": True,
        "source_replica_expression": rse,
    }
    assert client.update_replication_rule(rule, changes)
    found = client.get_replication_rule(rule)
    assert {key: found[key] for key in changes if key != "comment"} == {
        key: value for key, value in changes.items() if key != "comment"
    }
    request = client.list_request_by_did("a", there, dataset["scope"])
    assert (request["priority"], request["activity"]) == (5, "Express")
    for lifetime in (60, -60):
        client.update_replication_rule(rule, {"lifetime": lifetime})
        expires = client.get_replication_rule(rule)["expires_at"]
        assert (expires > datetime.now(tz=UTC).replace(tzinfo=None)) is (lifetime > 0)
    client.update_replication_rule(rule, {"lifetime": None, "locked": False})
    assert client.get_replication_rule(rule)["expires_at"] is None
    client.update_replication_rule(rule, {"state": "SUSPENDED", "cancel_requests": True})
    assert client.get_replication_rule(rule)["state"] == "SUSPENDED"
    with pytest.raises(exception.RequestNotFound):
        client.list_request_by_did("a", there, dataset["scope"])
    client.update_replication_rule(rule, {"state": "INJECT"})
    evaluate(official)
    assert client.get_replication_rule(rule)["state"] == "REPLICATING"
    client.update_replication_rule(rule, {"state": "STUCK", "cancel_requests": True})
    assert client.get_replication_rule(rule)["state"] == "STUCK"
    client.update_replication_rule(rule, {"boost_rule": True})
    evaluate(official)
    assert client.get_replication_rule(rule)["state"] == "REPLICATING"
    client.update_replication_rule(rule, {"account": someone.account})
    assert client.get_replication_rule(rule)["account"] == someone.account
    with pytest.raises(exception.UnsupportedOperation):
        client.update_replication_rule(rule, {"comment": "no", "copies": 3})
    with pytest.raises(exception.UnsupportedOperation):
        client.update_replication_rule(rule, {"comment": "no", "eol_at": "2030-01-01"})
    with pytest.raises(exception.RuleNotFound):
        client.update_replication_rule("0" * 32, {"comment": "no"})
    with pytest.raises(exception.AccessDenied):
        someone.update_replication_rule(rule, {"account": "root"})
    assert client.get_replication_rule(rule)["comments"] == "new"


@pytest.mark.client_method("RuleClient.approve_replication_rule", "RuleClient.deny_replication_rule")
def test_approval(official, client, someone, dataset, there):
    rules = [
        client.add_replication_rule([dataset], 1, expression, ask_approval=True)[0]
        for expression in (there, f"{there}|{there}")
    ]
    evaluate(official)
    assert client.get_replication_rule(rules[0])["state"] == "WAITING_APPROVAL"
    for call in (someone.approve_replication_rule, someone.deny_replication_rule):
        with pytest.raises(exception.AccessDenied):
            call(rules[0])
    # who looks after the RSE may
    client.add_rse_attribute(there, "rule_approvers", f"nobody,{someone.account}")
    assert someone.approve_replication_rule(rules[0])
    assert client.get_replication_rule(rules[0])["state"] == "INJECT"
    assert someone.deny_replication_rule(rules[1], reason="too much")
    with pytest.raises(exception.RuleNotFound):
        client.get_replication_rule(rules[1])
    history = list(client.list_replication_rule_full_history(dataset["scope"], "d"))
    assert history[-1]["reason"] == "denied: too much"
    with pytest.raises(exception.InvalidReplicationRule):
        client.approve_replication_rule(rules[0])
    with pytest.raises(exception.RuleNotFound):
        client.approve_replication_rule(rules[1])
    client.add_rse_attribute(there, "block_manual_approval", "True")
    with pytest.raises(exception.ManualRuleApprovalBlocked):
        client.add_replication_rule([dataset], 1, f"{there}&{there}", ask_approval=True)


@pytest.mark.client_method("RuleClient.move_replication_rule")
def test_move(official, client, someone, dataset, rse, there):
    [parent] = client.add_replication_rule([dataset], 1, rse, activity="Express")
    evaluate(official)
    with pytest.raises(exception.AccessDenied):
        someone.move_replication_rule(parent, there, {})
    with pytest.raises(exception.UnsupportedOperation):
        client.move_replication_rule(parent, there, {"dids": []})
    with pytest.raises(exception.RuleReplaceFailed):
        client.move_replication_rule(parent, rse, {})
    with pytest.raises(exception.InvalidRSEExpression):
        client.move_replication_rule(parent, "NOWHERE", {})
    child = client.move_replication_rule(parent, there, {"comment": "moved", "priority": 5})
    found = client.get_replication_rule(child)
    assert (found["activity"], found["comments"], found["priority"]) == ("Express", "moved", 5)
    assert client.get_replication_rule(parent)["child_rule_id"] == child
    with pytest.raises(exception.RuleReplaceFailed):
        client.move_replication_rule(parent, there, {})
    with pytest.raises(exception.UnsupportedOperation):
        client.delete_replication_rule(parent)
    evaluate(official)
    sweep(official)
    assert client.get_replication_rule(parent)["state"] == "OK"
    copy(official)
    sweep(official)
    with pytest.raises(exception.RuleNotFound):
        client.get_replication_rule(parent)
    assert client.get_replication_rule(child)["state"] == "OK"
    with pytest.raises(exception.RuleNotFound):
        client.move_replication_rule(parent, there, {})


@pytest.mark.client_method("RuleClient.reduce_replication_rule")
def test_reduce(official, client, dataset, rse, there):
    [old] = client.add_replication_rule([dataset], 2, f"{rse}|{there}")
    evaluate(official)
    with pytest.raises(exception.RuleReplaceFailed, match="too few copies"):
        client.reduce_replication_rule(old, 1, exclude_expression=rse)
    with pytest.raises(exception.RuleReplaceFailed, match="not fewer"):
        client.reduce_replication_rule(old, 2)
    with pytest.raises(exception.InvalidRSEExpression):
        client.reduce_replication_rule(old, 1, exclude_expression=f"{rse}|{there}")
    copy(official)
    new = client.reduce_replication_rule(old, 1, exclude_expression=rse)
    found = client.get_replication_rule(new)
    assert (found["state"], found["copies"], found["locks_ok_cnt"]) == ("OK", 1, 2)
    assert {lock["rse"] for lock in client.list_replica_locks(new)} == {there}
    with pytest.raises(exception.RuleNotFound):
        client.reduce_replication_rule(old, 1)


@pytest.mark.client_method("RuleClient.examine_replication_rule")
def test_examine(official, client, dataset, rse, there):
    [rule] = client.add_replication_rule([dataset], 1, there)
    assert client.examine_replication_rule(rule)["rule_error"].startswith("This replication rule is INJECT")
    evaluate(official)
    assert client.examine_replication_rule(rule) == {
        "rule_error": "This replication rule is currently REPLICATING",
        "transfers": [],
        "transfers_total": 0,
    }

    def fails(planned):
        return None if planned.order.source_path.endswith("/b") else _gone()

    copy(official, fails)
    found = client.examine_replication_rule(rule)
    assert "STUCK" in found["rule_error"]
    [transfer] = found["transfers"]
    assert (transfer["scope"], transfer["name"], transfer["rse"]) == (dataset["scope"], "a", there)
    assert (transfer["attempts"], transfer["last_source"]) == (1, rse)
    assert "is not there" in transfer["last_error"]
    assert transfer["sources"] == [[rse, True]]
    assert transfer["last_time"] is not None
    with pytest.raises(exception.RuleNotFound):
        client.examine_replication_rule("0" * 32)


def _gone() -> Unavailable:
    error = Unavailable("it is not there")
    error.retryable = False
    return error


@pytest.mark.client_method("RuleClient.list_replication_rule_full_history")
def test_the_history_of_a_did(official, client, dataset, rse, there):
    assert list(client.list_replication_rule_full_history(dataset["scope"], "d")) == []
    [first] = client.add_replication_rule([dataset], 1, rse)
    [second] = client.add_replication_rule([dataset], 1, there)
    evaluate(official)
    client.update_replication_rule(first, {"lifetime": -1})
    sweep(official)
    lived = list(client.list_replication_rule_full_history(dataset["scope"], "d"))
    assert [row["rule_id"] for row in lived] == [first, second, first]
    assert [row["state"] for row in lived] == ["INJECT", "INJECT", "OK"]
    assert (lived[2]["locks_ok_cnt"], lived[2]["rse_expression"], lived[2]["account"]) == (2, rse, "root")
    assert lived[2]["updated_at"] >= lived[2]["created_at"]
    with pytest.raises(exception.RuleNotFound):
        list(client.list_replication_rule_full_history(dataset["scope"], "missing"))


def test_what_is_out(client, dataset, rse):
    headers = {"X-Rucio-Auth-Token": client.auth_token}
    body = {"dids": [dataset], "copies": 1, "rse_expression": rse}
    for option in ({"split_container": True}, {"eol_at": "2030-01-01"}):
        answered = client.session.post(
            f"{client.host}/rules/", json={**body, **option}, headers=headers, timeout=20
        )
        assert answered.status_code == 501
        assert answered.headers["ExceptionClass"] == "UnsupportedOperation"
    assert list(client.list_did_rules(dataset["scope"], "d")) == []
