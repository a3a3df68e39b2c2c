"""What the official client asks for of accounts, identities, attributes, limits, usage and scopes."""

from __future__ import annotations

import re
from datetime import datetime
from math import inf

import pytest
from rucio.common import exception

from arriero.registry.services.account_usage import record_account_usage
from support.official import make_client
from support.official_data import files, rse, scope

__all__ = ["rse", "scope"]

PASSWORD = "a long password"


@pytest.fixture
def account(official, client) -> str:
    name = official.unique("person")
    client.add_account(name, "USER", "person@example.org")
    return name


def names(rows) -> list[str]:
    return [row["account"] for row in rows]


class TestAccounts:
    @pytest.mark.client_method("AccountClient.add_account", "AccountClient.get_account")
    def test_add_and_get(self, official, client, account):
        described = client.get_account(account)
        assert (described["account"], described["account_type"]) == (account, "USER")
        assert (described["email"], described["status"]) == ("person@example.org", "ACTIVE")
        assert isinstance(described["created_at"], datetime)
        assert (described["suspended_at"], described["deleted_at"]) == (None, None)
        with pytest.raises(exception.Duplicate):
            client.add_account(account, "USER", "person@example.org")
        with pytest.raises(exception.AccountNotFound):
            client.get_account("nobody")
        with pytest.raises(exception.InputValidationError):
            client.add_account(official.unique("person"), "ROBOT", "x")

    @pytest.mark.client_method("AccountClient.list_accounts")
    def test_list(self, official, client, account):
        service = official.unique("service")
        client.add_account(service, "SERVICE", "s@example.org")
        assert {account, service} <= set(names(client.list_accounts()))
        assert service not in names(client.list_accounts("USER"))
        assert names(client.list_accounts(filters={"email": "s@example.org", "account": service})) == [
            service
        ]
        client.add_identity(account, "filter", "USERPASS", "f@example.org", password=PASSWORD)
        assert names(client.list_accounts(identity="filter")) == [account]
        client.add_account_attribute(account, "shift", True)
        assert names(client.list_accounts("USER", filters={"shift": True, "account": account})) == [account]
        assert names(client.list_accounts(filters={"shift": False})) == []
        client.update_account(account, "status", "SUSPENDED")
        assert account not in names(client.list_accounts())
        assert account in names(client.list_accounts(filters={"status": "SUSPENDED"}))

    @pytest.mark.client_method("AccountClient.update_account")
    def test_update(self, client, account):
        assert client.update_account(account, "email", "new@example.org")
        assert client.get_account(account)["email"] == "new@example.org"
        assert client.update_account(account, "status", "suspended")
        assert client.get_account(account)["status"] == "SUSPENDED"
        assert isinstance(client.get_account(account)["suspended_at"], datetime)
        assert client.update_account(account, "status", "ACTIVE")
        assert client.update_account(account, "account_type", "GROUP")
        assert client.get_account(account)["account_type"] == "GROUP"
        with pytest.raises(exception.AccountNotFound):
            client.update_account("nobody", "email", "x")
        with pytest.raises(exception.InputValidationError):
            client.update_account(account, "deleted_at", None)

    @pytest.mark.client_method("AccountClient.delete_account")
    def test_delete(self, official, client, account, monkeypatch):
        client.add_identity(account, account, "USERPASS", "x@example.org", True, PASSWORD)
        theirs = make_client(official, monkeypatch, account, PASSWORD)
        assert theirs.whoami()["account"] == account
        assert client.delete_account(account)
        assert client.get_account(account)["status"] == "DELETED"
        assert account not in names(client.list_accounts())
        with pytest.raises(exception.CannotAuthenticate):
            theirs.whoami()
        for call in (
            lambda: client.delete_account(account),
            lambda: client.update_account(account, "status", "ACTIVE"),
            lambda: client.add_scope(account, official.unique("scope")),
        ):
            with pytest.raises(exception.AccountNotFound):
                call()
        with pytest.raises(exception.Duplicate, match="no name is given twice"):
            client.add_account(account, "USER", "x@example.org")
        with pytest.raises(exception.UnsupportedOperation, match="last administrator"):
            client.delete_account("root")

    @pytest.mark.client_method("AccountClient.whoami")
    def test_whoami(self, client):
        me = client.whoami()
        assert (me["account"], me["status"]) == ("root", "ACTIVE")

    @pytest.mark.client_method(
        "AccountClient.add_account_attribute",
        "AccountClient.list_account_attributes",
        "AccountClient.delete_account_attribute",
    )
    def test_attributes(self, client, account):
        assert next(client.list_account_attributes(account)) == []
        assert client.add_account_attribute(account, "country", "ch")
        assert client.add_account_attribute(account, "admin", False)
        assert next(client.list_account_attributes(account)) == [
            {"key": "admin", "value": False},
            {"key": "country", "value": "ch"},
        ]
        with pytest.raises(exception.Duplicate):
            client.add_account_attribute(account, "country", "fr")
        assert client.delete_account_attribute(account, "country")
        with pytest.raises(exception.AccountNotFound):
            client.delete_account_attribute(account, "country")
        with pytest.raises(exception.AccountNotFound):
            next(client.list_account_attributes("nobody"))

    @pytest.mark.client_method("AccountClient.list_account_rules")
    def test_rules(self, client, scope, rse):
        client.add_dataset(scope, "rules")
        [rule] = client.add_replication_rule([{"scope": scope, "name": "rules"}], 1, rse)
        assert rule in [row["id"] for row in client.list_account_rules("root")]


