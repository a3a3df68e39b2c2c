"""An issuer of bearer tokens: a real HTTP server with discovery document, key set and real keys.

It can change its keys, go away, and send what no issuer should.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "arriero"

_RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
_EC = ec.generate_private_key(ec.SECP256R1())
"""Made once: making an RSA key takes longer than most tests."""


class Issuer:
    """What a test knows of the issuer that it runs."""

    def __init__(self) -> None:
        self.key: Any = _RSA[0]
        self.kid = "first"
        self.asked: list[str] = []
        self.mode = "well"
        self.released = threading.Event()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="issuer")
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def rotate(self) -> None:
        """Sign with another key from now on, and publish only that."""
        self.key, self.kid = _RSA[1], "second"

    def use_elliptic_curve(self) -> None:
        """Sign with ES256."""
        self.key, self.kid = _EC, "curve"

    def public_key(self) -> bytes:
        """Give the public key as PEM."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def key_set(self) -> list[dict[str, Any]]:
        """Give what is published."""
        algorithm = ECAlgorithm if isinstance(self.key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
        one = json.loads(algorithm.to_jwk(self.key.public_key()))
        return [{**one, "kid": self.kid, "use": "sig"}]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Give the claims of a good token; None takes one away."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "ada",
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "wlcg.ver": "1.0",
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """Sign a token."""
        algorithm = "ES256" if isinstance(self.key, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(
            self.claims(**changes), self.key, algorithm, headers={"kid": self.kid, **(headers or {})}
        )

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer in the way that the test has chosen."""
        if self.mode == "down":
            self._send(request, b"away", status=503)
        elif self.mode == "redirect":
            request.send_response(302)
            request.send_header("Location", f"{self.url}/elsewhere")
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif self.mode == "garbage":
            self._send(request, b"<html>" + b"[" * 50_000)
        elif self.mode == "huge":
            self._send(request, b" " * (2 * 1024 * 1024) + b"{}")
        elif self.mode == "slow":
            self._drip(request)
        elif request.path == "/jwks":
            self._send(request, json.dumps({"keys": self._published()}).encode())
        else:
            named = "https://somebody.example.org" if self.mode == "impostor" else self.url
            keys = "file:///etc/passwd" if self.mode == "elsewhere" else f"{self.url}/jwks"
            self._send(request, json.dumps({"issuer": named, "jwks_uri": keys}).encode())

    def _published(self) -> Any:
        if self.mode == "odd keys":
            secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}
            odd = [secret, {"kty": "RSA"}, 7, None, {"kty": "RSA", "n": "AQ", "e": "AQAB", "kid": 7}]
            return [*odd, *self.key_set()]
        return {"kty": "RSA"} if self.mode == "no list" else self.key_set()

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        # whoever reads only so much of it goes away
        try:
            request.wfile.write(body)
        except OSError:
            request.close_connection = True

    def _drip(self, request: BaseHTTPRequestHandler) -> None:
        """Send a byte now and then: each comes in time, the whole does not."""
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        try:
            while not self.released.wait(0.02):
                request.wfile.write(b" ")
        except OSError:
            request.close_connection = True


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Run an issuer on a port of this machine."""
    issuer = Issuer()
    try:
        yield issuer
    finally:
        issuer.close()
