"""Replicas: who may call what."""

from __future__ import annotations

from support.routes.callers import AT_RSE, FILE, KNOWN, Routes

ROUTES: Routes = {
    ("POST", "/replicas"): (AT_RSE, "/replicas", {"rse": "MINE", "files": [FILE]}),
    ("PUT", "/replicas"): (
        AT_RSE,
        "/replicas",
        {"rse": "MINE", "files": [{"scope": "hers", "name": "f", "state": "A"}]},
    ),
    ("POST", "/replicas/list"): (KNOWN, "/replicas/list", {"dids": []}),
    ("GET", "/replicas/{scope}/{name:path}/datasets"): (KNOWN, "/replicas/hers/d/datasets", None),
}
