"""Three sessions, stepped on PostgreSQL, with at most three pre-emptions at lock and commit points.

`make interleavings` runs every such order; here some of each, drawn by lot and the same each time. See
`test_interleavings`.
"""

from __future__ import annotations

import pytest

from support import interleaving_tests
from support.interleaving_tests import PREEMPTIONS, TIMEOUT_S, chosen

sites = interleaving_tests.sites

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SOME = 3

THREES = [
    (("attach", "add rule", "evaluate"), ""),
    (("attach", "evaluate", "evaluate"), ""),
    (("attach", "detach", "evaluate"), ""),
    (("attach", "settle", "remove rule"), ""),
    (("evaluate", "settle", "remove rule"), ""),
    # a second rule that wants the copy which is being settled, while a client registers it
    (("evaluate", "settle", "register"), ""),
    # two rules want a copy that nobody has asked for yet, and it is made at once
    (("evaluate", "evaluate", "move"), "no old"),
    (("add another", "settle", "remove rule"), ""),
    (("settle", "remove rule", "remove other"), "shared"),
    (("settle first", "settle second", "evaluate"), ""),
    (("resume", "attach", "evaluate"), "suspended"),
    (("resume", "attach", "compact"), "suspended"),
    (("resume", "detach", "compact"), "suspended"),
    (("resume", "evaluate", "compact"), "suspended"),
    (("evaluate", "remove rule", "claim deletion"), ""),
    (("evaluate", "claim deletion", "delete source"), ""),
    (("attach", "evaluate", "declare bad"), ""),
]


@pytest.mark.parametrize(
    ("names", "kind"),
    [pytest.param(names, kind, id="+".join(names)) for names, kind in THREES if chosen(names)],
)
def test_three_sessions(sites, names, kind):
    report = sites.interleave(names, kind, preemptions=PREEMPTIONS, drawn=SOME)
    assert report.orders >= SOME or report.replayed
    assert report.diverged == 0, "an order went another way the second time"
