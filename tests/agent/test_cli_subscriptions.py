"""`arriero subscription`: adding, changing, showing, and having DIDs looked at again."""

from __future__ import annotations

import json

import pytest

from arriero.scheduler.subscribe import Subscriber
from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment

FILTER = ("--filter", '{"scope": "raw", "night": 20241108}')


def rule(expression: str) -> tuple[str, str]:
    return "--rule", json.dumps([{"rse_expression": expression, "copies": 1}])


@pytest.fixture(autouse=True)
def catalogue(environment, registry):
    support_cli.add_two_sites(registry)


def listed(cli, *words: str):
    return cli("-o", "json", "subscription", *words).json


def test_a_subscription_from_beginning_to_end(cli, registry):
    cli("did", "add", "raw:before", "--type", "dataset")
    key = {"meta": {"night": 20241108}}
    registry.client()._call("POST", "/dids/raw/before/meta", body=key)
    uuid = cli("subscription", "add", "nightly", *FILTER, *rule("IN2P3"), "--priority", "1").out.strip()
    [found] = listed(cli, "list")
    assert (found["id"], found["account"], found["state"], found["policyid"]) == (uuid, "root", "ACTIVE", 1)
    assert listed(cli, "show", "nightly", "--rules") == []
    cli("subscription", "update", "nightly", "--retroactive", "--comment", "the past too")
    [walk] = listed(cli, "show", "nightly", "--waiting")
    assert walk["remaining_dids"] is None or walk["remaining_dids"] >= 1
    Subscriber(registry.context).run()
    [made] = listed(cli, "show", "nightly", "--rules")
    assert (made["name"], made["rse_expression"], made["comments"]) == ("before", "IN2P3", "the past too")
    # what went is made again for who touches the DID
    cli("rule", "remove", made["id"], "--now")
    cli("subscription", "touch", "raw:before")
    Subscriber(registry.context).run()
    [again] = listed(cli, "show", "nightly", "--rules")
    assert again["id"] != made["id"]
    cli("subscription", "update", "nightly", "--state", "INACTIVE")
    found = listed(cli, "show", "nightly")
    assert (found["state"], found["comments"]) == ("INACTIVE", "the past too")


def test_what_is_wrong_is_said(cli):
    said = cli("subscription", "add", "x", "--filter", '{"pattern": "(a+)+"}', *rule("IN2P3"), expect=2)
    assert "for ever" in said.err
    assert "JSON list" in cli("subscription", "add", "x", *FILTER, "--rule", "{}", expect=2).err
    assert "what is to change" in cli("subscription", "update", "x", expect=2).err
    cli("subscription", "update", "x", "--state", "INACTIVE", expect=3)
    cli("subscription", "show", "x", "--waiting", expect=3)
    cli("subscription", "touch", "raw:nothing", expect=3)


def test_a_dry_run_makes_nothing(cli, registry):
    cli("subscription", "add", "try", "--filter", '{"pattern": "d"}', *rule("SLAC"), "--dry-run")
    cli("did", "add", "raw:d", "--type", "dataset")
    Subscriber(registry.context).run()
    found = listed(cli, "show", "try")
    assert "raw:d would get 1 on SLAC" in found["error"]
    assert listed(cli, "show", "try", "--rules") == []
    cli("subscription", "update", "try", "--no-dry-run", "--retroactive")
    Subscriber(registry.context).run()
    assert len(listed(cli, "show", "try", "--rules")) == 1
