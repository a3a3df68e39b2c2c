"""What the official client asks for of requests and limits of transfers."""

from __future__ import annotations

from datetime import datetime

import pytest
from rucio.common import exception
from rucio.common.constants import TransferLimitDirection

from arriero.rse.errors import Unavailable
from support.official import make_client
from support.official_data import DAVS, files, keys, rse, scope
from support.official_rules import copy, evaluate

__all__ = ["rse", "scope"]


@pytest.fixture
def copies(official, client, scope, rse) -> dict[str, str]:
    """Two files that are to be copied from one RSE to another of other sites."""
    there = official.unique("SITE") + "_DISK"
    client.add_rse(there)
    client.add_protocol(there, dict(DAVS))
    sites = {rse: official.unique("slac"), there: official.unique("in2p3")}
    for name, site in sites.items():
        client.add_rse_attribute(name, "site", site)
    client.add_replicas(rse, files(scope, "x/a b.fits", "b"))
    client.add_dataset(scope, "d")
    client.attach_dids(scope, "d", keys(scope, "x/a b.fits", "b"))
    [rule] = client.add_replication_rule(keys(scope, "d"), 1, there, activity="Express", priority=4)
    evaluate(official)
    return {"there": there, "rule": rule, "from": sites[rse], "to": sites[there]}


@pytest.mark.client_method("RequestClient.list_request_by_did")
def test_the_request_for_a_file(client, scope, rse, copies):
    found = client.list_request_by_did("x/a b.fits", copies["there"], scope)
    assert (found["scope"], found["name"], found["dest_rse"]) == (scope, "x/a b.fits", copies["there"])
    assert (found["state"], found["request_type"], found["rule_id"]) == ("QUEUED", "TRANSFER", copies["rule"])
    assert (found["activity"], found["priority"], found["retry_count"]) == ("Express", 4, 0)
    assert (found["bytes"], found["adler32"], found["source_rse"]) == (2880, "0000002a", None)
    assert isinstance(found["created_at"], datetime)
    with pytest.raises(exception.RequestNotFound):
        client.list_request_by_did("b", rse, scope)
    with pytest.raises(exception.DataIdentifierNotFound):
        client.list_request_by_did("missing", rse, scope)
    with pytest.raises(exception.RSENotFound):
        client.list_request_by_did("b", "NOWHERE", scope)


@pytest.mark.client_method(
    "RequestClient.list_requests",
    "RequestClient.list_requests_history",
    "RequestClient.list_request_history_by_did",
)
def test_requests_and_their_history(official, client, scope, rse, copies):
    there = copies["there"]
    waiting = list(client.list_requests("", there, "Q,S"))
    assert sorted(one["name"] for one in waiting) == ["b", "x/a b.fits"]
    # none has a source before a worker takes it
    assert list(client.list_requests(rse, there, "Q")) == []
    assert list(client.list_requests("None", there, "W,N")) == []

    def fails(planned):
        return Unavailable("the storage is away") if planned.order.source_path.endswith("/b") else None

    copy(official, fails)
    [left] = client.list_requests("", there, "Q")
    assert left["name"] == "b"
    assert "away" in left["err_msg"]
    done = list(client.list_requests_history(rse, there, "D"))
    assert [(one["name"], one["source_rse"], one["state"]) for one in done] == [("x/a b.fits", rse, "DONE")]
    assert isinstance(done[0]["transferred_at"], datetime)
    assert list(client.list_requests_history(rse, there, "D", offset=1)) == []
    assert list(client.list_requests_history(rse, there, "D,F,Q", limit=0)) == []
    last = client.list_request_history_by_did("x/a b.fits", there, scope)
    assert (last["state"], last["source_rse"], last["rule_id"]) == ("DONE", rse, copies["rule"])
    with pytest.raises(exception.RequestNotFound):
        client.list_request_by_did("x/a b.fits", there, scope)


def test_requests_by_site_and_what_is_refused(client, copies):
    url = f"{client.host}/requests/list"
    session = client.session

    def ask(query: str, path: str = "list"):
        return session.get(
            f"{url.removesuffix('list')}{path}?{query}",
            headers={"X-Rucio-Auth-Token": client.auth_token},
            timeout=20,
        )

    answered = ask(f"request_states=Q&dst_site={copies['to']}")
    assert len(answered.text.splitlines()) == 2
    assert ask(f"request_states=Q&dst_site={copies['from']}").text == ""
    for query, status in (
        ("dst_rse=X", 400),
        ("request_states=Q", 400),
        ("request_states=happy&dst_rse=X", 400),
        ("request_states=Q&dst_rse=NOWHERE", 404),
        ("request_states=Q&dst_site=nowhere", 404),
    ):
        assert ask(query).status_code == status, query
    base = f"request_states=D&dst_rse={copies['there']}"
    for wrong in ("limit=-1", "limit=1e3", "limit=10001", "offset=x", f"offset={'9' * 30}"):
        assert ask(f"{base}&{wrong}", "history/list").status_code == 400, wrong


@pytest.mark.client_method(
    "RequestClient.list_transfer_limits",
    "RequestClient.set_transfer_limit",
    "RequestClient.delete_transfer_limit",
)
def test_limits_of_transfers(official, client, rse, monkeypatch):
    def limits():
        return [one for one in client.list_transfer_limits() if one["rse_expression"] == rse]

    assert limits() == []
    assert client.set_transfer_limit(
        rse, activity="Express", max_transfers=10, volume=10**12, deadline=4, strategy="grouped_fifo"
    )
    assert client.set_transfer_limit(rse, direction=TransferLimitDirection.SOURCE, max_transfers=5)
    assert client.set_transfer_limit(rse, activity="Express", max_transfers=20)
    first, second = limits()
    kept = ("direction", "activity", "max_transfers", "volume", "deadline", "strategy")
    assert [first[key] for key in kept] == ["DESTINATION", "Express", 20, None, None, "fifo"]
    assert [second[key] for key in kept] == ["SOURCE", None, 5, None, None, "fifo"]
    assert [one["enforced"] for one in (first, second)] == [True, True]
    client.set_transfer_limit(rse, activity="Express", max_transfers=20, volume=10**12)
    assert limits()[0]["enforced"] is False, (
        "the workers keep to the number, not to the volume: the answer says so"
    )
    with pytest.raises(exception.InvalidRSEExpression):
        client.set_transfer_limit("NOWHERE", max_transfers=1)
    for wrong in (
        {"max_transfers": -1},
        {"max_transfers": None},
        {"max_transfers": 2**31},
        {"max_transfers": 1, "strategy": "best"},
        {"max_transfers": 1, "volume": 2**63},
    ):
        with pytest.raises(exception.InputValidationError):
            client.set_transfer_limit(rse, **wrong)
    assert client.delete_transfer_limit(rse, activity="Express")
    with pytest.raises(exception.RucioException, match="no transfer limit"):
        client.delete_transfer_limit(rse, activity="Express")
    assert [one["direction"] for one in limits()] == ["SOURCE"]
    name = official.unique("person")
    client.add_account(name, "USER", "p@example.org")
    client.add_identity(name, name, "USERPASS", "x@example.org", True, "a long password")
    theirs = make_client(official, monkeypatch, name, "a long password")
    with pytest.raises(exception.AccessDenied):
        theirs.set_transfer_limit(rse, max_transfers=1)
