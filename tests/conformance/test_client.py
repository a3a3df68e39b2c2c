"""What the official client asks for of accounts and scopes, method by method, and the errors that it raises."""

from __future__ import annotations

from datetime import datetime

import pytest
from rucio.common import exception
from sqlalchemy import select

from arriero.registry.schema.tables import dids, replicas, scopes
from support.official import make_client
from support.official_data import files, rse, scope

__all__ = ["rse", "scope"]


class TestService:
    @pytest.mark.client_method("PingClient.ping")
    def test_ping(self, client):
        assert client.ping()["version"]

    @pytest.mark.client_method("AccountClient.whoami")
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

    @pytest.mark.client_method("TouchClient.touch")
    def test_touch(self, official, client, scope, rse):
        client.add_replicas(rse, files(scope, "a"))
        client.touch(scope, "a", rse)
        read = select(replicas.c.accessed_at).join(dids, dids.c.id == replicas.c.file_id)
        with official.registry.database.snapshot() as connection:
            found = connection.scalar(
                read.join(scopes, scopes.c.id == dids.c.scope_id).where(scopes.c.name == scope)
            )
        assert found is not None


class TestAccounts:
    @pytest.mark.client_method(
        "AccountClient.add_account",
        "AccountClient.get_account",
        "AccountClient.list_accounts",
        "AccountClient.update_account",
    )
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

    @pytest.mark.client_method("AccountClient.add_identity", "AccountClient.list_identities")
    def test_add_identity_and_log_in_with_it(self, official, client, monkeypatch):
        name = official.unique("person")
        client.add_account(name, "USER", "person@example.org")
        assert client.add_identity(name, name, "USERPASS", "x@example.org", True, "a long password")
        assert [row["identity"] for row in client.list_identities(name)] == [name]
        theirs = make_client(official, monkeypatch, name, "a long password")
        assert theirs.whoami()["account"] == name
        with pytest.raises(exception.AccessDenied):
            theirs.add_account("friend", "USER", "f@example.org")

    @pytest.mark.client_method(
        "ScopeClient.add_scope",
        "ScopeClient.list_scopes",
        "ScopeClient.list_scopes_for_account",
        "ScopeClient.list_scope_owners",
    )
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
