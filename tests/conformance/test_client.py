"""What the official client asks for of accounts and RSEs, method by method, and the errors that it raises."""

from __future__ import annotations

from datetime import datetime

import pytest
from rucio.common import exception

from support.official import make_client
from support.official_data import rse, scope

__all__ = ["rse", "scope"]


class TestService:
    def test_ping(self, client):
        assert client.ping()["version"]

    def test_whoami(self, client):
        me = client.whoami()
        assert (me["account"], me["status"]) == ("root", "ACTIVE")
        assert isinstance(me["created_at"], datetime)

    def test_a_wrong_password(self, official, monkeypatch):
        (official.directory / "token-root").unlink(missing_ok=True)
        with pytest.raises(exception.CannotAuthenticate):
            make_client(official, monkeypatch, "root", "wrong").ping()

    def test_an_outlived_token_is_renewed_by_itself(self, client):
        client.whoami()
        client.auth_token = "arriero_outlived"
        client.session.headers.update({"X-Rucio-Auth-Token": client.auth_token})
        assert client.whoami()["account"] == "root"

    def test_what_is_not_there_yet(self, client):
        with pytest.raises(exception.UnsupportedOperation, match="not in Arriero yet"):
            client.get_config()


class TestAccounts:
    def test_add_get_list_update_account(self, official, client):
        name = official.unique("person")
        assert client.add_account(name, "USER", "person@example.org")
        assert client.get_account(name)["email"] == "person@example.org"
        assert name in [row["account"] for row in client.list_accounts("USER")]
        assert client.update_account(name, "status", "SUSPENDED")
        assert client.get_account(name)["status"] == "SUSPENDED"
        with pytest.raises(exception.Duplicate):
            client.add_account(name, "USER", "person@example.org")
        with pytest.raises(exception.AccountNotFound):
            client.get_account("nobody")

    def test_add_identity_and_log_in_with_it(self, official, client, monkeypatch):
        name = official.unique("person")
        client.add_account(name, "USER", "person@example.org")
        assert client.add_identity(name, name, "USERPASS", "x@example.org", True, "a long password")
        assert [row["identity"] for row in client.list_identities(name)] == [name]
        theirs = make_client(official, monkeypatch, name, "a long password")
        assert theirs.whoami()["account"] == name
        with pytest.raises(exception.AccessDenied):
            theirs.add_account("friend", "USER", "f@example.org")

    def test_scopes(self, official, client):
        name = official.unique("scope")
        assert client.add_scope("root", name)
        assert name in client.list_scopes()
        assert name in client.list_scopes_for_account("root")
        assert {"scope": name, "account": "root"} in client.list_scope_owners()
        with pytest.raises(exception.Duplicate):
            client.add_scope("root", name)
        with pytest.raises(exception.AccountNotFound):
            client.add_scope("nobody", official.unique("scope"))


class TestRses:
    def test_add_get_list_update(self, official, client):
        name = official.unique("SITE") + "_DISK"
        assert client.add_rse(name, deterministic=False, rse_type="TAPE")
        described = client.get_rse(name)
        assert (described["rse"], described["rse_type"], described["deterministic"]) == (name, "TAPE", False)
        assert client.update_rse(name, {"availability_write": False})
        assert client.get_rse(name)["availability_write"] is False
        assert name in [row["rse"] for row in client.list_rses()]
        assert [row["rse"] for row in client.list_rses(name)] == [name]
        with pytest.raises(exception.Duplicate):
            client.add_rse(name)
        with pytest.raises(exception.RSENotFound):
            client.get_rse("NOWHERE")
        with pytest.raises(exception.InvalidRSEExpression):
            list(client.list_rses("NOWHERE|"))

    def test_attributes(self, client, rse):
        assert client.add_rse_attribute(rse, "site", "SLAC")
        assert client.add_rse_attribute(rse, "istape", False)
        attributes = client.list_rse_attributes(rse)
        assert (attributes["site"], attributes["istape"], attributes[rse]) == ("SLAC", False, True)
        assert rse in [row["rse"] for row in client.list_rses("site=SLAC&istape=false")]
        assert client.delete_rse_attribute(rse, "site")
        with pytest.raises(exception.RSEAttributeNotFound):
            client.delete_rse_attribute(rse, "site")

    def test_protocols(self, client, rse):
        [protocol] = client.get_protocols(rse)["protocols"]
        assert protocol["domains"]["wan"]["third_party_copy_read"] == 1
        assert protocol["prefix"] == "/data"
        assert client.get_protocols(rse, scheme="davs")["protocols"] == [protocol]
        with pytest.raises(exception.RSEProtocolNotSupported):
            client.get_protocols(rse, scheme="root")
        assert client.delete_protocols(rse, "davs", "dav.example.org", 1094)
        assert client.get_protocols(rse)["protocols"] == []

    def test_distances(self, official, client, rse):
        other = official.unique("SITE") + "_DISK"
        client.add_rse(other)
        assert client.get_distance(rse, other) == []
        assert client.add_distance(rse, other, {"distance": 3})
        assert client.get_distance(rse, other)[0]["distance"] == 3
        assert client.update_distance(rse, other, {"distance": 4}, bidirectional=True)
        assert client.get_distance(other, rse)[0]["distance"] == 4
        assert client.delete_distance(rse, other)
        assert client.get_distance(rse, other) == []

    def test_usage_and_limits(self, client, rse):
        assert client.set_rse_usage(rse, "storage", 10, 90)
        [usage] = client.get_rse_usage(rse)
        assert (usage["used"], usage["free"], usage["total"]) == (10, 90, 100)
        assert client.set_rse_limits(rse, "MinFreeSpace", 5)
        assert client.get_rse_limits(rse) == {"MinFreeSpace": 5}
        assert client.delete_rse_limits(rse, "MinFreeSpace")
        assert client.get_rse_limits(rse) == {}
