"""Kinds of callers, and which of them a route lets in."""

from __future__ import annotations

CALLERS = ("nobody", "reader", "other", "owner", "agent", "root")

PUBLIC = frozenset(CALLERS)
KNOWN = PUBLIC - {"nobody"}
OWNER = frozenset({"owner", "root"})
MANAGERS = frozenset({"other", "owner", "root"})
ROOT = frozenset({"root"})
AT_RSE = frozenset({"owner", "agent", "root"})
AGENT = frozenset({"agent", "root"})

RULE = {"dids": [{"scope": "hers", "name": "d"}], "copies": 1, "rse_expression": "MINE"}
BUTLER = {"name": "embargo", "uri": "/repo", "rses": [{"rse": "MINE"}], "selections": [{"scope": "hers"}]}
FILE = {"scope": "hers", "name": "f", "bytes": 1, "adler32": "1"}

Routes = dict[tuple[str, str], tuple[frozenset[str], str, object]]
"""For each method and route: who may call it, the path and the body of a call that means something."""
