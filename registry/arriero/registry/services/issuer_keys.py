"""The public keys of an issuer of bearer tokens: fetched by its discovery document, kept for a bounded time.

What an issuer sends is bounded in size and time and believed only as far as it can be read. A flood of tokens with
unknown keys costs one request each ``refetch_s``; an issuer that is away is bridged by the keys of before, for a while.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR
from ssl import create_default_context
from typing import Any
from urllib.parse import urlsplit

import jwt
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from arriero.registry.errors import Busy, NotAuthenticated
from arriero.registry.settings import OidcIssuer, Settings

log = structlog.get_logger(__name__)

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})
"""What a token may be signed with: public keys only, so that no key of the issuer is a secret here."""

MAX_ANSWER_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048
"""NIST SP 800-131A: shorter moduli are not acceptable for signatures."""

_DISCOVERY = "/.well-known/openid-configuration"
_MAX_WAITING = 4
"""Calls that wait for another one's fetch; an issuer that is slow must not hold up the rest of the service."""

_RSA_ALGORITHMS = frozenset(name for name in ALGORITHMS if name[:2] in {"RS", "PS"})
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class IssuerUnreachable(Exception):
    """The issuer did not give its keys."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, and the algorithms that it may be used with."""

    key: Any
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Fetched:
    keys: Mapping[str | None, SigningKey]
    at: float


class IssuerKeys:
    """The keys of one issuer, in this process. Thread-safe.

    Parameters
    ----------
    issuer
        Who.
    refresh_s, max_age_s, refetch_s, timeout_s
        As the settings ``oidc_...`` describe them.
    """

    def __init__(
        self, issuer: OidcIssuer, *, refresh_s: float, max_age_s: float, refetch_s: float, timeout_s: float
    ) -> None:
        self._issuer = issuer
        self._refresh_s = refresh_s
        self._max_age_s = max(max_age_s, refresh_s)
        self._refetch_s = refetch_s
        self._timeout_s = timeout_s
        self._fetching = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._fetched: _Fetched | None = None
        self._tried_at: float | None = None

    def find(self, kid: str | None) -> SigningKey:
        """Give a key.

        Parameters
        ----------
        kid
            As the token names it; None finds the only key of an issuer that has one.

        Raises
        ------
        NotAuthenticated
            The issuer has no such key.
        Busy
            The issuer cannot be reached, and nothing is known of its keys or no longer.
        """
        key = self._known(kid, self._refresh_s)
        if key is not None:
            return key
        older = self._known(kid, self._max_age_s)
        if self._may_try():
            self._fetch_once(wait=older is None)
        key = self._known(kid, self._max_age_s) or older
        if key is not None:
            return key
        if self._age() > self._max_age_s:
            raise Busy("the keys of the token's issuer cannot be fetched now: try again")
        raise NotAuthenticated("the token is signed with a key that its issuer does not publish")

    def _known(self, kid: str | None, max_age_s: float) -> SigningKey | None:
        fetched = self._fetched
        if fetched is None or time.monotonic() - fetched.at > max_age_s:
            return None
        if kid is None and len(fetched.keys) == 1:
            return next(iter(fetched.keys.values()))
        return fetched.keys.get(kid)

    def _age(self) -> float:
        fetched = self._fetched
        return float("inf") if fetched is None else time.monotonic() - fetched.at

    def _may_try(self) -> bool:
        return self._tried_at is None or time.monotonic() - self._tried_at >= self._refetch_s

    def _fetch_once(self, *, wait: bool) -> None:
        """Fetch the keys, or wait for the call that does; without ``wait`` leave it to that one."""
        if not self._waiting.acquire(blocking=False):
            return
        try:
            if not self._fetching.acquire(blocking=wait):
                return
            try:
                if self._may_try():
                    self._fetch()
            finally:
                self._fetching.release()
        finally:
            self._waiting.release()

    def _fetch(self) -> None:
        try:
            keys = fetch_keys(self._issuer, self._timeout_s)
        except IssuerUnreachable as error:
            log.warning("keys not fetched", issuer=self._issuer.issuer, reason=str(error))
        else:
            self._fetched = _Fetched(keys, time.monotonic())
            log.info("keys fetched", issuer=self._issuer.issuer, count=len(keys))
        finally:
            self._tried_at = time.monotonic()


