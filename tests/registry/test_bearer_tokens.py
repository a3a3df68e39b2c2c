"""Bearer tokens of a real issuer, and what attackers make of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from arriero.registry.errors import Busy, InvalidInput, NotAuthenticated
from arriero.registry.services import accounts, identities
from arriero.registry.services.authentication import authenticate, token_expiry
from arriero.registry.services.bearer_tokens import identity_of, verify
from arriero.registry.services.context import Context
from arriero.registry.services.issuer_keys import IssuerUnreachable, fetch_keys
from arriero.registry.settings import OidcIssuer, Settings
from arriero.registry.states import Role
from support.issuer import AUDIENCE, Issuer, running_issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


def settings_for(issuer: Issuer, **options: object) -> Settings:
    believed = {"issuer": issuer.url, "audience": AUDIENCE, "allow_http": True}
    return Settings(oidc_issuers=[{**believed, **options.pop("issuer_options", {})}], **options)


@pytest.fixture
def believing(catalogue, issuer) -> Context:
    """The services, with the issuer among those that are believed, and `ada` as alice."""
    catalogue.account("alice")
    add(catalogue, issuer, "alice", is_default=True)
    return Context(catalogue.database, settings_for(issuer, oidc_refetch_s=0), catalogue.doorbell)


def add(catalogue, issuer: Issuer, account: str, *, is_default: bool = False, subject: str = "ada") -> None:
    identities.add_identity(
        catalogue.context,
        catalogue.root,
        account,
        identity=identity_of(subject, issuer.url),
        kind="OIDC",
        password=None,
        is_default=is_default,
    )


def test_a_token_acts_as_the_default_account_or_as_one_that_is_asked_for(catalogue, issuer, believing):
    catalogue.account("team", Role.READER)
    catalogue.account("others")
    add(catalogue, issuer, "team")
    token = issuer.token()
    actor = authenticate(believing, token)
    assert (actor.account, actor.role, actor.token_id) == ("alice", Role.DATA_MANAGER, None)
    assert authenticate(believing, token, account="team").role is Role.READER
    for refused in ("others", "nobody"):
        with pytest.raises(NotAuthenticated, match="may not act"):
            authenticate(believing, token, account=refused)
    account, expires_at = token_expiry(believing, token)
    assert account == "alice"
    assert 590 < expires_at.timestamp() - time.time() < 610
    with pytest.raises(NotAuthenticated, match="may not act"):
        authenticate(believing, issuer.token(sub="eve"))


def test_who_is_suspended_deleted_or_no_longer_meant_is_out_at_once(catalogue, issuer, believing):
    token = issuer.token()
    for change, undo in (({"status": "SUSPENDED"}, {"status": "ACTIVE"}),):
        accounts.update_account(catalogue.context, catalogue.root, "alice", change)
        with pytest.raises(NotAuthenticated):
            authenticate(believing, token)
        accounts.update_account(catalogue.context, catalogue.root, "alice", undo)
        assert authenticate(believing, token).account == "alice"
    identity = identity_of("ada", issuer.url)
    identities.delete_identity(catalogue.context, catalogue.root, "alice", identity=identity, kind="OIDC")
    with pytest.raises(NotAuthenticated):
        authenticate(believing, token)
    add(catalogue, issuer, "alice")
    assert authenticate(believing, token).account == "alice"
    accounts.delete_account(catalogue.context, catalogue.root, "alice")
    with pytest.raises(NotAuthenticated):
        authenticate(believing, token)


def test_elliptic_curves_and_access_tokens(issuer):
    issuer.use_elliptic_curve()
    settings = settings_for(issuer)
    bearer = verify(settings, issuer.token(headers={"typ": "at+jwt"}, aud=["other", AUDIENCE]))
    assert bearer.identity == f"SUB=ada, ISS={issuer.url}"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"aud": "somebody else"}, "audience"),
        ({"aud": None}, "claims"),
        ({"iss": "https://evil.example.org"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": int(time.time()) - 3600}, "expired"),
        ({"exp": None}, "claims"),
        ({"exp": "soon"}, "claims"),
        ({"exp": 1e400}, "claims"),
        ({"nbf": int(time.time()) + 3600}, "time"),
        ({"iat": int(time.time()) + 3600}, "time"),
        ({"sub": None}, "claims"),
        ({"sub": ""}, "read"),
        ({"sub": "x" * 256}, "read"),
        ({"sub": "a\nb"}, "read"),
        ({"sub": 7}, "claims|read"),
        ({"wlcg.ver": "2.0"}, "WLCG"),
        ({"wlcg.ver": 1.0}, "WLCG"),
    ],
)
def test_claims_that_are_not_for_us(issuer, changes, told):
    if changes.get("exp") == 1e400:
        # no library writes it; a hand does
        token = forged(issuer, claims=json.dumps(issuer.claims()).replace('"exp": ', '"exp": 1e400, "x": '))
    else:
        token = issuer.token(**changes)
    with pytest.raises(NotAuthenticated, match=told):
        verify(settings_for(issuer), token)


def forged(issuer: Issuer, *, claims: str) -> str:
    """Sign what no library would."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    head = encoded(json.dumps({"alg": "RS256", "kid": issuer.kid}).encode())
    signed = f"{head}.{encoded(claims.encode())}"
    return f"{signed}.{encoded(issuer.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_the_wlcg_profile_can_be_demanded(issuer):
    settings = settings_for(issuer, issuer_options={"wlcg": True})
    assert verify(settings, issuer.token()).identity
    with pytest.raises(NotAuthenticated, match="WLCG"):
        verify(settings, issuer.token(**{"wlcg.ver": None}))


