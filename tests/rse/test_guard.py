"""Nothing is sent to what is not a registered storage, whoever asks and however it is spelt."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from arriero.rse.copy import copy_file
from arriero.rse.errors import InvalidName, RefusedByGuard, Unsupported
from arriero.rse.guard import Guard
from arriero.rse.hosts import address_fault, is_host
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.ports import free_port
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, left_behind, order
from support.rse_endpoints import endpoint_of


@pytest.mark.parametrize(
    "spelling",
    [
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "1",
        "host.1",
        "256.1.1.1",
        "::ffff:127.0.0.1%eth0",
        "fe80::1%1",
        "[::1]",
        "user@host",
        "host:80",
        "host/path",
        "host\\path",
        "host\n",
        "ho st",
        "höst",
        "-host",
        "",
        "a" * 255,
    ],
)
def test_an_address_has_one_spelling(spelling: str) -> None:
    assert not is_host(spelling)
    with pytest.raises(InvalidName):
        Endpoint("X", "https", spelling, 443, "/")


@pytest.mark.parametrize(
    "name",
    ["storage.example", "se-01.example.org", "127.0.0.1", "10.0.0.7", "::1", "2001:db8::1", "x1", "1x.de"],
)
def test_ordinary_names_are_hosts(name: str) -> None:
    assert is_host(name)
    Guard().check(Endpoint("X", "https", name, 1094, "/"))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "fe80::1",
        "ff02::1",
        "::",
        "::ffff:a9fe:a9fe",
    ],
)
def test_no_storage_is_where_machines_get_their_credentials(address: str) -> None:
    assert address_fault(address)
    with pytest.raises(RefusedByGuard, match="nothing was sent"):
        ProtocolPool().get(Endpoint("X", "http", address, 80, "/"))


@pytest.mark.parametrize("port", [22, 25, 53, 79, 111, 389, 445, 631])
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(RefusedByGuard, match="port that is not allowed"):
        ProtocolPool().get(Endpoint("X", "http", "storage.example", port, "/"))
    wide = Guard(ports=(range(1, 65536),))
    assert ProtocolPool(wide).get(Endpoint("X", "http", "storage.example", port, "/"))


def test_schemes_may_be_limited() -> None:
    only_tls = ProtocolPool(Guard(schemes=frozenset({"davs", "https"})))
    assert only_tls.get(Endpoint("X", "davs", "storage.example", 0, "/"))
    for scheme in ("dav", "http", "file"):
        endpoint = Endpoint("X", scheme, "" if scheme == "file" else "storage.example", 0, "/data")
        with pytest.raises(RefusedByGuard, match="scheme that is not allowed"):
            only_tls.get(endpoint)


def test_only_what_is_registered(slac: WebDavServer, in2p3: WebDavServer, folder: str) -> None:
    """For a site whose orders come from outside: what it was not told of it does not touch."""
    slac.write_file(f"{folder}/f", CONTENT)
    source, destination = endpoint_of(slac), endpoint_of(in2p3)
    pool = ProtocolPool(Guard.only([source, destination]))
    assert copy_file(order(source, destination, f"{folder}/f"), pool).mode == "third_party_pull"
    for other in (
        replace(source, prefix="/"),
        replace(source, prefix=f"{source.prefix}/{folder}"),
        replace(source, port=free_port()),
        replace(source, hostname="localhost"),
        replace(source, scheme="davs"),
        Endpoint("LOCAL", "file", "", 0, "/etc"),
    ):
        for task in (order(other, destination, f"{folder}/f"), order(source, other, f"{folder}/g")):
            with pytest.raises(RefusedByGuard, match="is not registered"):
                copy_file(task, pool)
    assert pool.get(replace(source, rse="ANOTHER_NAME"))
    pool.close()


def test_a_name_that_leads_elsewhere_today_is_refused_before_anything_is_sent(
    pool: ProtocolPool, monkeypatch: pytest.MonkeyPatch, bad: BadServer
) -> None:
    """The name was looked at when it was registered; what it leads to is looked at when we are there."""
    monkeypatch.setattr(socket.socket, "getpeername", lambda _self: ("169.254.169.254", 80), raising=False)
    with pytest.raises(RefusedByGuard, match=r"leads to 169\.254\.169\.254, which is link-local"):
        pool.get(bad.endpoint()).stat("f")
    assert bad.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("verb", ["GET", "PROPFIND", "PUT", "COPY", "MKCOL"])
def test_no_redirect_takes_credentials_elsewhere(
    slac: WebDavServer, pool: ProtocolPool, folder: str, tmp_path, verb: str, status: int
) -> None:
    path = f"{folder}/f"
    (tmp_path / "token").write_text("token-of-the-storage")
    slac.write_file(path, CONTENT)
    with bad_server() as bad, bad_server() as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/store/{path}"
        bad.files[f"{folder}/g"] = CONTENT

        def redirect(asked: str, at: str) -> None:
            if at.startswith(folder):
                bad.faults[at] = Fault(status=status, location=location) if asked == verb else Fault()

        bad.before = redirect
        endpoint = bad.endpoint(token_file=str(tmp_path / "token"))
        calls = {
            "GET": lambda: next(pool.get(endpoint).read(f"{folder}/g")),
            "PROPFIND": lambda: pool.get(endpoint).stat(f"{folder}/g"),
            "PUT": lambda: pool.get(endpoint).write(path, [b"x"], 1),
            "COPY": lambda: copy_file(
                order(endpoint_of(slac), endpoint, path, ways=("third_party_pull",)), pool
            ),
            "MKCOL": lambda: pool.get(endpoint).make_parents(path),
        }
        with pytest.raises(Unsupported, match="not followed"):
            calls[verb]()
        if verb == "GET":
            bad.before = lambda _verb, at: bad.faults.update({at: Fault(status=status, location=location)})
            with pytest.raises(Unsupported, match="not followed"):
                pool.get(endpoint).stat(f"{folder}/g", digest=True)
        assert elsewhere.requests == []


def test_a_report_that_tells_of_other_places_is_only_text(
    slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
) -> None:
    """XRootD puts what it finds into its report: no path of ours can make it look at its own files."""
    for name in ("file:///etc/passwd", "http://169.254.169.254/latest", "..%2f..%2fetc%2fpasswd"):
        task = replace(order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f"), source_path=name)
        with pytest.raises(Exception, match=r"segment|has nothing there") as caught:
            copy_file(task, pool)
        assert "root:" not in str(caught.value)
    assert left_behind(in2p3, folder) == []
