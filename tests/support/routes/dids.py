"""DIDs: who may call what."""

from __future__ import annotations

from support.routes.callers import KNOWN, OWNER, PUBLIC, ROOT, Routes

ROUTES: Routes = {
    ("GET", "/losses"): (KNOWN, "/losses?scope=hers&accepted=true", None),
    ("POST", "/losses/accept"): (OWNER, "/losses/accept", {"dids": [{"scope": "hers", "name": "f"}]}),
    ("POST", "/dids"): (OWNER, "/dids", [{"scope": "hers", "name": "bulk", "type": "DATASET"}]),
    ("POST", "/dids/attachments"): (
        OWNER,
        "/dids/attachments",
        {"attachments": [{"scope": "hers", "name": "d", "dids": []}]},
    ),
    ("POST", "/dids/bulkfiles"): (KNOWN, "/dids/bulkfiles", {"dids": []}),
    ("POST", "/dids/bulkmeta"): (KNOWN, "/dids/bulkmeta", {"dids": []}),
    ("POST", "/dids/bulkdidsmeta"): (
        OWNER,
        "/dids/bulkdidsmeta",
        {"dids": [{"scope": "hers", "name": "d", "meta": {"k": 1}}]},
    ),
    ("POST", "/dids/sample"): (
        OWNER,
        "/dids/sample",
        {"input_scope": "hers", "input_name": "d", "output_scope": "hers", "output_name": "s", "nbfiles": 1},
    ),
    ("POST", "/dids/resurrect"): (ROOT, "/dids/resurrect", [{"scope": "hers", "name": "gone"}]),
    ("GET", "/dids/{scope}"): (KNOWN, "/dids/hers", None),
    ("GET", "/dids/{scope}/dids/search"): (KNOWN, "/dids/hers/dids/search", None),
    ("GET", "/dids/{scope}/{name:path}"): (KNOWN, "/dids/hers/d", None),
    ("POST", "/dids/{scope}/{name:path}"): (OWNER, "/dids/hers/new", {"type": "DATASET"}),
    ("GET", "/dids/{scope}/{name:path}/dids"): (KNOWN, "/dids/hers/d/dids", None),
    ("POST", "/dids/{scope}/{name:path}/dids"): (OWNER, "/dids/hers/d/dids", {"dids": []}),
    ("DELETE", "/dids/{scope}/{name:path}/dids"): (OWNER, "/dids/hers/d/dids", {"dids": []}),
    ("GET", "/dids/{scope}/{name:path}/dids/history"): (KNOWN, "/dids/hers/d/dids/history", None),
    ("GET", "/dids/{scope}/{name:path}/files"): (KNOWN, "/dids/hers/d/files", None),
    ("GET", "/dids/{scope}/{name:path}/parents"): (KNOWN, "/dids/hers/d/parents", None),
    ("GET", "/dids/{scope}/{name:path}/rules"): (KNOWN, "/dids/hers/d/rules", None),
    ("GET", "/dids/{scope}/{name:path}/associated_rules"): (KNOWN, "/dids/hers/d/associated_rules", None),
    ("GET", "/dids/{scope}/{name:path}/meta"): (KNOWN, "/dids/hers/d/meta", None),
    ("POST", "/dids/{scope}/{name:path}/meta"): (OWNER, "/dids/hers/d/meta", {"meta": {"k": 1}}),
    ("DELETE", "/dids/{scope}/{name:path}/meta"): (OWNER, "/dids/hers/d/meta?key=k", None),
    ("POST", "/dids/{scope}/{name:path}/meta/{key}"): (OWNER, "/dids/hers/d/meta/k", {"value": 1}),
    ("PUT", "/dids/{scope}/{name:path}/status"): (OWNER, "/dids/hers/e/status", {"open": False}),
    # the official clients send traces without a token; they move `accessed_at` and nothing else
    ("POST", "/traces"): (
        PUBLIC,
        "/traces",
        {"eventType": "touch", "clientState": "DONE", "scope": "hers", "filename": "f"},
    ),
}
