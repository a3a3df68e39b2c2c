"""Apache httpd with mod_dav: the storage element without third-party copy and without checksums."""

from __future__ import annotations

import secrets
from pathlib import Path

from servicelib.authority import Authority
from servicelib.programs import find_program
from servicelib.server import WebDavServer

MODULES = Path("/usr/lib/apache2/modules")
_LOADED = ("mpm_event", "authn_core", "authz_core", "dav", "dav_fs", "ssl")
_CONFIGURATION = """\
ServerRoot "{home}"
ServerName 127.0.0.1
DefaultRuntimeDir "{home}/run"
PidFile "{home}/run/httpd.pid"
Mutex file:{home}/run default
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{tls_port} https
{modules}
ErrorLog "{log}"
CustomLog "{home}/access.log" "%h \\"%r\\" %>s in=%{{Content-Length}}i out=%B %D us \\"%{{User-Agent}}i\\""
StartServers 1
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
MaxKeepAliveRequests 0
LimitRequestBody 0
DocumentRoot "{root}"
DavLockDB "{home}/run/locks"
<Directory "/">
    AllowOverride None
    Require all denied
</Directory>
<Directory "{root}">
    Dav On
    {listing}
    {permission}
</Directory>
<VirtualHost 127.0.0.1:{tls_port}>
    SSLEngine on
    SSLCertificateFile "{certificate}"
    SSLCertificateKeyFile "{key}"
</VirtualHost>
"""


class Apache(WebDavServer):
    """A private Apache httpd with mod_dav on one port for http and one for https.

    Parameters
    ----------
    directory, name, data_root
        As for `WebDavServer`.
    authority
        Who signs its certificate; by default that of `directory`.
    with_token
        Ask for a bearer token, which is made up and found in `token`.
    with_listing
        Show directories to who reads them, as most sites do; without it, HEAD of one says 404.
    """

    kind = "apache"
    packages = ("apache2-bin", "openssl")
    accounts = ("www-data",)
    ports = ("port", "tls_port")

    def __init__(
        self,
        directory: Path | str,
        name: str = "apache",
        *,
        data_root: Path | str | None = None,
        authority: Authority | None = None,
        with_token: bool = False,
        with_listing: bool = False,
    ) -> None:
        self._with_token = with_token
        self._with_listing = with_listing
        super().__init__(directory, name, data_root=data_root)
        self.authority = authority or Authority(self.home.parent / "pki")
        self.https_url = f"https://127.0.0.1:{self.settings['tls_port']}{self.prefix}"
        self.ca_bundle = self.authority.ca_bundle
        self.token = str(self.settings["token"]) or None
        self.access_log_path = self.home / "access.log"

    @classmethod
    def lacks(cls) -> str | None:
        if not find_program("apache2"):
            return "no apache2"
        if not (MODULES / "mod_dav_fs.so").exists():
            return f"no mod_dav_fs in {MODULES}"
        return None if find_program("openssl") else "no openssl"

    def new_settings(self) -> dict[str, str | int]:
        return {**super().new_settings(), "token": secrets.token_urlsafe(24) if self._with_token else ""}

    def configure(self) -> None:
        super().configure()
        self.authority.ensure()
        certificate, key = self.authority.install(self.home, self.account)
        self.make_directory(self.home / "run", 0o700)
        permission = "Require all granted"
        if self.token:
            permission = f"Require expr \"req('Authorization') == 'Bearer {self.token}'\""
        loaded = (*_LOADED, "autoindex") if self._with_listing else _LOADED
        self.write_private(
            self.home / "httpd.conf",
            _CONFIGURATION.format(
                home=self.home,
                port=self.port,
                tls_port=self.settings["tls_port"],
                modules="\n".join(f'LoadModule {name}_module "{MODULES}/mod_{name}.so"' for name in loaded),
                listing="Options +Indexes" if self._with_listing else "",
                log=self.log_path,
                root=self.data_root,
                permission=permission,
                certificate=certificate,
                key=key,
            ),
        )

    def command(self) -> list[str]:
        return [str(find_program("apache2")), "-D", "FOREGROUND", "-f", str(self.home / "httpd.conf")]

    def answers(self) -> bool:
        headers = {"Depth": "0"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return self.request("PROPFIND", f"{self.url}/", headers) == 207