def test_forgeries(issuer):
    settings = settings_for(issuer)
    good = issuer.token()
    head, body, signature = good.split(".")
    claims = json.dumps(issuer.claims()).encode()
    none = encoded(b'{"alg":"none","kid":"first"}') + "." + encoded(claims) + "."
    confused = encoded(b'{"alg":"HS256","kid":"first"}') + "." + encoded(claims)
    mac = hmac.new(issuer.public_key(), confused.encode(), hashlib.sha256).digest()
    swapped = encoded(json.dumps(issuer.claims(sub="root")).encode())
    own_key = encoded(
        json.dumps({"alg": "RS256", "jwk": issuer.key_set()[0], "jku": issuer.url, "kid": "mine"}).encode()
    )
    deep = encoded(b"[" * 8000)
    for token in (
        none,
        none.replace("none", "None"),
        f"{confused}.{encoded(mac)}",
        f"{head}.{swapped}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{encoded(b'x' * 256)}",
        f"{own_key}.{body}.{signature}",
        issuer.token(headers={"crit": ["exp"]}),
        issuer.token(headers={"typ": "logout+jwt"}),
        issuer.token(headers={"typ": 7}),
        f"{encoded(b'7')}.{body}.{signature}",
        f"{deep}.{body}.{signature}",
        f"{head}.{deep}.{signature}",
        "a.b.c",
        good + "x" * 20_000,
    ):
        with pytest.raises(NotAuthenticated):
            verify(settings, token)
    assert verify(settings, good).identity


def test_the_algorithm_is_that_of_the_key(issuer):
    """An ES256 key is no key for RS256, whatever the token says."""
    settings = settings_for(issuer)
    token = issuer.token()
    issuer.use_elliptic_curve()
    issuer.kid = "first"
    with pytest.raises(NotAuthenticated, match="algorithm"):
        verify(settings, token)


def test_without_issuers_in_the_settings_no_token_is_believed(catalogue, issuer):
    with pytest.raises(NotAuthenticated, match="issuer"):
        authenticate(catalogue.context, issuer.token())
    assert issuer.asked == []


def test_keys_are_fetched_once_and_again_when_they_change(issuer):
    settings = settings_for(issuer, oidc_refetch_s=0)
    old = issuer.token()
    with ThreadPoolExecutor(4) as pool:
        assert len({one.identity for one in pool.map(lambda _: verify(settings, old), range(40))}) == 1
    assert issuer.asked.count("/jwks") <= 4
    asked = len(issuer.asked)
    verify(settings, old)
    assert len(issuer.asked) == asked
    issuer.rotate()
    assert verify(settings, issuer.token()).identity
    with pytest.raises(NotAuthenticated, match="does not publish"):
        verify(settings, old)


