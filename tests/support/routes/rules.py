"""Rules and locks: who may call what."""

from __future__ import annotations

from support.routes.callers import KNOWN, OWNER, RULE, Routes

ROUTES: Routes = {
    ("GET", "/rules"): (KNOWN, "/rules", None),
    ("POST", "/rules"): (KNOWN - {"reader", "agent"}, "/rules", RULE),
    ("GET", "/rules/{rule_id}"): (KNOWN, "/rules/RULE", None),
    ("PUT", "/rules/{rule_id}"): (OWNER, "/rules/RULE", {"options": {"comment": "x"}}),
    ("DELETE", "/rules/{rule_id}"): (OWNER, "/rules/RULE", {}),
    ("GET", "/rules/{rule_id}/locks"): (KNOWN, "/rules/RULE/locks", None),
    ("GET", "/locks/{rse}"): (KNOWN, "/locks/MINE", None),
    ("GET", "/locks/{scope}/{name:path}"): (KNOWN, "/locks/hers/d", None),
}
