"""Requests for the movers of sites over HTTP: who may claim and report them, fences, and what a site is believed."""

from __future__ import annotations

import zlib

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import InvalidInput, NotAllowed
from arriero.registry.moving import RequestOutcome
from arriero.registry.operations import TransferPage
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import audit_log, requests, rse_health, rses
from arriero.registry.states import BreakerState, RequestState
from arriero.scheduler.sweeps import sweep_requests
from support.mover_sites import place

__all__ = ["place"]


def done(order, content: bytes) -> RequestOutcome:
    return RequestOutcome(
        id=order.id,
        fence=order.fence,
        state="done",
        mode="streamed",
        bytes=len(content),
        adler32=f"{zlib.adler32(content):08x}",
        seconds=0.1,
    )


@pytest.fixture
def claimed(place):
    """A request that a mover of the site has claimed, and its file."""
    place.folder("TAPE")
    place.folder("DISK")
    place.folder("ELSEWHERE")
    files = place.files("TAPE", "a")
    place.wanted("of-TAPE", "DISK")
    client = place.client("TAPE", "DISK")
    [order] = client.claim_requests("w1", 10, 0, 60)
    return client, order, files["a"]


def test_orders_hold_no_credentials(claimed):
    _, order, content = claimed
    assert set(type(order.source).model_fields) == {"rse", "scheme", "hostname", "port", "prefix"}
    assert (order.source.rse, order.destination.rse, order.bytes) == ("TAPE", "DISK", len(content))
    assert (order.attempt, order.attempt_name) == (1, f"{order.id}-{order.fence}")


def test_a_report_under_a_fence_that_has_moved_does_not_count(place, claimed):
    client, late, content = claimed
    place.change(update(requests).values(lease_until=after(-1)))
    sweep_requests(place.registry.context)
    place.change(update(requests).values(not_before=after(-1)))
    [order] = client.claim_requests("w1", 10, 0, 60)
    assert (order.id, order.fence, order.attempt) == (late.id, late.fence + 1, 2)
    assert client.report_requests("w1", [done(late, content)]) == [late.id]
    assert client.extend_requests("w1", [(late.id, late.fence)], 60) == [late.id]
    assert client.extend_requests("w1", [(order.id, order.fence)], 60) == []
    assert place.request().state == RequestState.SUBMITTED
    assert client.report_requests("w1", [done(order, content)]) == []
    assert client.report_requests("w1", [done(order, content)]) == [order.id], "once is enough"
    assert place.rows(select(requests)) == []


def test_only_who_holds_a_request_may_report_it(place, claimed):
    _, order, content = claimed
    stranger = place.client("ELSEWHERE", label="elsewhere")
    with pytest.raises(NotAllowed):
        stranger.report_requests("w1", [done(order, content)])
    with pytest.raises(NotAllowed):
        stranger.extend_requests("w1", [(order.id, order.fence)], 60)
    # at the same site, but another worker or token
    other = place.client("DISK", label="second")
    assert other.report_requests("w1", [done(order, content)]) == [order.id]
    mine, _, _ = claimed
    assert mine.report_requests("w2", [done(order, content)]) == [order.id]
    assert place.request().state == RequestState.SUBMITTED
    # a token that was renewed goes on with what the one before has claimed
    assert place.client("DISK").report_requests("w1", [done(order, content)]) == []


def test_a_token_claims_for_its_own_rses_only(place, claimed):
    stranger = place.client("ELSEWHERE")
    with pytest.raises(NotAllowed):
        stranger.claim_requests("w", 1, 0, 60, rses=["DISK"])
    with pytest.raises(NotAllowed):
        place.client().claim_requests("w", 1, 0, 60)
    place.folder("OPEN", site_mover=False)
    with pytest.raises(InvalidInput, match="site_mover=true"):
        place.client("OPEN").claim_requests("w", 1, 0, 60)
    denied = place.rows(select(audit_log).where(audit_log.c.allowed.is_(False)))
    assert {row.action for row in denied} == {"request_claim"}


def test_what_a_site_verified_has_to_be_what_the_catalogue_says(place, claimed):
    client, order, content = claimed
    assert client.report_requests("w1", [done(order, b"b" * len(content))]) == []
    row = place.request()
    assert (row.state, row.code) == (RequestState.QUEUED, "checksum_mismatch")


@pytest.mark.parametrize(("blamed", "breaker"), [("OPEN", None), ("DISK", BreakerState.OPEN)])
def test_a_site_closes_its_own_rses_only(place, blamed, breaker):
    place.folder("DISK")
    place.folder("OPEN", site_mover=False)
    place.files("OPEN", *"abcdef")
    place.wanted("of-OPEN", "DISK")
    client = place.client("DISK")
    orders = client.claim_requests("w1", 10, 0, 60)
    failed = [
        RequestOutcome(
            id=order.id,
            fence=order.fence,
            state="failed",
            code="unavailable",
            reason="no network",
            retryable=True,
            rse=blamed,
        )
        for order in orders
    ]
    assert client.report_requests("w1", failed) == []
    found = place.rows(
        select(rse_health.c.breaker).join(rses, rses.c.id == rse_health.c.rse_id).where(rses.c.name == blamed)
    )
    assert [row.breaker for row in found if row.breaker is not BreakerState.CLOSED] == (
        [] if breaker is None else [breaker]
    )


def test_who_asks_is_told_that_a_request_waits_for_the_mover_of_a_site(place):
    place.folder("OPEN", site_mover=False)
    place.folder("DISK")
    place.files("OPEN", "a")
    rule = place.wanted("of-OPEN", "DISK")
    [waits] = place.root.list_transfers(TransferPage(code="site_mover"))
    assert (waits.code, waits.destination) == ("site_mover", "DISK")
    assert "DISK is written by the mover of its site only" in waits.reason
    assert "the mover of its site only" in place.root.explain_replication_rule(rule).model_dump_json()
    assert "the mover of its site only" in place.root.trace("raw", "a").model_dump_json()
