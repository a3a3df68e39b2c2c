"""The standing tokens of agents: bound, expiring, revocable, and never stored."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.errors import InvalidInput, NotAllowed, NotAuthenticated, NotFound
from arriero.registry.models import NewButler, NewToken
from arriero.registry.schema.tables import accounts, audit_log, identities, tokens
from arriero.registry.services.authentication import hash_password
from arriero.registry.states import AccountType, IdentityType, Role
from support.catalogue import add_rse, add_scope

AGENT = NewToken(label="in2p3 ingest", lifetime_s=600)


def add_account(registry, name, role):
    """An account that logs in with its name and the password `secret`; return its client."""
    with registry.database.transaction() as connection:
        account_id = connection.scalar(
            insert(accounts).values(name=name, type=AccountType.USER, role=role).returning(accounts.c.id)
        )
        connection.execute(
            insert(identities).values(
                account_id=account_id,
                type=IdentityType.USERPASS,
                identity=name,
                secret_hash=hash_password("secret"),
            )
        )
    return registry.client(account=name, username=name, password="secret")


def denials(registry):
    with registry.database.snapshot() as connection:
        query = select(audit_log.c.account, audit_log.c.action).where(audit_log.c.allowed.is_(False))
        return [tuple(row) for row in connection.execute(query.order_by(audit_log.c.id))]


def test_a_token_is_listed_without_its_secret_which_is_not_stored(registry):
    add_scope(registry.database, "raw")
    add_rse(registry.database, "IN2P3_RAW_DISK")
    root = registry.client()
    root.add_butler(
        NewButler(name="in2p3", uri="/repo", rses=[{"rse": "IN2P3_RAW_DISK"}], selections=[{"scope": "raw"}])
    )
    issued = root.create_token(
        NewToken(label="in2p3 ingest", lifetime_s=600, rses=["IN2P3_RAW_DISK"], butlers=["in2p3"])
    )
    [shown] = root.list_tokens()
    assert (shown.id, shown.account, shown.label) == (issued.id, "root", "in2p3 ingest")
    assert (shown.rses, shown.butlers, shown.revoked_at) == (["IN2P3_RAW_DISK"], ["in2p3"], None)
    assert shown.expires_at == issued.expires_at
    assert 590 < (shown.expires_at - shown.created_at).total_seconds() < 610
    with registry.database.snapshot() as connection:
        stored = connection.execute(select(tokens.c.token_hash).where(tokens.c.id == issued.id)).scalar_one()
        audited = str(connection.execute(select(audit_log.c.detail, audit_log.c.object)).all())
    assert stored == hashlib.sha256(issued.token.encode()).hexdigest()
    assert issued.token not in audited
    assert len(issued.token) >= 43, "256 bits in base64"


def test_an_agents_token_is_no_administrators(registry):
    agent = registry.client(token=registry.client().create_token(AGENT).token)
    assert agent.whoami()["account"] == "root"
    with pytest.raises(NotAllowed):
        agent.create_token(AGENT)
    with pytest.raises(NotAllowed):
        agent.add_rse("NEW_DISK")
    assert denials(registry) == [("root", "token_add"), ("root", "rse_add")]


def test_a_revoked_token_ends_at_once(registry):
    root = registry.client()
    issued = root.create_token(AGENT)
    agent = registry.client(token=issued.token)
    list(agent.list_butlers())
    root.revoke_token(issued.id)
    root.revoke_token(issued.id)
    with pytest.raises(NotAuthenticated, match="revoked"):
        list(agent.list_butlers())
    [shown] = root.list_tokens()
    assert shown.revoked_at is not None
    assert (None, "authenticate") in denials(registry)
    with pytest.raises(NotFound, match="token list"):
        root.revoke_token(999)


def test_an_expired_token_is_refused(registry):
    issued = registry.client().create_token(AGENT)
    with registry.database.transaction() as connection:
        connection.execute(
            update(tokens).where(tokens.c.id == issued.id).values(expires_at=tokens.c.created_at)
        )
    with pytest.raises(NotAuthenticated):
        list(registry.client(token=issued.token).list_butlers())


def test_a_data_manager_makes_and_revokes_tokens_of_the_own_account_only(registry):
    root_token = registry.client().create_token(AGENT)
    manager = add_account(registry, "jdoe", Role.DATA_MANAGER)
    own = manager.create_token(AGENT)
    assert [token.id for token in manager.list_tokens()] == [own.id]
    assert {token.id for token in registry.client().list_tokens()} == {root_token.id, own.id}
    with pytest.raises(NotAllowed):
        manager.create_token(AGENT.model_copy(update={"account": "root"}))
    with pytest.raises(NotAllowed):
        manager.revoke_token(root_token.id)
    manager.revoke_token(own.id)
    reader = add_account(registry, "reader", Role.READER)
    with pytest.raises(NotAllowed):
        reader.create_token(AGENT)
    assert denials(registry) == [("jdoe", "token_add"), ("jdoe", "token_revoke"), ("reader", "token_add")]


def test_only_an_administrator_binds_a_token_to_an_rse_or_a_butler(registry):
    """Its holder may register files there and take its arrivals, which a data manager's account may not."""
    add_scope(registry.database, "raw")
    add_rse(registry.database, "IN2P3_RAW_DISK")
    registry.client().add_butler(
        NewButler(name="in2p3", uri="/repo", rses=[{"rse": "IN2P3_RAW_DISK"}], selections=[{"scope": "raw"}])
    )
    manager = add_account(registry, "jdoe", Role.DATA_MANAGER)
    for bound in ({"rses": ("IN2P3_RAW_DISK",)}, {"butlers": ("in2p3",)}):
        with pytest.raises(NotAllowed):
            manager.create_token(AGENT.model_copy(update=bound))
        registry.client().create_token(AGENT.model_copy(update={**bound, "account": "jdoe"}))
    assert denials(registry) == [("jdoe", "token_bind")] * 2
    assert len(list(manager.list_tokens())) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"account": "nobody"}, "account nobody"),
        ({"rses": ("NOWHERE",)}, "RSE NOWHERE"),
        ({"butlers": ("nothing",)}, "butler nothing"),
    ],
)
def test_what_a_token_is_bound_to_must_exist(registry, change, told):
    root = registry.client()
    with pytest.raises(NotFound, match=told):
        root.create_token(AGENT.model_copy(update=change))
    assert list(root.list_tokens()) == []


def test_a_token_has_an_end(registry):
    with pytest.raises(InvalidInput, match="lifetime_s"):
        registry.client()._call("POST", "/tokens", body={"label": "x", "lifetime_s": 10**9})


def test_a_session_is_no_agents_token(registry):
    root = registry.client()
    root.whoami()
    assert list(root.list_tokens()) == []
    with registry.database.snapshot() as connection:
        session_id = connection.execute(select(tokens.c.id)).scalar_one()
    with pytest.raises(NotFound):
        root.revoke_token(session_id)
