"""Replicas: who may call what."""

from __future__ import annotations

from arriero.rse.lfn2pfn import hash_path
from support.routes.callers import AGENT, AT_RSE, FILE, KNOWN, OWNER, Routes

KEY = {"scope": "hers", "name": "f"}
PFN = f"file:///tmp/mine/{hash_path('hers', 'f')}"

ROUTES: Routes = {
    ("PUT", "/replicas"): (AT_RSE, "/replicas", {"rse": "MINE", "files": [{**KEY, "state": "A"}]}),
    ("DELETE", "/replicas"): (OWNER, "/replicas", {"rse": "MINE", "files": [KEY]}),
    ("POST", "/replicas/list"): (KNOWN, "/replicas/list", {"dids": []}),
    ("GET", "/replicas/{scope}/{name:path}"): (KNOWN, "/replicas/hers/f", None),
    ("POST", "/replicas/tombstone"): (OWNER, "/replicas/tombstone", {"replicas": [{**KEY, "rse": "MINE"}]}),
    ("POST", "/replicas/suspicious"): (AT_RSE, "/replicas/suspicious", {"pfns": [PFN], "reason": "slow"}),
    ("GET", "/replicas/suspicious"): (KNOWN, "/replicas/suspicious?nattempts=1", None),
    ("POST", "/replicas/bad/pfns"): (
        AT_RSE,
        "/replicas/bad/pfns",
        {"pfns": [PFN], "state": "TEMPORARY_UNAVAILABLE", "expires_at": "2099-01-01T00:00:00", "reason": "x"},
    ),
    ("POST", "/replicas/bad/dids"): (
        AT_RSE,
        "/replicas/bad/dids",
        {"rse": "MINE", "dids": [KEY], "reason": "x"},
    ),
    ("POST", "/replicas/bad"): (
        AT_RSE,
        "/replicas/bad",
        {"replicas": [{**KEY, "rse": "MINE"}], "reason": "x", "force": True},
    ),
    # after what makes it bad: the others find it as it was
    ("POST", "/replicas"): (AT_RSE, "/replicas", {"rse": "MINE", "files": [FILE]}),
    ("GET", "/replicas/bad/states"): (KNOWN, "/replicas/bad/states?limit=10", None),
    ("GET", "/replicas/bad/summary"): (KNOWN, "/replicas/bad/summary", None),
    ("POST", "/replicas/dids"): (KNOWN, "/replicas/dids", {"pfns": [PFN], "rse": "MINE"}),
    ("POST", "/replicas/quarantine"): (
        AGENT,
        "/replicas/quarantine",
        {"rse": "MINE", "replicas": [{"path": "x"}]},
    ),
    ("GET", "/replicas/{scope}/{name:path}/datasets"): (KNOWN, "/replicas/hers/d/datasets", None),
    ("GET", "/replicas/{scope}/{name:path}/datasets_vp"): (KNOWN, "/replicas/hers/d/datasets_vp", None),
    ("POST", "/replicas/datasets_bulk"): (
        KNOWN,
        "/replicas/datasets_bulk",
        {"dids": [{"scope": "hers", "name": "d"}]},
    ),
    ("GET", "/replicas/rse/{rse}"): (KNOWN, "/replicas/rse/MINE", None),
}
