"""What the official client asks for of subscriptions, by its methods and on its command line."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from rucio.common import exception

from arriero.scheduler.subscribe import Subscriber
from support.official import make_client
from support.official_data import files, keys, rse, scope

__all__ = ["rse", "scope"]

FILTER = {"scope": ["data"], "pattern": "raw.*", "did_type": ["DATASET"], "night": ["20241108", 5]}


@pytest.fixture
def templates(rse) -> list[dict]:
    return [{"rse_expression": rse, "copies": 1, "activity": "Express", "lifetime": 3600}]


@pytest.fixture
def name(official, client, templates) -> str:
    """A subscription of root."""
    made = official.unique("nightly")
    client.add_subscription(made, "root", FILTER, templates, "why", 30, retroactive=False, dry_run=False)
    return made


@pytest.mark.client_method("SubscriptionClient.add_subscription", "SubscriptionClient.list_subscriptions")
def test_add_and_list(official, client, templates):
    name = official.unique("nightly")
    uuid = client.add_subscription(
        name, "root", FILTER, templates, "why", 30, retroactive=False, dry_run=True, priority=2
    )
    assert len(uuid) == 32
    [found] = client.list_subscriptions(name=name, account="root")
    kept = ("id", "name", "account", "state", "policyid", "comments", "dry_run", "retroactive")
    assert [found[key] for key in kept] == [uuid, name, "root", "ACTIVE", 2, "why", True, False]
    assert json.loads(found["filter"]) == FILTER
    assert json.loads(found["replication_rules"]) == templates
    assert isinstance(found["lifetime"], datetime)
    assert [one["id"] for one in client.list_subscriptions(name=name)] == [uuid]
    assert uuid in [one["id"] for one in client.list_subscriptions(account="root")]
    assert uuid in [one["id"] for one in client.list_subscriptions()]
    assert client.list_subscriptions(name="missing", account="root") == []
    assert client.list_subscriptions(name="missing") == []
    with pytest.raises(exception.SubscriptionDuplicate):
        client.add_subscription(
            name, "root", FILTER, templates, "", lifetime=False, retroactive=False, dry_run=False
        )
    with pytest.raises(exception.AccountNotFound):
        client.add_subscription(
            name, "nobody", FILTER, templates, "", lifetime=False, retroactive=False, dry_run=False
        )


@pytest.mark.client_method(
    "SubscriptionClient.update_subscription", "SubscriptionClient.deactivate_subscription"
)
def test_update_and_deactivate(client, name, templates):
    assert client.update_subscription(
        name, account="root", filter_={"pattern": ".*"}, comments="new", priority=5, lifetime=False
    )
    [found] = client.list_subscriptions(name=name, account="root")
    assert json.loads(found["filter"]) == {"pattern": ".*"}
    assert json.loads(found["replication_rules"]) == templates
    assert (found["comments"], found["policyid"], found["lifetime"]) == ("new", 5, None)
    assert client.deactivate_subscription(name)
    [found] = client.list_subscriptions(name=name, account="root")
    assert found["state"] == "INACTIVE"
    for call in (client.update_subscription, client.deactivate_subscription):
        with pytest.raises(exception.SubscriptionNotFound):
            call("missing", account="root")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"filter_": {"pattern": "("}}, "filter: pattern"),
        ({"filter_": {"did_type": ["NIGHT"]}}, "filter: did_type"),
        ({"filter_": {"scope": []}}, "filter: scope"),
        ({"filter_": {"a b": "x"}}, "filter: 'a b'"),
        ({"filter_": {"night": {"a": 1}}}, "filter: night"),
        ({"filter_": {"min_avg_file_size": -1}}, "filter: min_avg_file_size"),
        ({"filter_": {"min_avg_file_size": 2, "max_avg_file_size": 1}}, "filter: max_avg_file_size"),
        ({"replication_rules": [{"copies": 1}]}, "replication_rules 1: rse_expression"),
        ({"replication_rules": [{"rse_expression": "*", "copies": "all"}]}, "replication_rules 1: copies"),
        ({"replication_rules": [{"rse_expression": "*", "copies": 1, "colour": 1}]}, "1: 'colour'"),
        ({"replication_rules": [{"rse_expression": "*", "copies": 1, "priority": 9}]}, "1: priority"),
        ({"replication_rules": [{"rse_expression": "*", "copies": 1, "lifetime": "x"}]}, "1: lifetime"),
        ({"priority": 11}, "priority"),
        ({"lifetime": -1}, "lifetime"),
    ],
)
def test_what_is_wrong_is_named(client, name, options, key):
    [before] = client.list_subscriptions(name=name, account="root")
    with pytest.raises(exception.InvalidObject) as refused:
        client.update_subscription(name, account="root", comments="changed", **options)
    assert key in str(refused.value)
    with pytest.raises(exception.InvalidRSEExpression):
        client.update_subscription(
            name, account="root", replication_rules=[{"rse_expression": "NOWHERE|", "copies": "*"}]
        )
    assert list(client.list_subscriptions(name=name, account="root")) == [before]


@pytest.mark.client_method(
    "SubscriptionClient.list_subscription_rules", "SubscriptionClient.list_subscription_rule_states"
)
def test_rules_and_their_states(client, scope, rse, name):
    client.add_replicas(rse, files(scope, "a"))
    assert list(client.list_subscription_rules("root", name)) == []
    assert list(client.list_subscription_rule_states("root", name)) == []
    [found] = client.list_subscriptions(name=name, account="root")
    answered = client.session.post(
        f"{client.host}/rules/",
        json={
            "dids": keys(scope, "a"),
            "copies": 1,
            "rse_expression": rse,
            "subscription_id": found["id"],
        },
        headers={"X-Rucio-Auth-Token": client.auth_token},
        timeout=20,
    )
    [rule] = answered.json()
    [of_it] = client.list_subscription_rules("root", name)
    assert (of_it["id"], of_it["subscription_id"]) == (rule, found["id"])
    assert [one["id"] for one in client.list_replication_rules({"subscription_id": found["id"]})] == [rule]
    counted = {"account": "root", "name": name, "state": "INJECT", "count": 1}
    assert list(client.list_subscription_rule_states("root", name)) == [counted]
    assert counted in list(client.list_subscription_rule_states("root"))
    [detailed] = client.list_subscription_rule_states("root", name, include_details=True)
    assert (detailed["subscription_state"], detailed["comments"]) == ("ACTIVE", "why")
    with pytest.raises(exception.SubscriptionNotFound):
        list(client.list_subscription_rules("root", "missing"))
    assert list(client.list_subscription_rule_states("root", "missing")) == []


def test_only_ones_own(official, client, name, templates, monkeypatch):
    person = official.unique("person")
    client.add_account(person, "USER", "p@example.org")
    client.add_identity(person, person, "USERPASS", "x@example.org", True, "a long password")
    theirs = make_client(official, monkeypatch, person, "a long password")
    options = {"lifetime": False, "retroactive": False, "dry_run": False}
    assert theirs.add_subscription("mine", person, FILTER, templates, "", **options)
    with pytest.raises(exception.AccessDenied):
        theirs.add_subscription("mine", "root", FILTER, templates, "", **options)
    with pytest.raises(exception.AccessDenied):
        theirs.update_subscription(name, account="root", comments="mine")


@pytest.mark.rucio_command("subscription touch")
def test_subscriptions_make_rules(official, client, scope, rse, templates):
    """When a DID appears, when its metadata comes, and again when it is touched."""
    name = official.unique("late")
    took = {"scope": [f"{scope}$"], "night": [20241108]}
    client.add_subscription(
        name, "root", took, templates, "", lifetime=False, retroactive=False, dry_run=False, priority=0
    )
    for dataset in ("d", "e"):
        client.add_dataset(scope, dataset)
    client.set_metadata(scope, "d", "night", 20241108)
    Subscriber(official.registry.context).run()
    [rule] = client.list_subscription_rules("root", name)
    assert (rule["name"], rule["rse_expression"], rule["activity"]) == ("d", rse, "Express")
    official.registry.client().delete_replication_rule(rule["id"], now=True)
    said = official.cli("subscription", "touch", f"{scope}:d")
    assert "error" not in said.lower()
    Subscriber(official.registry.context).run()
    [again] = client.list_subscription_rules("root", name)
    assert again["id"] != rule["id"]
    client.deactivate_subscription(name)


@pytest.mark.rucio_command(
    "subscription add", "subscription list", "subscription show", "subscription update"
)
def test_the_command_line(official, client, rse):
    name = official.unique("nightly")
    templates = json.dumps([{"rse_expression": rse, "copies": 1, "activity": "Express"}])
    did_filter = ("--filter", json.dumps(FILTER))
    said = official.cli("subscription", "add", name, *did_filter, "--rule", templates, "--priority", "2")
    assert "Subscription added" in said
    assert f"root: {name} ACTIVE" in official.cli("subscription", "list")
    shown = official.cli("subscription", "show", name)
    assert "priority: 2" in shown
    assert "raw.*" in shown
    wider = ("--filter", '{"pattern": ".*"}')
    official.cli("subscription", "update", name, *wider, "--rule", templates, "--comment", "wider")
    long = official.cli("subscription", "show", name, "--long")
    assert "comments: wider" in long
    # this command of the official client says that it failed, and ends with 0
    said = official.cli("subscription", "add", name, *did_filter, "--rule", templates)
    assert "already" in said
