"""Certificates: believed from a proxy that is trusted and has verified them, and from nobody else."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from arriero.registry.errors import InvalidInput
from arriero.registry.services import identities
from arriero.registry.services.x509_subjects import owner_of, subject_of
from support.server import RunningRegistry, running_registry

ADA = "/DC=org/DC=example/CN=Ada Lovelace"
ADA_2253 = "CN=Ada Lovelace,DC=example,DC=org"
SUBJECT, VERIFIED, ISSUED_BY = "X-SSL-Client-S-DN", "X-SSL-Client-Verify", "X-SSL-Client-I-DN"


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        (ADA, ADA),
        (ADA_2253, ADA),
        ("CN=Ada Lovelace, DC=example , DC=org", ADA),
        (r"CN=Lovelace\, Ada,O=x", "/O=x/CN=Lovelace, Ada"),
        ('CN="Lovelace, Ada",O=x', "/O=x/CN=Lovelace, Ada"),
        (r"CN=Ren\C3\A9,O=x", "/O=x/CN=René"),
        ("CN=host/www.example.org,O=x", "/O=x/CN=host/www.example.org"),
        ("CN=a+UID=b,O=x", "/O=x/CN=a+UID=b"),
        ("1.2.840.113549.1.9.1=a@example.org,CN=a", "/CN=a/1.2.840.113549.1.9.1=a@example.org"),
    ],
)
def test_both_ways_to_write_a_subject_are_one(sent, known):
    assert subject_of(sent) == known
    assert subject_of(known) == known


@pytest.mark.parametrize(
    "sent",
    ["", "Ada", "CN=", "CN=a,", "CN=a\\", r"CN=a\2", "CN=a/O=b", r"CN=x\2FCN=root", "CN=#0401", "/", "//CN=a",
     "/CN=", "CN=a\nO=b", r"CN=\C3", "CN=" + "x" * 3000, '"CN=a', r"CN=a\00"],
)  # fmt: skip
def test_what_is_no_subject_or_could_be_anothers(sent):
    with pytest.raises(InvalidInput):
        subject_of(sent)


def test_a_grid_proxy_is_its_owners_only_if_the_issuer_says_so():
    for last in ("CN=proxy", "CN=limited proxy", "CN=1234567"):
        assert owner_of(f"{ADA}/{last}", ADA) == ADA
        assert owner_of(f"{ADA}/{last}", "/CN=Some authority") == f"{ADA}/{last}"
    assert owner_of(ADA, "/DC=org/DC=example") == ADA
    # a second proxy below the first cannot be told from a name that ends in figures
    assert owner_of(f"{ADA}/CN=1/CN=2", f"{ADA}/CN=1") == f"{ADA}/CN=1"


@pytest.fixture(params=["sqlite", "postgresql"])
def trusting(request, services, tmp_path) -> Iterator[RunningRegistry]:
    """A registry that believes this machine's proxies, and knows Ada as alice and team."""
    with running_registry(services, request.param, tmp_path, x509_proxies=["127.0.0.0/8"]) as running:
        identify(running)
        yield running


def identify(running: RunningRegistry) -> None:
    root = running.client()
    for name, default in (("alice", True), ("team", False)):
        root._call("POST", f"/accounts/{name}", body={"type": "USER"})
        identity = {"identity": ADA_2253, "authtype": "X509", "default": default}
        root._call("POST", f"/accounts/{name}/identities", body=identity)


def ask(running: RunningRegistry, headers: list[tuple[str, str]], path: str = "/auth/x509"):
    """Send headers as they are, each as often as it stands there."""
    parts = urlsplit(running.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.putrequest("GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answered = connection.getresponse()
        answered.read()
        return answered
    finally:
        connection.close()


def test_a_verified_subject_logs_in(trusting):
    for subject in (ADA, ADA_2253):
        answered = ask(trusting, [(SUBJECT, subject), (VERIFIED, "SUCCESS")])
        assert answered.status == 200
        assert answered.headers["X-Rucio-Auth-Account"] == "alice"
        assert trusting.client(token=answered.headers["X-Rucio-Auth-Token"]).whoami()["account"] == "alice"
    answered = ask(trusting, [(SUBJECT, ADA), (VERIFIED, "SUCCESS"), ("X-Rucio-Account", "team")])
    assert answered.headers["X-Rucio-Auth-Account"] == "team"
    proxy = [(SUBJECT, f"{ADA}/CN=4711"), (VERIFIED, "SUCCESS"), (ISSUED_BY, ADA)]
    assert ask(trusting, proxy, "/auth/x509_proxy").headers["X-Rucio-Auth-Account"] == "alice"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(SUBJECT, ADA)],
        [(VERIFIED, "SUCCESS")],
        [(SUBJECT, "(null)"), (VERIFIED, "SUCCESS")],
        [(SUBJECT, ADA), (VERIFIED, "NONE")],
        [(SUBJECT, ADA), (VERIFIED, "FAILED:unable to get local issuer certificate")],
        [(SUBJECT, ADA), (VERIFIED, "GENEROUS")],
        [(SUBJECT, ADA), (SUBJECT, "/CN=mine"), (VERIFIED, "SUCCESS")],
        [(SUBJECT, ADA), (VERIFIED, "SUCCESS"), (VERIFIED, "SUCCESS")],
        [(SUBJECT, "/CN=Eve"), (VERIFIED, "SUCCESS")],
        [(SUBJECT, f"{ADA}/CN=4711"), (VERIFIED, "SUCCESS"), (ISSUED_BY, ADA)],
        [(SUBJECT, r"CN=Eve/CN=Ada"), (VERIFIED, "SUCCESS")],
        [(SUBJECT, ADA), (VERIFIED, "SUCCESS"), ("X-Rucio-Account", "root")],
        [(SUBJECT, ADA), (VERIFIED, "SUCCESS"), ("X-Rucio-Account", "nobody")],
    ],
)
def test_what_a_trusted_proxy_did_not_verify_does_not_log_in(trusting, headers):
    answered = ask(trusting, headers)
    assert (answered.status, answered.headers["ExceptionClass"]) == (401, "CannotAuthenticate")
    assert "X-Rucio-Auth-Token" not in answered.headers


def test_without_a_trusted_proxy_the_headers_are_ignored(services, tmp_path):
    """Also from one who says that he speaks for a proxy that is trusted."""
    for number, proxies in enumerate(([], ["192.0.2.1", "2001:db8::/32"])):
        directory = tmp_path / str(number)
        directory.mkdir()
        with running_registry(services, "sqlite", directory, x509_proxies=proxies) as running:
            identify(running)
            verified = [(SUBJECT, ADA), (VERIFIED, "SUCCESS")]
            for more in ([], [("X-Forwarded-For", "192.0.2.1")], [("Forwarded", "for=192.0.2.1")]):
                assert ask(running, verified + more).status == 401


@pytest.mark.parametrize("identity", ["Ada", "/CN=", "CN=a/O=b"])
def test_what_is_no_identity_of_a_certificate(catalogue, identity):
    with pytest.raises(InvalidInput):
        identities.add_identity(
            catalogue.context, catalogue.root, "root", identity=identity, kind="x509", password=None
        )