class TestIdentities:
    @pytest.mark.client_method(
        "AccountClient.add_identity", "AccountClient.list_identities", "AccountClient.del_identity"
    )
    def test_add_list_delete(self, client, account):
        known = {
            "USERPASS": account,
            "X509": f"/DC=org/DC=example/CN={account}",
            "OIDC": f"SUB={account}, ISS=https://issuer.example.org/",
        }
        for kind, identity in known.items():
            assert client.add_identity(account, identity, kind, "x@example.org", True, PASSWORD)
            with pytest.raises(exception.Duplicate):
                client.add_identity(account, identity, kind, "x@example.org", True, PASSWORD)
        assert list(client.list_identities(account)) == [
            {"type": kind, "identity": identity, "email": "x@example.org"} for kind, identity in known.items()
        ]
        for kind, identity in known.items():
            assert client.del_identity(account, identity, kind)
            with pytest.raises(exception.IdentityError):
                client.del_identity(account, identity, kind)
        assert list(client.list_identities(account)) == []
        with pytest.raises(exception.UnsupportedOperation, match="USERPASS, X509, OIDC"):
            client.add_identity(account, "x", "SSH", "x@example.org")


class TestLimits:
    @pytest.mark.client_method(
        "AccountClient.set_local_account_limit",
        "AccountClient.get_local_account_limit",
        "AccountClient.get_local_account_limits",
        "AccountClient.delete_local_account_limit",
    )
    def test_local(self, client, account, rse):
        assert client.get_local_account_limits(account) == {}
        assert client.get_local_account_limit(account, rse) == {rse: None}
        assert client.set_local_account_limit(account, rse, 10**15)
        assert client.get_local_account_limit(account, rse) == {rse: 10**15}
        assert client.set_local_account_limit(account, rse, -1)
        assert client.get_local_account_limits(account) == {rse: inf}
        assert client.delete_local_account_limit(account, rse)
        assert client.get_local_account_limits(account) == {}
        with pytest.raises(exception.RSENotFound):
            client.set_local_account_limit(account, "NOWHERE", 1)
        with pytest.raises(exception.AccountNotFound):
            client.get_local_account_limits("nobody")
        with pytest.raises(exception.InputValidationError):
            client.set_local_account_limit(account, rse, -2)

    @pytest.mark.client_method(
        "AccountClient.set_global_account_limit",
        "AccountClient.get_global_account_limit",
        "AccountClient.get_global_account_limits",
        "AccountClient.delete_global_account_limit",
    )
    def test_global(self, client, account, rse):
        expression = rf"({rse}|*)\{rse}|{rse}&lfn2pfn_algorithm=identity"
        assert client.set_global_account_limit(account, expression, 7)
        assert client.get_global_account_limit(account, expression) == {expression: 7}
        assert client.get_global_account_limits(account) == {expression: 7}
        assert client.delete_global_account_limit(account, expression)
        assert client.get_global_account_limit(account, expression) == {expression: None}
        with pytest.raises(exception.InvalidRSEExpression):
            client.set_global_account_limit(account, "NOWHERE", 7)

    @pytest.mark.client_method(
        "AccountClient.set_account_limit",
        "AccountClient.get_account_limits",
        "AccountClient.delete_account_limit",
    )
    @pytest.mark.parametrize("locality", ["local", "global"])
    def test_by_locality(self, client, account, rse, locality):
        assert client.set_account_limit(account, rse, 5, locality)
        assert client.get_account_limits(account, rse, locality) == {rse: 5}
        assert client.delete_account_limit(account, rse, locality)

    @pytest.mark.client_method("RuleClient.add_replication_rule")
    def test_a_rule_beyond_the_limit(self, official, client, account, rse, scope, monkeypatch):
        client.add_replicas(rse, files(scope, "f"))
        client.add_identity(account, account, "USERPASS", "x@example.org", True, PASSWORD)
        theirs = make_client(official, monkeypatch, account, PASSWORD)
        client.set_local_account_limit(account, rse, 2879)
        did = [{"scope": scope, "name": "f"}]
        with pytest.raises(exception.InsufficientAccountLimit, match="2879"):
            theirs.add_replication_rule(did, 1, rse)
        client.set_local_account_limit(account, rse, 2880)
        assert theirs.add_replication_rule(did, 1, rse)

    @pytest.mark.client_method(
        "AccountClient.get_local_account_usage",
        "AccountClient.get_global_account_usage",
        "AccountClient.get_account_usage_history",
    )
    def test_usage(self, official, client, account, rse):
        assert list(client.get_local_account_usage(account)) == []
        client.set_local_account_limit(account, rse, 1000)
        client.set_global_account_limit(account, rse, -1)
        nothing = {"bytes": 0, "files": 0}
        [local] = client.get_local_account_usage(account)
        assert local == {
            **nothing,
            "rse": rse,
            "rse_id": local["rse_id"],
            "bytes_limit": 1000,
            "bytes_remaining": 1000,
        }
        assert list(client.get_local_account_usage(account, rse)) == [local]
        [anywhere] = client.get_global_account_usage(account)
        assert anywhere == {**nothing, "rse_expression": rse, "bytes_limit": inf, "bytes_remaining": inf}
        assert list(client.get_global_account_usage(account, rse)) == [anywhere]
        record_account_usage(official.registry.context)
        assert client.get_account_usage_history(account, rse) == []
        with pytest.raises(exception.RSENotFound):
            client.get_account_usage_history(account, "NOWHERE")


