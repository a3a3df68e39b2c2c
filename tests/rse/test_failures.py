"""Every error has its meaning, and real failures are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from arriero.rse import errors
from arriero.rse.copy import copy_file
from arriero.rse.copy_order import CopyOrder
from arriero.rse.errors import InvalidExpression, RSEError
from arriero.rse.failures import FAILURES, Failure, FailureKind, classify, kind_of
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.ports import free_port
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault
from support.rse_copies import CONTENT, order, streamed
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.rse_small_disk import xrootd_on_small_disk
from support.services import Services

SOURCE = Endpoint("FROM", "https", "from.example", 443, "/")
DESTINATION = Endpoint("TO", "https", "to.example", 443, "/")
ORDER = CopyOrder(SOURCE, "f", DESTINATION, "f", 1, None, None, "r1-1")
CLASSES = [
    found
    for found in vars(errors).values()
    if isinstance(found, type)
    and issubclass(found, RSEError)
    and found is not RSEError
    and not issubclass(found, InvalidExpression)
]


def failed(task: CopyOrder, pool: ProtocolPool) -> Failure:
    with pytest.raises(RSEError) as caught:
        copy_file(task, pool)
    return classify(caught.value, task)


def test_the_table_is_complete() -> None:
    assert set(FAILURES) == set(FailureKind)


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda found: found.code)
def test_every_error_has_a_kind_that_agrees_with_it(error_class: type[RSEError]) -> None:
    kind = kind_of(error_class("x"))
    assert kind is not FailureKind.UNEXPECTED
    # credentials are renewed by others, and a cancelled copy is no failure: the scheduler tries both again
    if kind not in {FailureKind.PERMISSION, FailureKind.CANCELLED}:
        assert FAILURES[kind].retryable == error_class.retryable


def test_an_error_of_the_program_is_nobodys_fault() -> None:
    failure = classify(ValueError("oh"), ORDER)
    assert (failure.kind, failure.code, failure.reason) == (
        FailureKind.UNEXPECTED,
        "unexpected_error",
        "ValueError: oh",
    )
    assert (failure.against_source, failure.against_destination, failure.down) == (False, False, None)


@pytest.mark.parametrize("error_class", [errors.Unavailable, errors.TimedOut, errors.TokenExpired])
def test_a_storage_that_is_down_is_named(error_class: type[RSEError]) -> None:
    for rse, source, destination in (("FROM", True, False), ("TO", False, True)):
        failure = classify(error_class("x", rse=rse), ORDER)
        assert (failure.against_source, failure.against_destination) == (source, destination)
        assert (failure.down, failure.retryable) == (rse, True)
    assert classify(error_class("x"), ORDER).down is None


@pytest.mark.parametrize("error_class", [errors.Stalled, errors.TookTooLong, errors.OtherSideFailed])
def test_what_is_between_them_counts_against_neither(error_class: type[RSEError]) -> None:
    failure = classify(error_class("x", rse="TO"), ORDER)
    assert (failure.against_source, failure.against_destination, failure.down) == (False, False, None)


class TestRealOnes:
    def test_at_the_source(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path = f"{folder}/f"
        task = order(endpoint_of(slac), endpoint_of(in2p3), path)
        missing = failed(task, pool)
        assert (missing.kind, missing.retryable, missing.against_source) == ("source_missing", False, True)
        slac.write_file(path, CONTENT)
        corrupt = failed(replace(task, adler32="00000001"), pool)
        assert (corrupt.kind, corrupt.against_source, corrupt.down) == ("source_corrupt", True, None)
        gone = replace(endpoint_of(slac), port=free_port())
        down = failed(order(gone, endpoint_of(in2p3), path), pool)
        assert (down.kind, down.down, down.against_source) == ("unreachable", "SLAC_DISK", True)
        untrusted = order(replace(https_endpoint_of(slac), ca_bundle=None), endpoint_of(in2p3), path)
        # of which the catalogue knows no checksum: its storage is asked before anything is moved
        untrusted = failed(replace(untrusted, adler32=None), pool)
        assert (untrusted.kind, untrusted.down) == ("unreachable", "SLAC_DISK")

    def test_at_the_destination(
        self, services: Services, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path, content = f"{folder}/f", bytes(6_000_000)
        slac.write_file(path, content)
        in2p3.write_file(path, b"other")
        occupied = failed(order(endpoint_of(slac), endpoint_of(in2p3), path, content), pool)
        assert (occupied.kind, occupied.retryable, occupied.against_destination) == (
            "destination_occupied",
            False,
            True,
        )
        with xrootd_on_small_disk(services.directory, folder, 4 << 20) as small:
            full = failed(order(endpoint_of(slac), endpoint_of(small), path, content), pool)
        assert (full.kind, full.retryable, full.against_destination, full.down) == (
            "destination_full",
            True,
            True,
            None,
        )
        elsewhere = replace(endpoint_of(in2p3), prefix="/elsewhere")
        refused = failed(order(endpoint_of(slac), elsewhere, path, content), pool)
        assert (refused.kind, refused.against_destination) == ("permission", True)

    @pytest.mark.parametrize(
        ("fault", "kind", "down"),
        [
            (Fault(status=503), "unreachable", "BAD_DISK"),
            (Fault(status=504), "unreachable", "BAD_DISK"),
            (Fault(status=500), "server_error", None),
            (Fault(status=403), "permission", None),
            (Fault(cut_after=10), "server_error", None),
            (Fault(send=CONTENT[:-1]), "damaged", None),
        ],
        ids=lambda value: str(value.status or "body") if isinstance(value, Fault) else "",
    )
    def test_of_a_server_that_misbehaves(
        self,
        in2p3: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        fault: Fault,
        kind: str,
        down: str | None,
    ) -> None:
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = CONTENT, fault
        failure = failed(streamed(bad.endpoint(), endpoint_of(in2p3), path), pool)
        assert (failure.kind, failure.down, failure.retryable) == (kind, down, True)

    def test_a_storm_of_503_names_the_storage_each_time(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        bad.before = lambda _verb, path: bad.faults.update({path: Fault(status=503)})
        for number in range(20):
            failure = failed(order(endpoint_of(in2p3), bad.endpoint(), f"{folder}/{number}"), pool)
            assert failure.down == "BAD_DISK" or failure.kind == "source_missing"
        in2p3.write_file(f"{folder}/f", CONTENT)
        assert failed(order(endpoint_of(in2p3), bad.endpoint(), f"{folder}/f"), pool).down == "BAD_DISK"
        bad.before = None
        bad.faults.clear()
        assert copy_file(order(endpoint_of(in2p3), bad.endpoint(), f"{folder}/f"), pool)
