"""XRootD as a storage element: WebDAV over http and https on one port, third-party copy, adler32.

Each line of the configuration that is not obvious is there because a transfer failed without it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import ClassVar

from servicelib import stamp
from servicelib.accounts import python_for
from servicelib.authority import Authority
from servicelib.programs import find_library, find_program
from servicelib.server import WebDavServer

_CONFIGURATION = """\
all.export {prefix}
oss.localroot {root}
all.adminpath {home}/admin
all.pidpath {home}/admin
xrd.port {port}
xrd.network nodnr
xrd.allow host {clients}
# Without TLS the third-party copy handler is silently not loaded, also for plain http.
xrd.tls {certificate} {key}
xrd.tlsca certdir {certificates}
xrd.protocol XrdHttp:{port} libXrdHttp.so
http.listingdeny no
http.exthandler xrdtpc libXrdHttpTPC.so
http.header2cgi Authorization authz
# Seconds without a byte, seconds until the first one.
tpc.timeout 30 60
tpc.trace info
# A broken PUT leaves no partial file.
ofs.persist auto hold 0
# More than any test's concurrent checksum requests; queued ones fail after 60 s.
xrootd.chksum max 64 adler32 md5
ofs.notify closew msgs 9999 100 | {python} -u {stamp} {root}
"""


class XRootD(WebDavServer):
    """A private XRootD server.

    Parameters
    ----------
    directory, name, data_root
        As for `WebDavServer`. The data root must be on a file system with extended attributes.
    authority
        Who signs its certificate and whom it trusts; by default that of `directory`.
    clients
        Host pattern of the clients it serves.
    """

    kind = "xrootd"
    packages: ClassVar[tuple[str, ...]] = ("xrootd-server", "xrootd-server-plugins", "openssl", "python3")
    accounts = ("xrootd",)
    third_party_copy: ClassVar[bool] = True

    def __init__(
        self,
        directory: Path | str,
        name: str,
        *,
        data_root: Path | str | None = None,
        authority: Authority | None = None,
        clients: str = "127.0.0.1",
    ) -> None:
        super().__init__(directory, name, data_root=data_root)
        self.authority = authority or Authority(self.home.parent / "pki")
        self.clients = clients
        self.https_url = f"https://127.0.0.1:{self.port}{self.prefix}"
        self.ca_bundle = self.authority.ca_bundle

    @classmethod
    def lacks(cls) -> str | None:
        if not find_program("xrootd"):
            return "no xrootd"
        if not find_library("libXrdHttpTPC-*.so"):
            return "no libXrdHttpTPC"
        return None if find_program("openssl") else "no openssl"

    def configure(self) -> None:
        super().configure()
        self.authority.ensure()
        certificate, key = self.authority.install(self.home, self.account)
        self.make_directory(self.home / "admin", 0o700)
        helper = self.home / "stamp.py"
        shutil.copyfile(stamp.__file__, helper)
        (self.home / "xrootd.cfg").write_text(
            _CONFIGURATION.format(
                prefix=self.prefix,
                root=self.data_root,
                home=self.home,
                port=self.port,
                clients=self.clients,
                certificate=certificate,
                key=key,
                certificates=self.authority.certificates,
                python=python_for(self.account),
                stamp=helper,
            )
        )

    def command(self) -> list[str]:
        return [str(find_program("xrootd")), "-c", str(self.home / "xrootd.cfg"), "-n", self.name]

    def answers(self) -> bool:
        return self.request("HEAD", f"{self.url}/") == 200

    def write_file(self, relative: str, content: bytes) -> Path:
        path = super().write_file(relative, content)
        # A file system without extended attributes has no stamps: XRootD then computes, one at a time safely.
        with contextlib.suppress(OSError):
            stamp.stamp(os.fspath(path))
        return path
