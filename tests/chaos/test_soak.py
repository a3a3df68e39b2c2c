"""A minute of trouble (`make chaos`: ten), and at its end not a lock missing, none too many, and every count exact."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servicelib.postgresql import PostgreSQL

TESTS = Path(__file__).resolve().parent.parent
SECONDS = float(os.environ.get("ARRIERO_TEST_CHAOS_S", "60"))
SEED = int(os.environ.get("ARRIERO_TEST_CHAOS_SEED") or 0) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture
def directory(services) -> Iterator[Path]:
    """Where the soak has its server, which is ended if the soak has left it."""
    made = services.directory / "chaos"
    made.mkdir(mode=0o755)
    yield made
    PostgreSQL(made).stop()


@pytest.mark.timeout(SECONDS + 420)
def test_nothing_is_missing_and_nothing_is_left_over(directory):
    command = [sys.executable, str(TESTS / "chaos" / "soak.py"), str(directory)]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent / "deploy")])
    done = subprocess.run(
        [*command, "--seconds", str(SECONDS), "--seed", str(SEED)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 400,
    )
    print(f"ARRIERO_TEST_CHAOS_SEED={SEED} throws the same dice")
    assert done.returncode == 0, done.stderr[-5000:]
    told = json.loads(done.stdout)
    print(json.dumps(told["figures"], indent=2))
    wrong = {key: told[key] for key in ("faults", "findings", "waiting") if told[key]}
    assert not wrong, json.dumps(wrong, indent=2)
    figures = told["figures"]
    assert figures["killed"] >= SECONDS / 4
    done_at_all = (
        "attach",
        "detach",
        "attach_collection",
        "rule_added",
        "rule_removed",
        "locks_left",
        "deleted",
    )
    assert [word for word in done_at_all if not figures.get(word)] == []
