"""Connections: kept, never mixed up, and closed to the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arriero.rse.errors import AccessDenied, NotFound, RefusedByGuard, TimedOut, Unavailable, Unsupported
from arriero.rse.pool import ProtocolPool, protocol_for
from arriero.rse.protocol import OtherSide
from arriero.rse.types import Endpoint
from servicelib.apache import Apache
from support.rse_badserver import PREFIX, Fault, bad_server
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


def test_environment_does_not_reach_the_connections(
    services: Services, pool, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("default login thief password stolen\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / ".netrc"))
    with bad_server() as bad:
        bad.files["f"] = b"abc"
        assert b"".join(pool.get(bad.endpoint()).read("f")) == b"abc"
        assert all("Authorization" not in headers for _, _, headers in bad.requests)
        assert all(headers["Accept-Encoding"] == "identity" for _, _, headers in bad.requests)
    assert pool.get(https_endpoint_of(services.xrootd_slac)).stat("").is_directory


def test_connections_are_used_again(services: Services, pool) -> None:
    protocol = pool.get(endpoint_of(services.xrootd_slac))
    protocol.make_parents("reuse/f")
    protocol.write("reuse/f", [b"abc"], 3)
    for _ in range(100):
        assert protocol.stat("reuse/f", digest=True).bytes == 3
        assert b"".join(protocol.read("reuse/f")) == b"abc"
    session = protocol._client().session
    assert session.requests > 200
    assert session.pool.opened < 5


def test_a_fork_does_not_share_connections(services: Services, pool) -> None:
    endpoint = endpoint_of(services.xrootd_slac)
    for number in range(20):
        services.xrootd_slac.write_file(f"fork/{number}", str(number).encode() * 100)
    protocol = pool.get(endpoint)
    assert b"".join(protocol.read("fork/0")) == b"0" * 100
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                shared = [pool.get(endpoint), protocol]
                good = all(
                    b"".join(which.read(f"fork/{number}")) == str(number).encode() * 100
                    for _ in range(10)
                    for number in range(20)
                    for which in shared
                )
                status = 0 if good and pool.get(endpoint) is not protocol else 2
            finally:
                os._exit(status)
        children.append(child)
    assert b"".join(protocol.read("fork/1")) == b"1" * 100
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert b"".join(protocol.read("fork/2")) == b"2" * 100


def test_token_is_sent_and_read_again(services: Services, pool, tmp_path: Path) -> None:
    server = Apache(services.directory, "apache-with-token", with_token=True)
    server.start()
    try:
        assert server.token
        token = tmp_path / "token"
        token.write_text("wrong")
        protocol = pool.get(endpoint_of(server, token_file=str(token)))
        with pytest.raises(AccessDenied) as caught:
            protocol.stat("f")
        assert "wrong" not in caught.value.message
        token.write_text(server.token + "\n")
        with pytest.raises(NotFound):
            protocol.stat("f")
        token.write_text("two tokens")
        with pytest.raises(AccessDenied, match="does not hold one bearer token"):
            protocol.stat("f")
        token.unlink()
        with pytest.raises(AccessDenied, match="cannot be read"):
            protocol.stat("f")
    finally:
        server.stop()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("verb", ["PUT", "GET", "MOVE", "DELETE"])
def test_no_redirect_is_followed(pool, status: int, verb: str) -> None:
    with bad_server(software="plain") as bad, bad_server() as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}{PREFIX}/f"
        bad.files["f"] = b"abc"

        def redirect(asked: str, _path: str) -> None:
            bad.faults["f"] = Fault(status=status, location=location) if asked == verb else Fault()

        bad.before = redirect
        protocol = pool.get(bad.endpoint())
        actions = {
            "PUT": lambda: protocol.write("f", [b"x"], 1),
            "GET": lambda: next(protocol.read("f")),
            "MOVE": lambda: protocol.move("f", "g"),
            "DELETE": lambda: protocol.delete("f"),
        }
        with pytest.raises(Unsupported, match="not followed"):
            actions[verb]()
        assert elsewhere.requests == []


@pytest.mark.parametrize("scheme", ["file", "gopher"])
def test_a_storage_is_not_made_to_read_its_own_files(services: Services, pool, scheme: str) -> None:
    protocol = pool.get(endpoint_of(services.xrootd_slac))
    own = Endpoint("OWN", scheme, "localhost", 0, "/etc")
    with pytest.raises(RefusedByGuard):
        protocol.pull(OtherSide(own, "passwd"), "stolen")
    with pytest.raises(RefusedByGuard):
        protocol.push("stolen", OtherSide(own, "passwd"))
    with pytest.raises(NotFound):
        protocol.stat("stolen")


def test_silent_server_is_given_up(pool, monkeypatch) -> None:
    monkeypatch.setattr("arriero.rse.transport.READ_TIMEOUT", 0.3)
    with bad_server() as bad:
        bad.before = lambda *_: bad.ended.wait(3)
        with pytest.raises(TimedOut):
            pool.get(bad.endpoint()).stat("f")
        assert len(bad.requests) == 1
        bad.ended.set()


def test_restarted_server_is_found_again(services: Services, pool) -> None:
    server = type(services.xrootd_slac)(
        services.directory, "restarted", authority=services.xrootd_slac.authority
    )
    server.start()
    try:
        protocol = pool.get(endpoint_of(server))
        server.write_file("f", b"abc")
        assert protocol.digest("f")
        server.kill()
        with pytest.raises(Unavailable):
            protocol.stat("f")
        server.start()
        assert protocol.stat("f", digest=True).bytes == 3
    finally:
        server.stop()


def test_unknown_scheme_says_which_there_are() -> None:
    with pytest.raises(Unsupported, match="dav, davs, file, http, https"):
        protocol_for("gopher")


def test_pool_gives_one_protocol_per_endpoint(tmp_path: Path) -> None:
    pool = ProtocolPool()
    first = Endpoint("A", "file", "", 0, str(tmp_path))
    assert pool.get(first) is pool.get(Endpoint("A", "file", "", 0, str(tmp_path)))
    assert pool.get(first) is not pool.get(Endpoint("B", "file", "", 0, str(tmp_path)))
    pool.close()


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "not-pem"])
def test_a_ca_bundle_that_cannot_be_used_is_named(pool, tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "authorities.pem"
    if content is not None:
        bundle.write_bytes(content)
    endpoint = Endpoint("SLAC_DISK", "davs", "127.0.0.1", 2811, "/raw", ca_bundle=str(bundle))
    with pytest.raises(Unavailable, match=r"^SLAC_DISK: .*authorities\.pem.*CA bundle"):
        pool.get(endpoint).stat("f")
