"""Proves the invariants of DESIGN section 11 over everything that a catalogue holds, as `arriero doctor` does.

Call `assert_invariants` at the end of a test of trouble.
"""

from __future__ import annotations

from arriero.registry.database import Database
from arriero.registry.services.doctor import CHECKS, examine
from arriero.registry.store.invariants import Finding


def broken_invariants(database: Database, *, sweep_s: float = 5.0, announced: bool = False) -> list[str]:
    """Say which invariants do not hold, each with the first cases that break it.

    Parameters
    ----------
    sweep_s
        Time between two sweeps, seconds.
    announced
        Replicas may be COPYING without a request, because clients have announced them.
    """
    passed_over = "copies_without_request" if announced else None
    checks = [check for check in CHECKS if check.is_broken and check.name != passed_over]
    return [
        f"{one.check.invariant}: {one.check.title}: {one.broken}, such as {one.examples}"
        for one in examine(database, checks, sweep_s=sweep_s)
        if isinstance(one, Finding) and one.broken
    ]


def assert_invariants(database: Database, *, sweep_s: float = 5.0, announced: bool = False) -> None:
    """Fail with the invariants that do not hold."""
    broken = broken_invariants(database, sweep_s=sweep_s, announced=announced)
    assert not broken, "\n".join(broken)
