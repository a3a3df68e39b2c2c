"""The official client's ways to log in: password, certificate, grid proxy certificate, token of an issuer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from rucio.common import exception

from support.issuer import AUDIENCE, Issuer, running_issuer
from support.official import Official
from support.server import running_registry
from support.tls_proxy import TlsProxy, client_certificate

CONFIGURATION = """[client]
rucio_host = {url}
auth_host = {url}
auth_type = {kind}
ca_cert = {ca}
{more}
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request, services, issuer, tmp_path_factory) -> Iterator[Official]:
    """A registry that believes the issuer and the proxies of this machine; alice has an identity of each kind."""
    directory = tmp_path_factory.mktemp(f"auth-{request.param}")
    believed = {"issuer": issuer.url, "audience": AUDIENCE, "allow_http": True}
    with running_registry(
        services, request.param, directory, x509_proxies=["127.0.0.1"], oidc_issuers=[believed]
    ) as running:
        root = running.client()
        for name in ("alice", "team"):
            root._call("POST", f"/accounts/{name}", body={"type": "USER"})
            for kind, identity in (
                ("X509", "/O=Arriero tests/CN=Ada Lovelace"),
                ("OIDC", f"SUB=ada, ISS={issuer.url}"),
            ):
                new = {"identity": identity, "authtype": kind, "default": name == "alice"}
                root._call("POST", f"/accounts/{name}/identities", body=new)
        yield Official(running, directory)


@pytest.fixture(scope="module")
def proxy(site, services) -> Iterator[TlsProxy]:
    made = TlsProxy(services.directory, f"tls-proxy-{site.directory.name}", behind=site.registry.url)
    made.start()
    yield made
    made.stop()


def connect(monkeypatch, tmp_path: Path, url: str, kind: str, *, ca: Path | str = "", **options: object):
    """Make a client as a person would who has this configuration."""
    more = "".join(f"{name} = {value}\n" for name, value in options.items())
    path = tmp_path / "rucio.cfg"
    path.write_text(CONFIGURATION.format(url=url, kind=kind, ca=ca, more=more))
    monkeypatch.setenv("RUCIO_CONFIG", str(path))
    from rucio.client import Client
    from rucio.common import config

    config.clean_cached_config()
    return Client()


class TestCertificates:
    @pytest.mark.client_method("AccountClient.whoami")
    def test_x509(self, proxy, tmp_path, monkeypatch):
        ada = client_certificate(tmp_path / "ada", proxy.authority, "/O=Arriero tests/CN=Ada Lovelace")
        options = {
            "ca": proxy.authority.ca_bundle,
            "client_cert": ada.certificate,
            "client_key": ada.key,
        }
        token = tmp_path / "token"
        client = connect(monkeypatch, tmp_path, proxy.url, "x509", auth_token_file_path=token, **options)
        assert client.whoami()["account"] == "alice"
        token.unlink()
        team = connect(
            monkeypatch, tmp_path, proxy.url, "x509", account="team", auth_token_file_path=token, **options
        )
        assert team.whoami()["account"] == "team"
        token.unlink()
        with pytest.raises(exception.CannotAuthenticate):
            connect(
                monkeypatch,
                tmp_path,
                proxy.url,
                "x509",
                account="root",
                auth_token_file_path=token,
                **options,
            )

    def test_a_certificate_of_somebody_else(self, proxy, tmp_path, monkeypatch):
        eve = client_certificate(tmp_path / "eve", proxy.authority, "/O=Arriero tests/CN=Eve")
        with pytest.raises(exception.CannotAuthenticate):
            connect(
                monkeypatch,
                tmp_path,
                proxy.url,
                "x509",
                ca=proxy.authority.ca_bundle,
                client_cert=eve.certificate,
                client_key=eve.key,
                auth_token_file_path=tmp_path / "token",
            )

    def test_the_proxy_replaces_what_a_client_says_of_itself(self, proxy, tmp_path):
        said = {"X-SSL-Client-S-DN": "/O=Arriero tests/CN=Ada Lovelace", "X-SSL-Client-Verify": "SUCCESS"}
        ca = str(proxy.authority.ca_bundle)
        eve = client_certificate(tmp_path / "eve", proxy.authority, "/O=Arriero tests/CN=Eve")
        for cert in (None, (str(eve.certificate), str(eve.key))):
            answered = requests.get(f"{proxy.url}/auth/x509", headers=said, verify=ca, cert=cert, timeout=20)
            assert answered.status_code == 401, answered.headers

    def test_a_name_with_slashes_passes_the_proxy(self, proxy, tmp_path, monkeypatch):
        ada = client_certificate(tmp_path / "ada", proxy.authority, "/O=Arriero tests/CN=Ada Lovelace")
        client = connect(
            monkeypatch,
            tmp_path,
            proxy.url,
            "x509",
            ca=proxy.authority.ca_bundle,
            client_cert=ada.certificate,
            client_key=ada.key,
            auth_token_file_path=tmp_path / "token",
        )
        with pytest.raises(exception.DataIdentifierNotFound, match=r"nowhere:a/b c\+d%2F"):
            client.get_did("nowhere", "a/b c+d%2F")


