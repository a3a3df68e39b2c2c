"""Bearer tokens (JWT) of the issuers that the settings name: signature, time, audience, and whose they are.

Nothing here knows accounts. A token's own word about keys (``jku``, ``jwk``, ``x5u``) is never looked at.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from arriero.registry.errors import NotAuthenticated
from arriero.registry.services.issuer_keys import ALGORITHMS, keys_of
from arriero.registry.settings import OidcIssuer, Settings

MAX_TOKEN_CHARACTERS = 16 * 1024
MAX_SUBJECT_CHARACTERS = 255
"""OpenID Connect Core 1.0, section 2."""

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_WLCG_VERSION = re.compile(r"1\.\d{1,3}", re.ASCII)
_LAST = datetime(9999, 1, 1, tzinfo=UTC)

_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What the library raises of tokens that are none: not all of it is its own."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose token it is, as its issuer says."""

    identity: str
    """As Rucio names it: ``SUB=<subject>, ISS=<issuer>``."""
    expires_at: datetime


def is_bearer(token: str) -> bool:
    """Whether a token has the shape of a JWT; none of Arriero's own has."""
    return _SHAPE.fullmatch(token) is not None


def identity_of(subject: str, issuer: str) -> str:
    """Name the identity of a subject of an issuer, in Rucio's way."""
    return f"SUB={subject}, ISS={issuer}"


def verify(settings: Settings, token: str) -> Bearer:
    """Believe a token, or not.

    Raises
    ------
    NotAuthenticated
        Not signed by an issuer of the settings, not for this service, not now; or it names nobody.
    Busy
        Its issuer's keys cannot be had at the moment.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise NotAuthenticated(f"the token has more than {MAX_TOKEN_CHARACTERS} characters")
    header = _header(token)
    issuer = _issuer(settings, token)
    key = keys_of(issuer, settings).find(header.get("kid"))
    if header["alg"] not in key.algorithms:
        raise NotAuthenticated("the token's algorithm is not that of its key")
    try:
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[header["alg"]],
            audience=list(issuer.audience),
            issuer=issuer.issuer,
            leeway=settings.oidc_leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        expires_at = datetime.fromtimestamp(min(int(claims["exp"]), _LAST.timestamp()), UTC)
    except jwt.ExpiredSignatureError as error:
        raise NotAuthenticated("the token has expired: get a new one from its issuer") from error
    except jwt.InvalidAudienceError as error:
        raise NotAuthenticated("the token is for another audience than this service") from error
    except _UNREADABLE as error:
        raise NotAuthenticated("the token does not hold: wrong signature, claims or time") from error
    return Bearer(identity_of(_subject(issuer, claims), issuer.issuer), expires_at)


def _header(token: str) -> dict[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except _UNREADABLE as error:
        raise _unreadable() from error
    kind = header.get("typ", "JWT")
    if header.get("alg") not in ALGORITHMS:
        raise NotAuthenticated(f"a token is signed with one of {', '.join(sorted(ALGORITHMS))}")
    if "crit" in header or not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _unreadable()
    if not isinstance(header.get("kid", ""), str):
        raise _unreadable()
    return header


def _issuer(settings: Settings, token: str) -> OidcIssuer:
    try:
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except _UNREADABLE as error:
        raise _unreadable() from error
    for issuer in settings.oidc_issuers:
        if claimed == issuer.issuer:
            return issuer
    raise NotAuthenticated("the token's issuer is none of those that this service believes (oidc_issuers)")


def _subject(issuer: OidcIssuer, claims: dict[str, Any]) -> str:
    version = claims.get("wlcg.ver")
    if version is None and not issuer.wlcg:
        pass
    elif not isinstance(version, str) or _WLCG_VERSION.fullmatch(version) is None:
        raise NotAuthenticated("the token is of no version of the WLCG profile that is known: 1.x")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
        raise _unreadable()
    if not subject.isprintable():
        raise _unreadable()
    return subject


def _unreadable() -> NotAuthenticated:
    return NotAuthenticated("the token cannot be read: it is no signed JWT of a known kind")
