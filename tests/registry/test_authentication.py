"""Logging in under attack: the work is the same for who is there and who is not, and there is a limit to it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from sqlalchemy import select

from arriero.registry.errors import Busy, NoCredential, NotAuthenticated
from arriero.registry.schema.tables import audit_log
from arriero.registry.services import audit as audit_module
from arriero.registry.services import authentication, identities
from arriero.registry.services.audit import StrangerLog

PASSWORD = "a long password"


def test_a_password_costs_an_attacker_what_rfc_9106_asks_for():
    """Its second recommended option: 64 MiB, 3 passes, 4 lanes.

    In a process of its own: a registry that another test keeps running hashes quickly in this one.
    """
    script = (
        "from arriero.registry.services import authentication\n"
        f"print(authentication.hash_password({PASSWORD!r}))\n"
        "print(authentication._NOBODY)\n"
        "try: authentication._HASHER.verify(authentication._NOBODY, 'nobody')\n"
        "except authentication.VerificationError as error: print(error)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    *hashes, said = printed.splitlines()
    assert len(hashes) == 2
    assert all(one.startswith("$argon2id$v=19$m=65536,t=3,p=4$") for one in hashes)
    assert said == "The password does not match the supplied hash", "the work was done"


@pytest.fixture
def verified(monkeypatch) -> list[str]:
    """Hashes that were verified."""
    seen: list[str] = []

    class Hasher:
        def verify(self, secret_hash: str, password: str) -> bool:
            seen.append(secret_hash)
            if secret_hash != f"hash of {password}":
                raise authentication.VerificationError
            return True

        def check_needs_rehash(self, _hash: str) -> bool:
            return False

        def hash(self, password: str) -> str:
            return f"hash of {password}"

    monkeypatch.setattr(authentication, "_HASHER", Hasher())
    return seen


def identify(catalogue, account: str, password: str = PASSWORD, *, default: bool = False) -> None:
    catalogue.account(account)
    identities.add_identity(
        catalogue.context,
        catalogue.root,
        account,
        identity="ada",
        kind="USERPASS",
        password=password,
        is_default=default,
    )


@pytest.mark.parametrize(("username", "password"), [("ada", PASSWORD), ("ada", "wrong"), ("nobody", "wrong")])
def test_every_login_costs_one_verification(catalogue, verified, username, password):
    for account in ("first", "second", "third"):
        identify(catalogue, account, default=account == "second")
    try:
        issued = authentication.login(catalogue.context, account=None, username=username, password=password)
    except NotAuthenticated:
        assert (username, password) != ("ada", PASSWORD)
    else:
        assert issued.account == "second"
    assert len(verified) == 1


def test_a_call_without_name_and_password_costs_none(catalogue, verified):
    with pytest.raises(NoCredential):
        authentication.login(catalogue.context, account=None, username="", password="")
    assert verified == []


def test_only_so_many_passwords_are_verified_at_once(catalogue, monkeypatch):
    monkeypatch.setattr(authentication, "_VERIFYING", threading.BoundedSemaphore(1))
    monkeypatch.setattr(authentication, "_VERIFY_WAIT_S", 0.01)
    with authentication._VERIFYING, pytest.raises(Busy):
        authentication.login(catalogue.context, account=None, username="ada", password="x")
    with authentication._VERIFYING, pytest.raises(Busy):
        authentication.hash_password("x")
    with pytest.raises(NotAuthenticated):
        authentication.login(catalogue.context, account=None, username="ada", password="x")


def test_a_flood_of_wrong_tokens_does_not_fill_the_audit(catalogue, monkeypatch):
    strangers = StrangerLog(catalogue.context, per_minute=3)
    assert [strangers.record(what="GET /x", request_id=str(i)) for i in range(10)] == [True] * 3 + [False] * 7
    monkeypatch.setattr(audit_module, "_MINUTE_S", 0.0)
    assert strangers.record(what="GET /x", request_id="later")
    assert strangers.record(what="GET /x", request_id="latest")
    rows = catalogue.rows(select(audit_log).where(audit_log.c.allowed.is_(False)).order_by(audit_log.c.id))
    assert [row["request_id"] for row in rows] == ["0", "1", "2", "later", "latest"]
    assert [row["detail"] for row in rows] == [None, None, None, {"passed_over": 7}, None]