class TestTokensOfAnIssuer:
    def test_a_token_from_the_environment(self, site, issuer, tmp_path, monkeypatch):
        """The WLCG way: `BEARER_TOKEN` or `BEARER_TOKEN_FILE`."""
        monkeypatch.setenv("BEARER_TOKEN", issuer.token())
        client = connect(monkeypatch, tmp_path, site.registry.url, "oidc")
        assert client.whoami()["account"] == "alice"
        monkeypatch.delenv("BEARER_TOKEN")
        token = tmp_path / "bearer"
        token.write_text(issuer.token() + "\n")
        monkeypatch.setenv("BEARER_TOKEN_FILE", str(token))
        client = connect(monkeypatch, tmp_path, site.registry.url, "oidc", account="team")
        assert client.whoami()["account"] == "team"

    def test_a_token_in_the_clients_own_file(self, site, issuer, tmp_path, monkeypatch):
        for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name, raising=False)
        token = tmp_path / "token"
        token.write_text(issuer.token())
        client = connect(monkeypatch, tmp_path, site.registry.url, "oidc", auth_token_file_path=token)
        assert client.whoami()["account"] == "alice"

    def test_the_command_line(self, site, issuer, tmp_path):
        configuration = tmp_path / "rucio.cfg"
        configuration.write_text(
            CONFIGURATION.format(url=site.registry.url, kind="oidc", ca="", more="account = alice")
        )
        done = subprocess.run(
            [str(Path(sys.executable).with_name("rucio")), "whoami"],
            env={**os.environ, "RUCIO_CONFIG": str(configuration), "BEARER_TOKEN": issuer.token()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert re.search(r"account\s*: alice", done.stdout), done.stdout + done.stderr

    @pytest.mark.parametrize("changes", [{"aud": "another"}, {"sub": "eve"}, {"exp": 1}])
    def test_a_token_that_does_not_hold(self, site, issuer, tmp_path, monkeypatch, changes):
        """The client then asks for the way by the browser, which is not served: it gives up by itself."""
        monkeypatch.setenv("BEARER_TOKEN", issuer.token(**changes))
        client = connect(monkeypatch, tmp_path, site.registry.url, "oidc")
        with pytest.raises(exception.CannotAuthenticate, match="OIDC authentication failed"):
            client.whoami()

    def test_validate(self, site, issuer):
        for headers in (
            {"Authorization": f"Bearer {issuer.token()}"},
            {"X-Rucio-Auth-Token": issuer.token()},
        ):
            answered = requests.get(f"{site.registry.url}/auth/validate", headers=headers, timeout=20)
            assert (answered.status_code, answered.json()["account"]) == (200, "alice")
            assert answered.json()["lifetime"].endswith("UTC")
        forged = {"Authorization": f"Bearer {issuer.token(aud='another')}"}
        assert (
            requests.get(f"{site.registry.url}/auth/validate", headers=forged, timeout=20).status_code == 401
        )


class TestWaysThatAreNotServed:
    @pytest.mark.parametrize(
        "path",
        ["oidc", "oidc_redirect", "oidc_code", "oidc_refresh", "ssh", "ssh_challenge_token", "gss", "saml"],
    )
    def test_the_answer_says_which_are(self, site, path):
        answered = requests.get(f"{site.registry.url}/auth/{path}", timeout=20)
        assert answered.status_code == 501
        assert answered.headers["ExceptionClass"] == "UnsupportedOperation"
        assert "bearer token" in answered.headers["ExceptionMessage"]
