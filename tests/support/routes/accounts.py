"""Accounts, identities, scopes, logging in and tokens: who may call what."""

from __future__ import annotations

from support.routes.callers import KNOWN, OWNER, ROOT, Routes

ROUTES: Routes = {
    ("GET", "/auth/userpass"): (frozenset(), "/auth/userpass", None),
    ("GET", "/auth/validate"): (KNOWN, "/auth/validate", None),
    ("GET", "/accounts"): (KNOWN, "/accounts", None),
    ("GET", "/accounts/whoami"): (KNOWN, "/accounts/whoami", None),
    ("GET", "/accounts/{account}"): (KNOWN, "/accounts/owner", None),
    ("POST", "/accounts/{account}"): (ROOT, "/accounts/new", {"type": "USER"}),
    ("PUT", "/accounts/{account}"): (ROOT, "/accounts/other", {"role": "data_manager"}),
    ("GET", "/accounts/{account}/identities"): (OWNER, "/accounts/owner/identities", None),
    ("POST", "/accounts/{account}/identities"): (
        ROOT,
        "/accounts/owner/identities",
        {"identity": "x", "authtype": "USERPASS", "password": "long enough"},
    ),
    ("GET", "/accounts/{account}/scopes"): (KNOWN, "/accounts/owner/scopes", None),
    ("POST", "/accounts/{account}/scopes/{scope}"): (ROOT, "/accounts/owner/scopes/new", None),
    ("GET", "/accounts/{account}/rules"): (KNOWN, "/accounts/owner/rules", None),
    ("GET", "/scopes"): (KNOWN, "/scopes", None),
    ("GET", "/scopes/owner"): (KNOWN, "/scopes/owner", None),
    ("GET", "/tokens"): (KNOWN, "/tokens", None),
    ("POST", "/tokens"): (KNOWN - {"reader", "agent"}, "/tokens", {"label": "x", "lifetime_s": 600}),
    ("DELETE", "/tokens/{token_id}"): (OWNER, "/tokens/TOKEN", None),
}
