"""Who is asking: passwords (argon2id), tokens (256 random bits, of which only the SHA-256 is stored), certificates that a
trusted proxy has verified, and bearer tokens of trusted issuers.
"""

import base64
import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import structlog
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION
from sqlalchemy import Connection

from arriero.registry.errors import Busy, NoCredential, NotAuthenticated
from arriero.registry.services.bearer_tokens import is_bearer, verify
from arriero.registry.services.context import Actor, Context
from arriero.registry.states import IdentityType, Role, TokenKind
from arriero.registry.store import accounts as store
from arriero.registry.store import identities

log = structlog.get_logger(__name__)

TOKEN_PREFIX = "arriero_"  # noqa: S105 - tells scanners for leaked secrets what they have found

_HASHER = PasswordHasher()
"""argon2id with the library's parameters (RFC 9106, the low-memory option)."""

_VERIFYING = threading.BoundedSemaphore(4)
"""Each hash takes 64 MiB: a flood of logins must not take all memory."""

_VERIFY_WAIT_S = 5.0


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """Write a hash as ``hasher`` does, of a password that nobody knows; it costs nothing to make."""
    salt, made = (
        base64.b64encode(secrets.token_bytes(length)).rstrip(b"=").decode()
        for length in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${costs}${salt}${made}"


_NOBODY = _hash_of_nothing(_HASHER)
"""Verified where there is no such user, so that the answer takes as long."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token as its holder sees it, once."""

    token_id: int
    token: str
    account: str
    expires_at: datetime


def hash_password(password: str) -> str:
    """Give the argon2id hash under which a password is stored.

    Raises
    ------
    Busy
        Too many passwords are hashed or verified at once.
    """
    with _one_of_few():
        return _HASHER.hash(password)


def hash_token(token: str) -> str:
    """Give the SHA-256 under which a token is stored: 256 random bits need no salt and no stretching."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue_token(
    connection: Connection,
    *,
    account_id: int,
    account: str,
    kind: TokenKind,
    lifetime_s: float,
    label: str | None = None,
) -> IssuedToken:
    """Make a token and store its hash.

    Parameters
    ----------
    connection
        Within a writing transaction.
    lifetime_s
        How long it holds, seconds, by the database's clock.
    label
        What the operator calls it.
    """
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    token_id, expires_at = store.add_token(
        connection, account_id, hash_token(token), kind, lifetime_s=lifetime_s, label=label
    )
    return IssuedToken(token_id, token, account, expires_at)


def login(context: Context, *, account: str | None, username: str, password: str) -> IssuedToken:
    """Exchange a password for a session token.

    Parameters
    ----------
    account
        Account to act as; None for the default of that user.

    Raises
    ------
    NotAuthenticated
        The same for an unknown user, an unknown account and a wrong password, after the same work.
    """
    if not username and not password:
        raise NoCredential("log in with X-Rucio-Username and X-Rucio-Password")
    with context.database.snapshot() as connection:
        proven = identities.acting(connection, IdentityType.USERPASS, username, account)
    secret_hash = None if proven is None else proven.secret_hash
    # one verification in every case: how long the answer takes says nothing about who there is
    if not _holds(secret_hash or _NOBODY, password) or proven is None or secret_hash is None:
        raise NotAuthenticated(
            "cannot authenticate with this account, user name and password: check all three"
        )
    stronger = hash_password(password) if _HASHER.check_needs_rehash(secret_hash) else None
    return context.database.run(lambda connection: _begin_session(connection, context, proven, stronger))


def login_with_certificate(context: Context, *, account: str | None, subject: str) -> IssuedToken:
    """Exchange a certificate that a trusted proxy has verified for a session token.

    Parameters
    ----------
    account
        Account to act as; None for the default of that subject.
    subject
        From `arriero.registry.services.x509_subjects`.

    Raises
    ------
    NotAuthenticated
        The same for an unknown subject and an account that it may not act as.
    """
    with context.database.snapshot() as connection:
        proven = identities.acting(connection, IdentityType.X509, subject, account)
    if proven is None:
        raise NotAuthenticated("cannot authenticate with this account and certificate: check both")
    return context.database.run(lambda connection: _begin_session(connection, context, proven, None))


def _begin_session(
    connection: Connection, context: Context, proven: identities.Acting, stronger: str | None
) -> IssuedToken:
    if stronger is not None:
        identities.set_secret_hash(connection, proven.identity_id, stronger)
    store.delete_outlived_sessions(connection, proven.account_id)
    return issue_token(
        connection,
        account_id=proven.account_id,
        account=proven.account,
        kind=TokenKind.SESSION,
        lifetime_s=context.settings.session_token_lifetime_s,
    )


def authenticate(
    context: Context, token: str | None, *, account: str | None = None, request_id: str | None = None
) -> Actor:
    """Find out whom a token stands for.

    Parameters
    ----------
    token
        As the caller sent it; None when nothing was sent.
    account
        Account that the caller wants to act as. Only a bearer token leaves a choice; one of Arriero's has its account.
    request_id
        Goes into the audit of what the actor does.

    Raises
    ------
    NotAuthenticated
        No token, or one that is unknown, outlived or revoked, or whose account is suspended.
    """
    if not token:
        raise NoCredential("this needs a token: log in, or send one as X-Rucio-Auth-Token")
    if is_bearer(token):
        acting, _ = _bearer(context, token, account)
        return Actor(acting.account_id, acting.account, acting.role, request_id=request_id)
    with context.database.snapshot() as connection:
        holder = _holder(connection, token)
        if holder.kind is TokenKind.SESSION:
            return Actor(
                account_id=holder.account_id,
                account=holder.account,
                role=holder.role,
                token_id=holder.token_id,
                request_id=request_id,
            )
        rses, butlers = store.token_bindings(connection, holder.token_id)
    # a site's standing token is worth no more than a site agent, whoever's account it is on
    role = holder.role if holder.role is Role.READER else Role.SITE_AGENT
    return Actor(holder.account_id, holder.account, role, holder.token_id, rses, butlers, request_id)


def token_expiry(context: Context, token: str, account: str | None = None) -> tuple[str, datetime]:
    """Account and end of a token that holds.

    Raises
    ------
    NotAuthenticated
        It does not.
    """
    if is_bearer(token):
        acting, expires_at = _bearer(context, token, account)
        return acting.account, expires_at
    with context.database.snapshot() as connection:
        holder = _holder(connection, token)
    return holder.account, holder.expires_at


def _holder(connection: Connection, token: str) -> store.TokenHolder:
    holder = store.token_holder(connection, hash_token(token))
    if holder is None:
        raise NotAuthenticated("the token is unknown, has expired or was revoked: log in again")
    return holder


def _bearer(context: Context, token: str, account: str | None) -> tuple[identities.Acting, datetime]:
    # first, with no transaction open: it may have to ask the issuer for its keys
    bearer = verify(context.settings, token)
    with context.database.snapshot() as connection:
        acting = identities.acting(connection, IdentityType.OIDC, bearer.identity, account)
    if acting is None:
        raise NotAuthenticated(
            "the token holds, but its subject may not act as this account: an administrator adds it with "
            "`rucio account identity add --type OIDC`"
        )
    return acting, bearer.expires_at


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _VERIFYING.acquire(timeout=_VERIFY_WAIT_S):
        raise Busy("too many log in at once: try again")
    try:
        yield
    finally:
        _VERIFYING.release()


def _holds(secret_hash: str, password: str) -> bool:
    with _one_of_few():
        try:
            return _HASHER.verify(secret_hash, password)
        except InvalidHashError:
            log.exception("stored password hash is not readable")
            return False
        except VerificationError:
            return False
