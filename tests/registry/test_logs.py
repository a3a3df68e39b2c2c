"""No log tells the value of a variable: passwords and tokens are among them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FAILS = """
import sys
import structlog
from arriero.registry.logs import configure_logs

if {terminal}:
    sys.stderr.isatty = lambda: True
configure_logs("INFO")

def log_in(password):
    raise ZeroDivisionError("no division by zero")

try:
    log_in("SeCrEt" + "-123")
except ZeroDivisionError:
    structlog.get_logger("test").exception("it failed", request_id="r-1")
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_is_logged_without_the_values_of_variables(terminal):
    ran = subprocess.run(
        [sys.executable, "-c", FAILS.format(terminal=terminal)], capture_output=True, text=True, check=True
    )
    assert "it failed" in ran.stderr
    assert "log_in" in ran.stderr
    assert "SeCrEt-123" not in ran.stderr
    if not terminal:
        assert json.loads(ran.stderr)["request_id"] == "r-1"