def test_a_flood_of_unknown_keys_asks_the_issuer_once(issuer):
    settings = settings_for(issuer, oidc_refetch_s=3600)
    assert verify(settings, issuer.token()).identity
    for number in range(50):
        with pytest.raises(NotAuthenticated, match="does not publish"):
            verify(settings, issuer.token(headers={"kid": f"made up {number}"}))
    assert issuer.asked.count("/jwks") == 1


def test_an_issuer_that_is_away_is_bridged_for_a_while(issuer):
    settings = settings_for(issuer, oidc_refetch_s=0, oidc_keys_refresh_s=1e-6)
    token = issuer.token()
    assert verify(settings, token).identity
    issuer.mode = "down"
    assert verify(settings, token).identity
    assert len(issuer.asked) > 2
    at_once = settings_for(issuer, oidc_keys_refresh_s=1e-6, oidc_keys_max_age_s=1e-6, oidc_refetch_s=0)
    with pytest.raises(Busy, match="cannot be fetched"):
        verify(at_once, token)
    issuer.mode = "well"
    assert verify(settings_for(issuer, oidc_refetch_s=0), token).identity


@pytest.mark.parametrize(
    "mode", ["down", "redirect", "garbage", "huge", "slow", "impostor", "elsewhere", "no list"]
)
def test_what_no_issuer_should_send(issuer, mode):
    believed = settings_for(issuer).oidc_issuers[0]
    issuer.mode = mode
    begun = time.monotonic()
    with pytest.raises(IssuerUnreachable):
        fetch_keys(believed, 0.3)
    assert time.monotonic() - begun < 2
    assert "/elsewhere" not in issuer.asked
    with pytest.raises(Busy):
        verify(settings_for(issuer, oidc_timeout_s=0.3), issuer.token())


def test_keys_that_cannot_be_used_are_passed_over(issuer):
    issuer.mode = "odd keys"
    assert set(fetch_keys(settings_for(issuer).oidc_issuers[0], 5)) == {"first"}


def test_a_slow_issuer_holds_up_few(issuer):
    """Of many calls a handful wait; the others are told to come again."""
    issuer.mode = "slow"
    settings = settings_for(issuer, oidc_timeout_s=3.0)
    token = issuer.token()

    def waited(_: int) -> float:
        begun = time.monotonic()
        with pytest.raises(Busy):
            verify(settings, token)
        return time.monotonic() - begun

    with ThreadPoolExecutor(16) as pool:
        times = sorted(pool.map(waited, range(16)))
    assert times[8] < 2


@pytest.mark.parametrize(
    "entry",
    [
        {"issuer": "http://issuer.example.org", "audience": "x"},
        {"issuer": "http://127.0.0.1:1", "audience": "x"},
        {"issuer": "http://issuer.example.org", "audience": "x", "allow_http": True},
        {"issuer": "https://user@issuer.example.org", "audience": "x"},
        {"issuer": "https://issuer.example.org, ISS=x", "audience": "x"},
        {"issuer": "https://issuer.example.org", "audience": []},
        {"issuer": "file:///etc/passwd", "audience": "x", "allow_http": True},
        {"issuer": "https://issuer.example.org"},
    ],
)
def test_an_issuer_that_cannot_be_believed_is_refused_at_the_start(entry):
    with pytest.raises(ValidationError):
        OidcIssuer(**entry)


def test_an_issuer_is_named_once():
    entry = {"issuer": "https://issuer.example.org", "audience": "x"}
    with pytest.raises((ValidationError, InvalidInput), match="twice"):
        Settings(oidc_issuers=[entry, entry])


@pytest.mark.parametrize("identity", ["ada", "SUB=ada", "SUB=ada, ISS=ftp://x", "SUB=, ISS=https://x"])
def test_what_is_no_identity_of_an_issuer(catalogue, identity):
    with pytest.raises(InvalidInput, match="SUB="):
        identities.add_identity(
            catalogue.context, catalogue.root, "root", identity=identity, kind="OIDC", password=None
        )
