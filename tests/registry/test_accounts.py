"""Accounts and the first of them; RSEs where the official client has no word for what can go wrong."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from arriero.registry.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, Unsupported
from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import identities as identity_table
from arriero.registry.schema.tables import rse_attributes, rse_protocols
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services import account_attributes, accounts, identities, rses
from arriero.registry.services import rse_attributes as rse_settled
from arriero.registry.services import rse_protocols as protocols
from arriero.registry.services.authentication import authenticate, login
from arriero.registry.services.bootstrap import bootstrap
from arriero.registry.states import Role
from arriero.rse.errors import RSEError

PASSWORD = "a long password"


def test_the_first_account_is_made_once_and_keeps_its_password(catalogue):
    with catalogue.database.transaction() as connection:
        connection.execute(account_table.delete())
    assert bootstrap(catalogue.database, "admin", PASSWORD) is True
    assert bootstrap(catalogue.database, "admin", "another password") is False
    issued = login(catalogue.context, account="root", username="admin", password=PASSWORD)
    assert authenticate(catalogue.context, issued.token).role is Role.ADMIN
    with pytest.raises(NotAuthenticated):
        login(catalogue.context, account="root", username="admin", password="another password")
    assert catalogue.audited()[0]["detail"] == {"by": "bootstrap"}


def test_an_identity_acts_for_its_default_account_and_for_others_by_name(catalogue):
    for name in ("alice", "team"):
        catalogue.account(name)
        identities.add_identity(
            catalogue.context,
            catalogue.root,
            name,
            identity="alice",
            kind="userpass",
            password=PASSWORD,
            is_default=name == "alice",
        )
    assert login(catalogue.context, account=None, username="alice", password=PASSWORD).account == "alice"
    assert login(catalogue.context, account="team", username="alice", password=PASSWORD).account == "team"
    stored = [row["secret_hash"] for row in catalogue.rows(select(identity_table))]
    assert all(one.startswith("$argon2id$") and PASSWORD not in one for one in stored)
    assert PASSWORD not in repr(catalogue.audited())


def test_a_suspended_account_cannot_log_in(catalogue):
    catalogue.account("alice")
    identities.add_identity(
        catalogue.context, catalogue.root, "alice", identity="alice", kind="USERPASS", password=PASSWORD
    )
    issued = login(catalogue.context, account="alice", username="alice", password=PASSWORD)
    accounts.update_account(catalogue.context, catalogue.root, "alice", {"status": "SUSPENDED"})
    with pytest.raises(NotAuthenticated):
        authenticate(catalogue.context, issued.token)
    with pytest.raises(NotAuthenticated):
        login(catalogue.context, account="alice", username="alice", password=PASSWORD)
    accounts.update_account(catalogue.context, catalogue.root, "alice", {"status": "ACTIVE"})
    assert authenticate(catalogue.context, issued.token).account == "alice"


@pytest.mark.parametrize("name", ["", "A", "a b", "x" * 26, "../root", "a;b", "root\n"])
def test_what_cannot_name_an_account_or_scope(catalogue, name):
    before = catalogue.snapshot_of(account_table)
    with pytest.raises(InvalidInput):
        accounts.add_account(catalogue.context, catalogue.root, name, kind="USER", email=None)
    if name != "A":
        with pytest.raises(InvalidInput):
            accounts.add_scope(catalogue.context, catalogue.root, "root", name)
    assert catalogue.snapshot_of(account_table) == before


def test_refusals(catalogue):
    context, root = catalogue.context, catalogue.root
    with pytest.raises(InvalidInput, match="USER"):
        accounts.add_account(context, root, "bob", kind="ROBOT", email=None)
    with pytest.raises(InvalidInput, match="admin"):
        accounts.add_account(context, root, "bob", kind="USER", email=None, role="king")
    with pytest.raises(Conflict):
        accounts.add_account(context, root, "root", kind="USER", email=None)
    with pytest.raises(InvalidInput, match="characters"):
        identities.add_identity(context, root, "root", identity="x", kind="USERPASS", password="short")
    with pytest.raises(Unsupported):
        identities.add_identity(context, root, "root", identity="x", kind="SSH", password=PASSWORD)
    with pytest.raises(NotFound):
        identities.add_identity(context, root, "nobody", identity="x", kind="USERPASS", password=PASSWORD)
    with pytest.raises(InvalidInput):
        accounts.update_account(context, root, "root", {"deleted_at": None})


def user_named(catalogue, name: str, **options: object) -> None:
    identities.add_identity(
        catalogue.context, catalogue.root, name, identity="ada", kind="USERPASS", password=PASSWORD, **options
    )


def test_taking_an_identity_away_ends_what_it_has_begun(catalogue):
    catalogue.account("alice")
    catalogue.account("team")
    user_named(catalogue, "alice", is_default=True)
    user_named(catalogue, "team")
    context, root = catalogue.context, catalogue.root
    assert identities.list_accounts_of(context, root, "ada", "userpass") == ["alice", "team"]
    theirs, teams = (
        login(context, account=name, username="ada", password=PASSWORD) for name in ("alice", "team")
    )
    identities.delete_identity(context, root, "alice", identity="ada", kind="USERPASS")
    with pytest.raises(NotAuthenticated):
        authenticate(context, theirs.token)
    assert authenticate(context, teams.token).account == "team"
    assert login(context, account=None, username="ada", password=PASSWORD).account == "team"
    with pytest.raises(NotAuthenticated):
        login(context, account="alice", username="ada", password=PASSWORD)
    with pytest.raises(NotFound, match="no USERPASS identity"):
        identities.delete_identity(context, root, "alice", identity="ada", kind="USERPASS")


def test_a_deleted_account_is_out_and_its_name_is_not_given_again(catalogue):
    catalogue.account("alice", Role.ADMIN)
    user_named(catalogue, "alice")
    context, root = catalogue.context, catalogue.root
    issued = login(context, account="alice", username="ada", password=PASSWORD)
    accounts.delete_account(context, root, "alice")
    for call in (
        lambda: authenticate(context, issued.token),
        lambda: login(context, account="alice", username="ada", password=PASSWORD),
    ):
        with pytest.raises(NotAuthenticated):
            call()
    with pytest.raises(Conflict, match="given twice"):
        accounts.add_account(context, root, "alice", kind="USER", email=None)
    with pytest.raises(NotFound):
        accounts.update_account(context, root, "alice", {"status": "ACTIVE"})
    assert accounts.get_account(context, "alice")["status"] == "DELETED"
    assert [row["object"] for row in catalogue.audited(action="account_remove")] == ["alice"]


def test_the_last_administrator_stays(catalogue):
    context, root = catalogue.context, catalogue.root
    changes = ({"status": "SUSPENDED"}, {"role": "reader"})
    for change in changes:
        with pytest.raises(Conflict, match="last administrator"):
            accounts.update_account(context, root, "root", change)
    with pytest.raises(Conflict, match="last administrator"):
        accounts.delete_account(context, root, "root")
    catalogue.account("second", Role.ADMIN)
    accounts.update_account(context, root, "root", {"status": "SUSPENDED"})
    with pytest.raises(Conflict, match="last administrator"):
        accounts.delete_account(context, root, "second")


def test_of_two_administrators_who_leave_at_once_one_stays(postgresql_catalogue):
    catalogue = postgresql_catalogue
    catalogue.account("second", Role.ADMIN)
    start = threading.Barrier(2)

    def suspend(name: str) -> bool:
        start.wait(timeout=10)
        try:
            accounts.update_account(catalogue.context, catalogue.root, name, {"status": "SUSPENDED"})
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(suspend, ("root", "second"))) == [False, True]


@pytest.mark.parametrize(
    ("key", "value"), [("", "x"), ("a b", "x"), ("k" * 256, "x"), ("k", None), ("k", [1]), ("k", "a\nb")]
)
def test_what_is_no_attribute_of_an_account(catalogue, key, value):
    with pytest.raises(InvalidInput):
        account_attributes.add_attribute(catalogue.context, catalogue.root, "root", key, value)
    assert account_attributes.list_attributes(catalogue.context, "root") == []


@pytest.mark.parametrize("name", ["", "a b", "SLAC-", "_X", "A|B", "site=SLAC", "é", "../x", "x" * 256])
def test_what_an_expression_could_not_name_is_no_rse(catalogue, name):
    with pytest.raises(InvalidInput):
        rses.add_rse(catalogue.context, catalogue.root, name, {})
    assert catalogue.count(rse_table) == 0


def test_the_path_algorithm_is_known_and_stays_once_there_are_replicas(catalogue):
    catalogue.scope()
    catalogue.rse("SITE")
    with pytest.raises(RSEError, match="no LFN-to-PFN algorithm"):
        rse_settled.set_attribute(catalogue.context, catalogue.root, "SITE", "lfn2pfn_algorithm", "guess")
    rse_settled.set_attribute(catalogue.context, catalogue.root, "SITE", "lfn2pfn_algorithm", "hash")
    catalogue.files("SITE", ["a"])
    before = catalogue.snapshot_of(rse_attributes)
    for change in (
        lambda: rse_settled.set_attribute(
            catalogue.context, catalogue.root, "SITE", "lfn2pfn_algorithm", "identity"
        ),
        lambda: rse_settled.delete_attribute(catalogue.context, catalogue.root, "SITE", "lfn2pfn_algorithm"),
    ):
        with pytest.raises(Conflict, match="replicas"):
            change()
    assert catalogue.snapshot_of(rse_attributes) == before


@pytest.mark.parametrize(
    "options",
    [
        {"hostname": "a/b"},
        {"hostname": "user@host"},
        {"hostname": "x.example.org", "port": 70000},
        {"hostname": "x.example.org", "port": "1094"},
        {"hostname": "x.example.org", "prefix": "/a/../b"},
        {"hostname": "x.example.org", "prefix": "x" * 901},
        {"hostname": "x.example.org", "domains": {"moon": {"read": 1}}},
        {"hostname": "x.example.org", "domains": {"wan": {"steal": 1}}},
        {"hostname": "x.example.org", "domains": {"wan": {"read": -1}}},
        {"hostname": "x.example.org", "domains": {"wan": "all"}},
    ],
)
def test_a_protocol_that_is_none_is_refused(catalogue, options):
    rses.add_rse(catalogue.context, catalogue.root, "SITE", {})
    with pytest.raises((InvalidInput, RSEError)):
        protocols.add_protocol(catalogue.context, catalogue.root, "SITE", "davs", options)
    assert catalogue.count(rse_protocols) == 0


def test_the_same_protocol_twice_is_refused(catalogue):
    catalogue.rse("SITE")
    with pytest.raises(Conflict):
        protocols.add_protocol(
            catalogue.context, catalogue.root, "SITE", "davs", {"hostname": "dav.example.org", "port": 1094}
        )
    assert catalogue.count(rse_protocols) == 1
