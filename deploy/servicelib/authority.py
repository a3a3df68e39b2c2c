"""A certification authority for one directory of test servers, made with openssl.

Its only certificate is for `localhost` and 127.0.0.1. Nothing of it is ever installed on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

from servicelib.accounts import Account
from servicelib.errors import ServiceError

_EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
keyUsage=digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
basicConstraints=CA:FALSE
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_one_at_a_time = threading.Lock()


class Authority:
    """The authority of a directory, created at first use.

    Parameters
    ----------
    directory
        Where its files are, created when missing.

    Attributes
    ----------
    ca_bundle
        The authority's certificate, for clients to trust.
    certificates
        The same as a hashed directory, as grid software wants it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_bundle = directory / "ca.pem"
        self.certificates = directory / "certificates"

    def ensure(self) -> None:
        """Create the authority and the host certificate unless they exist.

        Raises
        ------
        ServiceError
            If openssl fails.
        """
        with _one_at_a_time:
            if (self.directory / "complete").exists():
                return
            shutil.rmtree(self.directory, ignore_errors=True)
            self.certificates.mkdir(parents=True)
            self._create()
            (self.directory / "complete").touch()

    def install(self, target: Path, account: Account) -> tuple[Path, Path]:
        """Copy the host certificate and key into a server's directory.

        Returns
        -------
        certificate, key
            Their paths; the key is readable for `account` only.
        """
        certificate, key = target / "host.pem", target / "host.key"
        shutil.copyfile(self.directory / "host.pem", certificate)
        shutil.copyfile(self.directory / "host.key", key)
        key.chmod(0o600)
        account.own(certificate, key)
        return certificate, key

    def _create(self) -> None:
        days = ("-days", "365")
        subject = ("-subj", "/O=Arriero tests/CN=Arriero test authority")
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl("req", "-x509", *_KEY, *days, *subject, *usage, "-keyout", "ca.key", "-out", "ca.pem")
        subject = ("-subj", "/O=Arriero tests/CN=localhost")
        self._openssl("req", *_KEY, *subject, "-keyout", "host.key", "-out", "host.csr")
        (self.directory / "host.ext").write_text(_EXTENSIONS)
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "host.ext")
        self._openssl("x509", "-req", "-in", "host.csr", *signer, *days, "-out", "host.pem")
        shutil.copy(self.ca_bundle, self.certificates / "ca.pem")
        name = self._openssl("x509", "-noout", "-subject_hash", "-in", "ca.pem").strip()
        (self.certificates / f"{name}.0").symlink_to("ca.pem")

    def _openssl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["openssl", *arguments],
            check=False,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise ServiceError(f"openssl {arguments[0]} failed in {self.directory}: {done.stderr.strip()}")
        return done.stdout
