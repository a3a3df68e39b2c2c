"""What is Arriero's own: butlers, arrivals, traces, health, dashboard: who may call what."""

from __future__ import annotations

from support.routes.callers import AGENT, BUTLER, KNOWN, MANAGERS, OWNER, PUBLIC, ROOT, Routes

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
    ("POST", "/arrivals/release"): (AGENT, "/arrivals/release", {"arrivals": [{"id": 1, "fence": 99}]}),
    ("POST", "/arrivals/ingest-again"): (
        AGENT,
        "/arrivals/ingest-again",
        {"arrivals": [{"id": 1, "fence": 99}]},
    ),
    ("POST", "/arrivals/adopt"): (
        AGENT,
        "/arrivals/adopt",
        {"arrivals": [{"id": 1, "fence": 99, "dataset_id": "00000000-0000-0000-0000-000000000001"}]},
    ),
    ("POST", "/arrivals/change"): (
        AGENT,
        "/arrivals/change",
        {"action": "retry", "butler": "embargo", "state": "failed"},
    ),
    ("POST", "/arrivals/wake"): (
        AGENT,
        "/arrivals/wake",
        {"butler": "embargo", "prerequisites": ["instrument=LSSTComCam"]},
    ),
    ("POST", "/butlers/{name}/complete"): (
        AGENT,
        "/butlers/embargo/complete",
        {"exposures": [{"instrument": "I", "exposure": "1", "dataset_type": "raw", "detectors": 1}]},
    ),
    ("GET", "/butlers/{name}/files"): (KNOWN, "/butlers/embargo/files?dataset=hers:d&state=pending", None),
    ("GET", "/butlers/{name}/status"): (KNOWN, "/butlers/embargo/status", None),
    ("GET", "/butlers/{name}/prerequisites"): (KNOWN, "/butlers/embargo/prerequisites", None),
    ("GET", "/transfers"): (
        KNOWN,
        "/transfers?destination=YOURS&state=QUEUED&code=queued&order=problem",
        None,
    ),
    ("GET", "/transfers/totals"): (KNOWN, "/transfers/totals?scope=hers&name=d", None),
    ("GET", "/transfers/{scope}/{name:path}"): (KNOWN, "/transfers/hers/f?destination=YOURS", None),
    # of what nobody else wants, every data manager may ask it
    ("POST", "/transfers/retry"): (
        MANAGERS,
        "/transfers/retry",
        {"scope": "hers", "name": "d", "priority": 5},
    ),
    ("POST", "/transfers/cancel"): (MANAGERS, "/transfers/cancel", {"scope": "hers", "name": "f"}),
    ("GET", "/deletions"): (KNOWN, "/deletions?rse=MINE&code=grave", None),
    ("GET", "/deletions/history"): (KNOWN, "/deletions/history?scope=hers&name=f", None),
    ("GET", "/deletions/sites"): (KNOWN, "/deletions/sites?expression=MINE", None),
    ("GET", "/deletions/stop"): (KNOWN, "/deletions/stop", None),
    ("POST", "/deletions/stop"): (MANAGERS, "/deletions/stop", {"reason": "a test"}),
    ("POST", "/deletions/go"): (ROOT, "/deletions/go", {"rse": "MINE", "take_over": True}),
    ("POST", "/deletions/plan"): (KNOWN, "/deletions/plan", {"rse": "MINE"}),
    ("POST", "/deletions"): (
        OWNER,
        "/deletions",
        {"rse": "MINE", "dids": [{"scope": "hers", "name": "f"}]},
    ),
    ("GET", "/links"): (KNOWN, "/links?source=MINE", None),
    ("GET", "/links/{source}/{destination}"): (KNOWN, "/links/MINE/YOURS", None),
    ("GET", "/health"): (KNOWN, "/health?expression=MINE", None),
    ("GET", "/health/{rse}"): (KNOWN, "/health/MINE", None),
    ("DELETE", "/health/{rse}"): (ROOT, "/health/MINE", None),
    ("POST", "/requests/claim"): (AGENT, "/requests/claim", {"rses": ["MINE"], "worker": "w", "limit": 1}),
    ("POST", "/requests/extend"): (
        AGENT,
        "/requests/extend",
        {"worker": "w", "requests": [{"id": 1, "fence": 0}], "lease_s": 60},
    ),
    ("POST", "/requests/report"): (
        AGENT,
        "/requests/report",
        {"worker": "w", "outcomes": [{"id": 1, "fence": 0, "state": "released"}]},
    ),
    ("GET", "/audits"): (KNOWN, "/audits?rse=MINE", None),
    ("GET", "/audits/findings"): (KNOWN, "/audits/findings?rse=MINE&kind=DARK", None),
    ("GET", "/audits/{audit_id}"): (KNOWN, "/audits/AUDIT", None),
    ("GET", "/audits/{audit_id}/resume"): (AGENT, "/audits/AUDIT/resume", None),
    ("POST", "/audits/{audit_id}/lines"): (
        AGENT,
        "/audits/AUDIT/lines",
        {"chunk": 0, "lines": [["dark", 1, None]]},
    ),
    ("POST", "/audits/{audit_id}/compare"): (AGENT, "/audits/AUDIT/compare", {}),
    # after what is done with the one that is there: it ends when another begins
    ("POST", "/audits"): (AGENT, "/audits", {"rse": "MINE", "source": "WALK"}),
    ("POST", "/audits/quarantine"): (AGENT, "/audits/quarantine", {"rse": "MINE", "findings": [1]}),
    ("POST", "/audits/quarantine/moved"): (
        AGENT,
        "/audits/quarantine/moved",
        {"rse": "MINE", "moved": ["x"], "not_moved": ["y"]},
    ),
    ("GET", "/trace/{scope}/{name:path}"): (KNOWN, "/trace/hers/f", None),
    ("GET", "/counts"): (KNOWN, "/counts", None),
    ("GET", "/doctor"): (ROOT, "/doctor?check=counts", None),
    ("POST", "/doctor/repair"): (ROOT, "/doctor/repair", {"checks": ["counts"]}),
    ("GET", "/metrics"): (PUBLIC, "/metrics", None),
    ("GET", "/ui"): (PUBLIC, "/ui", None),
    ("GET", "/ui/static/{name}"): (PUBLIC, "/ui/static/style.css", None),
}