class TestScopes:
    @pytest.mark.client_method(
        "ScopeClient.add_scope",
        "ScopeClient.list_scopes",
        "ScopeClient.list_scopes_for_account",
        "ScopeClient.list_scope_owners",
    )
    def test_add_and_list(self, official, client, account):
        name = official.unique("scope.x-")
        with pytest.raises(exception.ScopeNotFound):
            client.list_scopes_for_account(account)
        assert client.add_scope(account, name)
        assert name in client.list_scopes()
        assert client.list_scopes_for_account(account) == [name]
        assert {"scope": name, "account": account} in client.list_scope_owners()
        with pytest.raises(exception.Duplicate):
            client.add_scope(account, name)
        with pytest.raises(exception.AccountNotFound):
            client.add_scope("nobody", official.unique("scope"))

    @pytest.mark.client_method("ScopeClient.update_scope")
    def test_update(self, client, account, scope):
        assert client.update_scope(account, scope)
        assert client.list_scopes_for_account(account) == [scope]
        with pytest.raises(exception.ScopeNotFound):
            client.update_scope(account, "nowhere")
        with pytest.raises(exception.AccountNotFound):
            client.update_scope("nobody", scope)


class TestCommands:
    @pytest.mark.rucio_command(
        "account add", "account list", "account show", "account update", "account remove"
    )
    def test_account(self, official):
        name = official.unique("person")
        official.cli("account", "add", name, "USER", "--email", "p@example.org")
        assert name in official.cli("account", "list", "--type", "USER").split()
        assert re.search(r"email\s+: p@example.org", official.cli("account", "show", name))
        official.cli("account", "update", name, "--email", "q@example.org")
        assert "q@example.org" in official.cli("account", "show", name)
        official.cli("account", "update", name, "--ban")
        assert re.search(r"status\s+: SUSPENDED", official.cli("account", "show", name))
        official.cli("account", "update", name, "--unban")
        assert "Deleted account" in official.cli("account", "remove", name)
        assert name not in official.cli("account", "list", "--csv").strip().split(",")

    @pytest.mark.rucio_command("account attribute set", "account attribute list", "account attribute unset")
    def test_attributes(self, official, account):
        official.cli("account", "attribute", "set", account, "--key", "country", "--value", "ch")
        official.cli("account", "attribute", "set", account, "--key", "country", "--value", "fr")
        assert re.search(r"country\s.*fr", official.cli("account", "attribute", "list", account))
        official.cli("account", "attribute", "unset", account, "--key", "country")
        assert "country" not in official.cli("account", "attribute", "list", account)

    @pytest.mark.rucio_command("account limit set", "account limit list", "account limit unset")
    def test_limits(self, official, account, rse):
        official.cli("account", "limit", "set", account, "--rse", rse, "--bytes", "10GB")
        official.cli(
            "account", "limit", "set", account, "--rse", rse, "--bytes", "inf", "--locality", "global"
        )
        shown = official.cli("account", "limit", "list", account)
        assert re.search(rf"{rse}\s.*0.000 B.*10.000 GB.*10.000 GB", shown)
        assert re.search(rf"{rse}\s.*0.000 B.*[Ii]nf.*[Ii]nf", shown)
        official.cli("account", "limit", "unset", account, "--rse", rse)
        official.cli("account", "limit", "unset", account, "--rse", rse, "--locality", "global")
        assert rse not in official.cli("account", "limit", "list", account)

    @pytest.mark.rucio_command("account identity add", "account identity list", "account identity remove")
    def test_identities(self, official, account):
        identity = ("--type", "X509", "--id", f"CN={account},O=Example")
        official.cli("account", "identity", "add", account, *identity, "--email", "x@example.org")
        shown = official.cli("account", "identity", "list", account)
        assert re.search(rf"/O=Example/CN={account},\s+type: X509", shown)
        official.cli("account", "identity", "remove", account, *identity)
        assert "X509" not in official.cli("account", "identity", "list", account)

    @pytest.mark.rucio_command("scope add", "scope list", "scope update")
    def test_scopes(self, official, account):
        name = official.unique("scope")
        official.cli("scope", "add", name, "--account", "root")
        official.cli("scope", "update", name, "--account", account)
        assert re.search(rf"{name}\s.*{account}", official.cli("scope", "list"))
        assert official.cli("scope", "list", "--account", account, "--csv").split() == [name]
