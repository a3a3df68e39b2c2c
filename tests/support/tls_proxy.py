"""Apache httpd before a registry: it ends TLS, verifies client certificates, and says whose they are.

The configuration is the one of docs/operations/authentication.md.
"""

from __future__ import annotations

import http.client
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servicelib.apache import MODULES
from servicelib.authority import Authority
from servicelib.programs import find_program
from servicelib.server import Server

_LOADED = ("mpm_event", "authn_core", "authz_core", "ssl", "headers", "proxy", "proxy_http")
_CONFIGURATION = """\
ServerRoot "{home}"
ServerName 127.0.0.1
DefaultRuntimeDir "{home}/run"
PidFile "{home}/run/httpd.pid"
Mutex file:{home}/run default
Listen 127.0.0.1:{port} https
{modules}
ErrorLog "{log}"
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
<VirtualHost 127.0.0.1:{port}>
    SSLEngine on
    SSLCertificateFile "{certificate}"
    SSLCertificateKeyFile "{key}"
    SSLCACertificateFile "{ca}"
    SSLVerifyClient optional
    SSLVerifyDepth 5
    RequestHeader set X-SSL-Client-Verify "%{{SSL_CLIENT_VERIFY}}s"
    RequestHeader set X-SSL-Client-S-DN "%{{SSL_CLIENT_S_DN}}s"
    RequestHeader set X-SSL-Client-I-DN "%{{SSL_CLIENT_I_DN}}s"
    AllowEncodedSlashes NoDecode
    ProxyPass "/" "{behind}/" nocanon
</VirtualHost>
"""


class TlsProxy(Server):
    """A private Apache httpd that passes everything on.

    Parameters
    ----------
    directory, name
        As for `Server`.
    behind
        URL of what it stands before.
    """

    kind = "tls-proxy"
    packages = ("apache2-bin", "openssl")
    accounts = ("www-data",)

    def __init__(self, directory: Path, name: str, *, behind: str) -> None:
        super().__init__(directory, name)
        self.authority = Authority(self.home.parent / f"{name}-pki")
        self.behind = behind
        self.url = f"https://127.0.0.1:{self.port}"

    @classmethod
    def lacks(cls) -> str | None:
        return None if find_program("apache2") else "no apache2"

    def configure(self) -> None:
        self.authority.ensure()
        certificate, key = self.authority.install(self.home, self.account)
        ca = self.write_private(self.home / "ca.pem", self.authority.ca_bundle.read_text())
        self.make_directory(self.home / "run", 0o700)
        loaded = (f'LoadModule {name}_module "{MODULES}/mod_{name}.so"' for name in _LOADED)
        self.write_private(
            self.home / "httpd.conf",
            _CONFIGURATION.format(
                home=self.home,
                port=self.port,
                modules="\n".join(loaded),
                log=self.log_path,
                certificate=certificate,
                key=key,
                ca=ca,
                behind=self.behind,
            ),
        )

    def command(self) -> list[str]:
        return [str(find_program("apache2")), "-D", "FOREGROUND", "-f", str(self.home / "httpd.conf")]

    def answers(self) -> bool:
        trusted = ssl.create_default_context(cafile=self.authority.ca_bundle)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=trusted)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        finally:
            connection.close()


@dataclass(frozen=True)
class Certificate:
    """A client's certificate and key, as files."""

    certificate: Path
    key: Path


def client_certificate(directory: Path, authority: Authority | None, subject: str) -> Certificate:
    """Make a client certificate.

    Parameters
    ----------
    authority
        Who signs it; None for the client itself.
    subject
        With slashes, as openssl takes it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key, request, certificate = (directory / f"client.{suffix}" for suffix in ("key", "csr", "pem"))
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key))
    if authority is None:
        _openssl("req", "-x509", *new, "-subj", subject, "-days", "1", "-out", str(certificate))
    else:
        _openssl("req", *new, "-subj", subject, "-out", str(request))
        signer = ("-CA", str(authority.ca_bundle), "-CAkey", str(authority.directory / "ca.key"))
        serial = ("-CAserial", str(directory / "serial"), "-CAcreateserial")
        _openssl(
            "x509", "-req", "-in", str(request), *signer, *serial, "-days", "1", "-out", str(certificate)
        )
    key.chmod(0o600)
    return Certificate(certificate, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
