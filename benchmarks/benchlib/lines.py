"""A worker process: a JSON command a line comes in, a JSON answer a line goes out. Standard library only."""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def serve(commands: Mapping[str, Callable[..., Any]]) -> None:
    """Answer commands until standard input ends; what they print goes to standard error."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        sent = json.loads(line)
        try:
            answer = {"ok": commands[sent.pop("do")](**sent)}
        except Exception:  # noqa: BLE001 - the boundary of the process: the other side raises it
            answer = {"error": traceback.format_exc()}
        out.write(json.dumps(answer) + "\n")
        out.flush()
