"""XRootD as a storage element that asks who is there: bearer tokens of the WLCG's kind, certificates, macaroons.

The keys of the only issuer lie in the cache of the server's token library, so that nobody has to serve them over a
TLS connection that the machine would have to trust.
"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from servicelib.errors import ServiceError
from servicelib.programs import find_library
from servicelib.xrootd import XRootD

ISSUER = "https://issuer.example.org/arriero"
_CONFIGURATION = """\
ofs.authorize 1
acc.authdb {home}/authdb
ofs.authlib ++ libXrdMacaroons.so
ofs.authlib ++ libXrdAccSciTokens.so config={home}/scitokens.cfg
http.exthandler xrdmacaroons libXrdMacaroons.so
http.gridmap {home}/gridmap
macaroons.secretkey {home}/macaroon.key
all.sitename ARRIERO
"""
_TOKENS = """\
[Global]
audience = {audience}
onmissing = passthrough
[Issuer arriero]
issuer = {issuer}
base_path = {prefix}
"""
_FOREVER = 4_000_000_000


class XRootDWithTokens(XRootD):
    """A private XRootD server that lets nobody in without a token, a certificate of its user, or a macaroon.

    Attributes
    ----------
    user
        Distinguished name of the certificates that may do everything.
    """

    packages: ClassVar[tuple[str, ...]] = (*XRootD.packages, "xrootd-scitokens-plugins")
    user: ClassVar[str] = "/O=Arriero tests/CN=Mule"

    @classmethod
    def lacks(cls) -> str | None:
        if not find_library("libXrdAccSciTokens-*.so"):
            return "no libXrdAccSciTokens"
        return super().lacks()

    def configure(self) -> None:
        super().configure()
        with (self.home / "xrootd.cfg").open("a") as configuration:
            configuration.write(_CONFIGURATION.format(home=self.home))
        texts = {
            "authdb": f"u mule {self.prefix} a\n",
            "gridmap": f'"{self.user}" mule\n',
            "scitokens.cfg": _TOKENS.format(audience=self.audience, issuer=ISSUER, prefix=self.prefix),
            "macaroon.key": base64.b64encode(secrets.token_bytes(64)).decode() + "\n",
        }
        for name, text in texts.items():
            self.write_private(self.home / name, text)
        self._make_issuer()

    @property
    def audience(self) -> str:
        """What tokens for this server are for."""
        return f"https://127.0.0.1:{self.port}"

    def token_for(self, scope: str, *, seconds: float = 3600.0, audience: str | None = None) -> str:
        """Make a token.

        Parameters
        ----------
        scope
            As in the WLCG profile: `storage.read:/ storage.create:/raw`, relative to the prefix.
        seconds
            How long it is good from now; may be negative.
        audience
            For whom; by default this server.
        """
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "mule",
            "aud": audience or self.audience,
            "scope": scope,
            "wlcg.ver": "1.0",
            "jti": secrets.token_hex(8),
            "iat": now - 7200,
            "nbf": now - 7200,
            "exp": now + int(seconds),
        }
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (_HEADER, claims))
        return f"{signed}.{_encoded(self._signature(signed.encode()))}"

    def answers(self) -> bool:
        return self.request("OPTIONS", f"{self.url}/") == 200

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "XDG_CACHE_HOME": str(self.home / "cache")}

    @property
    def _key(self) -> Path:
        return self.home.parent / f"{self.name}-issuer.key"

    def _make_issuer(self) -> None:
        """Make the issuer's key, and put its public half where the server's token library looks first."""
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self._key))
        point = _openssl("ec", "-in", str(self._key), "-pubout", "-outform", "DER")[-64:]
        key = {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": _HEADER["kid"],
            "x": _encoded(point[:32]),
            "y": _encoded(point[32:]),
        }
        known = {"jwks": {"keys": [key]}, "expires": _FOREVER, "next_update": _FOREVER}
        folder = self.home / "cache" / "scitokens"
        for made in (folder.parent, folder):
            self.make_directory(made, 0o700)
        path = folder / "scitokens_cpp.sqllite"
        cache = sqlite3.connect(path)
        cache.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)")
        cache.execute("INSERT INTO keycache VALUES (?, ?)", (ISSUER, json.dumps(known)))
        cache.commit()
        cache.close()
        self.account.own(path)

    def _signature(self, text: bytes) -> bytes:
        """Sign as ES256 does: openssl gives r and s as DER integers, a token has 32 bytes of each."""
        der = _openssl("dgst", "-sha256", "-sign", str(self._key), input=text)
        first = 4 + der[3]
        numbers = (der[4:first], der[first + 2 :])
        return b"".join(number[-32:].rjust(32, b"\0") for number in numbers)


_HEADER = {"alg": "ES256", "typ": "JWT", "kid": "arriero"}


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _openssl(*arguments: str, input: bytes | None = None) -> bytes:  # noqa: A002
    done = subprocess.run(["openssl", *arguments], check=False, input=input, capture_output=True, timeout=60)
    if done.returncode != 0:
        raise ServiceError(f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