@lru_cache(maxsize=64)
def _keys_of(
    issuer: OidcIssuer, refresh_s: float, max_age_s: float, refetch_s: float, timeout_s: float
) -> IssuerKeys:
    return IssuerKeys(
        issuer, refresh_s=refresh_s, max_age_s=max_age_s, refetch_s=refetch_s, timeout_s=timeout_s
    )


def keys_of(issuer: OidcIssuer, settings: Settings) -> IssuerKeys:
    """Give the keys of an issuer, the same for every call of this process."""
    return _keys_of(
        issuer,
        settings.oidc_keys_refresh_s,
        settings.oidc_keys_max_age_s,
        settings.oidc_refetch_s,
        settings.oidc_timeout_s,
    )


def fetch_keys(issuer: OidcIssuer, timeout_s: float) -> dict[str | None, SigningKey]:
    """Fetch the keys of an issuer, by way of its discovery document.

    Raises
    ------
    IssuerUnreachable
        No answer in time, or one that is none; says why.
    """
    until = time.monotonic() + timeout_s
    discovery = _document(issuer, issuer.issuer.rstrip("/") + _DISCOVERY, until)
    if discovery.get("issuer") != issuer.issuer:
        raise IssuerUnreachable("its discovery document is another issuer's")
    listed = _document(issuer, str(discovery.get("jwks_uri")), until).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise IssuerUnreachable(f"its key set is no list of at most {MAX_KEYS} keys")
    keys = dict(_readable(listed))
    if not keys:
        raise IssuerUnreachable("its key set holds no key for signatures")
    return keys


def _readable(listed: Iterable[Any]) -> Iterable[tuple[str | None, SigningKey]]:
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or "d" in one:
            continue
        kid = one.get("kid")
        if kid is not None and not isinstance(kid, str):
            continue
        try:
            # its own word for the algorithm is looked at below: the library would take it for more than it is
            key = jwt.PyJWK({name: value for name, value in one.items() if name != "alg"}).key
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            continue
        algorithms = _algorithms(key)
        if "alg" in one:
            algorithms &= {one["alg"]} if isinstance(one["alg"], str) else set()
        if algorithms:
            yield kid, SigningKey(key, algorithms)


def _algorithms(key: Any) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA_ALGORITHMS if key.key_size >= MIN_RSA_BITS else frozenset()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _EC_ALGORITHMS:
        return frozenset({_EC_ALGORITHMS[key.curve.name]})
    return frozenset()


def _document(issuer: OidcIssuer, url: str, until: float) -> dict[str, Any]:
    try:
        issuer.require_safe(url)
        document = orjson.loads(_get(issuer, url, until))
    except (OSError, HTTPException, ValueError) as error:
        raise IssuerUnreachable(f"{url[:200]}: {type(error).__name__}: {error}"[:500]) from error
    if not isinstance(document, dict):
        raise IssuerUnreachable(f"{url[:200]}: what it sent is no object")
    return document


def _get(issuer: OidcIssuer, url: str, until: float) -> bytes:
    """Read a small answer; redirects are not followed, and the time is that of the whole answer."""
    parts = urlsplit(url)
    left_s = max(until - time.monotonic(), 0.001)
    host = str(parts.hostname)
    connection: HTTPConnection
    if parts.scheme == "https":
        trusted = create_default_context(cafile=issuer.ca_bundle)
        connection = HTTPSConnection(host, parts.port, timeout=left_s, context=trusted)
    else:
        connection = HTTPConnection(host, parts.port, timeout=left_s)
    try:
        connection.connect()
        cut = threading.Timer(max(until - time.monotonic(), 0.001), _cut, [connection.sock])
        cut.daemon = True
        cut.start()
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(
                "GET", path, headers={"Accept": "application/json", "User-Agent": "arriero-registry"}
            )
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"answers {response.status}")
            body = response.read(MAX_ANSWER_BYTES + 1)
        finally:
            cut.cancel()
    finally:
        connection.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"sends more than {MAX_ANSWER_BYTES} bytes")
    return body


def _cut(connected: Any) -> None:
    """End what drips: each piece comes in time, the whole does not."""
    try:
        connected.shutdown(SHUT_RDWR)
    except OSError:
        log.debug("connection to an issuer had ended")
