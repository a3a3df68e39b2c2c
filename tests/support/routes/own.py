"""What is Arriero's own: butlers, arrivals, traces, health, dashboard: who may call what."""

from __future__ import annotations

from support.routes.callers import AGENT, BUTLER, KNOWN, PUBLIC, ROOT, Routes

ROUTES: Routes = {
    ("GET", "/ping"): (PUBLIC, "/ping", None),
    ("GET", "/live"): (PUBLIC, "/live", None),
    ("GET", "/ready"): (PUBLIC, "/ready", None),
    ("GET", "/docs"): (PUBLIC, "/docs", None),
    ("GET", "/butlers"): (KNOWN, "/butlers", None),
    ("POST", "/butlers"): (ROOT, "/butlers", BUTLER | {"name": "another"}),
    ("GET", "/butlers/{name}"): (KNOWN, "/butlers/embargo", None),
    ("GET", "/arrivals"): (KNOWN, "/arrivals", None),
    ("POST", "/arrivals/claim"): (AGENT, "/arrivals/claim", {"butler": "embargo", "worker": "w", "limit": 1}),
    ("POST", "/arrivals/report"): (AGENT, "/arrivals/report", [{"id": 1, "fence": 0, "state": "failed"}]),
    ("POST", "/arrivals/extend"): (
        AGENT,
        "/arrivals/extend",
        {"arrivals": [{"id": 1, "fence": 0}], "lease_s": 60},
    ),
    ("GET", "/trace/{scope}/{name:path}"): (KNOWN, "/trace/hers/f", None),
    ("GET", "/counts"): (KNOWN, "/counts", None),
    ("GET", "/doctor"): (ROOT, "/doctor?check=counts", None),
    ("POST", "/doctor/repair"): (ROOT, "/doctor/repair", {"checks": ["counts"]}),
    ("GET", "/ui"): (PUBLIC, "/ui", None),
    ("GET", "/ui/static/{name}"): (PUBLIC, "/ui/static/style.css", None),
}
