"""Proves the invariants of DESIGN section 11 over everything that a catalogue holds, as `arriero doctor` does.

Call `assert_invariants` at the end of a test of trouble.
"""

from __future__ import annotations

from arriero.registry.database import Database
from arriero.registry.services.doctor import CHECKS, examine
from arriero.registry.store.invariants import Finding


def broken_invariants(database: Database, *, sweep_s: float = 5.0) -> list[str]:
    """Say which invariants do not hold, each with the first cases that break it.

    Parameters
    ----------
    sweep_s
        Time between two sweeps, seconds.
    """
    checks = [check for check in CHECKS if check.is_broken]
    return [
        f"{one.check.invariant}: {one.check.title}: {one.broken}, such as {one.examples}"
        for one in examine(database, checks, sweep_s=sweep_s)
        if isinstance(one, Finding) and one.broken
    ]


def assert_invariants(database: Database, *, sweep_s: float = 5.0) -> None:
    """Fail with the invariants that do not hold."""
    broken = broken_invariants(database, sweep_s=sweep_s)
    assert not broken, "\n".join(broken)
