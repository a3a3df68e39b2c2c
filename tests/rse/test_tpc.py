"""Reports of third-party copies, cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.rse.tpc import MAX_LINE, Marker, MarkerParser, Outcome

XROOTD = b"""Perf Marker
Timestamp: 1537788010
Stripe Index: 0
Stripe Bytes Transferred: 238745
Total Stripe Count: 1
RemoteConnections: tcp:129.93.3.4:1234,tcp:[2600:900:6:1301:268a:7ff:fef6:a590]:2345
End
Perf Marker
Timestamp: 1537788015
Stripe Index: 0
Stripe Bytes Transferred: 500000
Total Stripe Count: 1
End
success: Created
"""
DCACHE = b"""Perf Marker
    Timestamp: 1537788010
    State: Running
    State description:
    Stripe Index: 0
    Stripe Start Time: 1537788009
    Stripe Last Transferred: 1537788010
    Stripe Transfer Time: 1
    Stripe Bytes Transferred: 42
    Stripe Status: RUNNING
    Total Stripe Count: 1
End
failure: rejected GET: 403 Forbidden
"""
STRIPES = b"""Perf Marker
Stripe Index: 0
Stripe Bytes Transferred: 10
Total Stripe Count: 2
End
Perf Marker
Stripe Index: 1
Stripe Bytes Transferred: 5
Total Stripe Count: 2
End
Perf Marker
Stripe Index: 0
Stripe Bytes Transferred: 20
Total Stripe Count: 2
End
success: Created"""


def read(body: bytes, cuts: list[int] | None = None) -> tuple[list[Marker], Outcome]:
    parser = MarkerParser()
    markers: list[Marker] = []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    for start, end in pairwise(edges):
        markers += parser.feed(body[start:end])
    return markers, parser.finish()


@pytest.mark.parametrize(
    ("body", "progress", "succeeded", "text"),
    [
        (XROOTD, [238745, 500000], True, "Created"),
        (XROOTD.replace(b"\n", b"\r\n"), [238745, 500000], True, "Created"),
        (DCACHE, [42], False, "rejected GET: 403 Forbidden"),
        (STRIPES, [10, 15, 25], True, "Created"),
        (b"success: Created", [], True, "Created"),
        (b"\n\n  success: done \n\n", [], True, "done"),
        (b"failure: no", [], False, "no"),
        (b"failure:", [], False, "failure"),
        (b"aborted: by hand", [], False, "by hand"),
        (b"", [], False, "the transfer report ended without a result"),
        (b"Created", [], False, "the transfer report ended without a result"),
        (b"<html>OK</html>", [], False, "the transfer report ended without a result"),
        (XROOTD[:-17], [238745, 500000], False, "the transfer report ended without a result"),
        (b"success: Created\nmore", [], False, "the transfer report ended without a result"),
        (b"failure: <html>\nsuccess: Created\n</html>", [], False, "<html> success: Created </html>"),
        (b"failure: <html>\nsuccess: Created", [], False, "<html> success: Created"),
        (b"success: Created\nfailure: after all", [], False, "after all"),
        (b"Perf Marker\nsuccess: Created", [], False, "the transfer report ended without a result"),
        (b"Perf Marker\nStripe Bytes Transferred: -5\nEnd\nsuccess: x", [0], True, "x"),
        (b"Perf Marker\nStripe Bytes Transferred: 99999999999999999999999\nEnd\nsuccess: x", [0], True, "x"),
    ],
)
def test_reports(body: bytes, progress: list[int], succeeded: bool, text: str) -> None:
    markers, outcome = read(body)
    assert [marker.bytes for marker in markers] == progress
    assert outcome == Outcome(succeeded, text)


@given(st.sampled_from([XROOTD, DCACHE, STRIPES]), st.lists(st.integers(0, 2000), max_size=60))
def test_cuts_make_no_difference(body: bytes, cuts: list[int]) -> None:
    assert read(body, cuts) == read(body)


@given(
    st.lists(st.integers(0, 2**60), max_size=20), st.lists(st.integers(0, 5000), max_size=20), st.booleans()
)
def test_progress_is_what_was_reported(amounts: list[int], cuts: list[int], indented: bool) -> None:
    indent = b"    " if indented else b""
    body = b"".join(
        b"Perf Marker\n%sStripe Index: 0\n%sStripe Bytes Transferred: %d\nEnd\n" % (indent, indent, amount)
        for amount in amounts
    )
    markers, outcome = read(body + b"success: Created\n", cuts)
    assert [marker.bytes for marker in markers] == amounts
    assert outcome.succeeded


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_only_a_plain_success_line_is_success(body: bytes, cuts: list[int]) -> None:
    markers, outcome = read(body, cuts)
    assert len(markers) <= body.count(b"\n")
    if outcome.succeeded:
        last = [line for line in body.split(b"\n") if line.strip()][-1]
        assert last.strip().lower().startswith(b"success")


@given(st.binary(max_size=100))
def test_nothing_after_a_failure_makes_it_a_success(rest: bytes) -> None:
    assert not read(b"failure: x\n" + rest)[1].succeeded
    assert not read(b"failure: x\n" + rest + b"\nsuccess: Created\n")[1].succeeded


def test_memory_is_bounded() -> None:
    parser = MarkerParser()
    for _ in range(100):
        parser.feed(b"x" * 100_000)
    assert len(parser._line) == MAX_LINE
    parser.feed(b"\nfailure: ")
    for _ in range(1000):
        parser.feed(b"y" * 1000 + b"\n")
    assert len(parser._reason or b"") < 20_000
    assert len(parser.finish().text) <= 300
