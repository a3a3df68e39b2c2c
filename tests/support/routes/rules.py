"""Rules and locks: who may call what."""

from __future__ import annotations

from support.routes.callers import KNOWN, OWNER, ROOT, RULE, Routes

LIMIT = {"rse_expression": "MINE", "max_transfers": 10}
SUBSCRIPTION = {
    "options": {
        "filter": {"scope": ["hers"]},
        "replication_rules": [{"rse_expression": "MINE", "copies": 1}],
    }
}

ROUTES: Routes = {
    ("GET", "/rules"): (KNOWN, "/rules", None),
    ("POST", "/rules"): (KNOWN - {"reader", "agent"}, "/rules", RULE),
    ("GET", "/rules/{rule_id}"): (KNOWN, "/rules/RULE", None),
    ("PUT", "/rules/{rule_id}"): (OWNER, "/rules/RULE", {"options": {"comment": "x"}}),
    ("DELETE", "/rules/{rule_id}"): (OWNER, "/rules/RULE", {}),
    ("GET", "/rules/{rule_id}/locks"): (KNOWN, "/rules/RULE/locks", None),
    ("GET", "/rules/{rule_id}/analysis"): (KNOWN, "/rules/RULE/analysis", None),
    ("GET", "/rules/{rule_id}/explain"): (KNOWN, "/rules/RULE/explain", None),
    ("GET", "/rules/{rule_id}/history"): (KNOWN, "/rules/RULE/history", None),
    ("GET", "/rules/{scope}/{name:path}/history"): (KNOWN, "/rules/hers/d/history", None),
    # refused for what they ask for, not for who asks
    ("POST", "/rules/{rule_id}/move"): (OWNER, "/rules/RULE/move", {"rse_expression": "YOURS"}),
    ("POST", "/rules/{rule_id}/reduce"): (OWNER, "/rules/RULE/reduce", {"copies": 1}),
    ("POST", "/locks/bulk_locks_for_dids"): (
        KNOWN,
        "/locks/bulk_locks_for_dids",
        {"dids": [{"scope": "hers", "name": "d"}]},
    ),
    ("GET", "/locks/{rse}"): (KNOWN, "/locks/MINE", None),
    ("GET", "/locks/{scope}/{name:path}"): (KNOWN, "/locks/hers/d", None),
    ("GET", "/requests/list"): (KNOWN, "/requests/list?request_states=Q&dst_rse=MINE", None),
    ("GET", "/requests/history/list"): (KNOWN, "/requests/history/list?request_states=D&dst_rse=MINE", None),
    ("GET", "/requests/transfer_limits"): (KNOWN, "/requests/transfer_limits", None),
    ("PUT", "/requests/transfer_limits"): (ROOT, "/requests/transfer_limits", LIMIT),
    ("DELETE", "/requests/transfer_limits"): (ROOT, "/requests/transfer_limits", LIMIT),
    ("GET", "/requests/history/{scope}/{name:path}/{rse}"): (KNOWN, "/requests/history/hers/f/MINE", None),
    ("GET", "/requests/{scope}/{name:path}/{rse}"): (KNOWN, "/requests/hers/f/MINE", None),
    ("GET", "/subscriptions"): (KNOWN, "/subscriptions", None),
    ("GET", "/subscriptions/name/{name}"): (KNOWN, "/subscriptions/name/nightly", None),
    ("GET", "/subscriptions/Id/{subscription_id}"): (KNOWN, "/subscriptions/Id/0", None),
    ("GET", "/subscriptions/{account}"): (KNOWN, "/subscriptions/owner", None),
    ("GET", "/subscriptions/{account}/rules/states"): (KNOWN, "/subscriptions/owner/rules/states", None),
    ("GET", "/subscriptions/{account}/{name}/rules"): (KNOWN, "/subscriptions/owner/nightly/rules", None),
    ("GET", "/subscriptions/{account}/{name}/rules/states"): (
        KNOWN,
        "/subscriptions/owner/nightly/rules/states",
        None,
    ),
    ("GET", "/subscriptions/{account}/{name}/waiting"): (
        KNOWN,
        "/subscriptions/owner/nightly/waiting",
        None,
    ),
    ("GET", "/subscriptions/{account}/{name}"): (KNOWN, "/subscriptions/owner/nightly", None),
    ("POST", "/subscriptions/{account}/{name}"): (OWNER, "/subscriptions/owner/nightly", SUBSCRIPTION),
    ("PUT", "/subscriptions/{account}/{name}"): (OWNER, "/subscriptions/owner/nightly", SUBSCRIPTION),
}
