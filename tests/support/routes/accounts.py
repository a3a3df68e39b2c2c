"""Accounts, identities, scopes, logging in and tokens: who may call what."""

from __future__ import annotations

from support.routes.callers import KNOWN, OWNER, ROOT, Routes

_IDENTITY = {"identity": "x", "authtype": "USERPASS"}
_SET = {"bytes": 10**12}

ROUTES: Routes = {
    ("GET", "/auth/userpass"): (frozenset(), "/auth/userpass", None),
    ("GET", "/auth/x509"): (frozenset(), "/auth/x509", None),
    ("GET", "/auth/x509_proxy"): (frozenset(), "/auth/x509_proxy", None),
    ("GET", "/auth/validate"): (KNOWN, "/auth/validate", None),
    ("GET", "/accounts"): (KNOWN, "/accounts", None),
    ("GET", "/accounts/whoami"): (KNOWN, "/accounts/whoami", None),
    ("GET", "/accounts/{account}"): (KNOWN, "/accounts/owner", None),
    ("POST", "/accounts/{account}"): (ROOT, "/accounts/new", {"type": "USER"}),
    ("PUT", "/accounts/{account}"): (ROOT, "/accounts/other", {"role": "data_manager"}),
    ("DELETE", "/accounts/{account}"): (ROOT, "/accounts/new", None),
    ("GET", "/accounts/{account}/attr"): (KNOWN, "/accounts/owner/attr", None),
    ("POST", "/accounts/{account}/attr/{key}"): (ROOT, "/accounts/owner/attr/k", {"key": "k", "value": True}),
    ("DELETE", "/accounts/{account}/attr/{key}"): (ROOT, "/accounts/owner/attr/k", None),
    ("GET", "/accounts/{account}/identities"): (OWNER, "/accounts/owner/identities", None),
    ("POST", "/accounts/{account}/identities"): (
        ROOT,
        "/accounts/owner/identities",
        _IDENTITY | {"password": "long enough"},
    ),
    # of nobody who calls here: it would end the sessions of the account
    ("DELETE", "/accounts/{account}/identities"): (ROOT, "/accounts/new/identities", _IDENTITY),
    ("GET", "/accounts/{account}/limits/local"): (KNOWN, "/accounts/owner/limits/local", None),
    ("GET", "/accounts/{account}/limits/local/{rse}"): (KNOWN, "/accounts/owner/limits/local/MINE", None),
    ("POST", "/accounts/{account}/limits/local/{rse}"): (ROOT, "/accounts/owner/limits/local/MINE", _SET),
    ("DELETE", "/accounts/{account}/limits/local/{rse}"): (ROOT, "/accounts/owner/limits/local/MINE", None),
    ("GET", "/accounts/{account}/limits/global"): (KNOWN, "/accounts/owner/limits/global", None),
    ("GET", "/accounts/{account}/limits/global/{expression:path}"): (
        KNOWN,
        "/accounts/owner/limits/global/MINE%7CYOURS",
        None,
    ),
    ("POST", "/accounts/{account}/limits/global/{expression:path}"): (
        ROOT,
        "/accounts/owner/limits/global/MINE%7CYOURS",
        _SET,
    ),
    ("DELETE", "/accounts/{account}/limits/global/{expression:path}"): (
        ROOT,
        "/accounts/owner/limits/global/MINE%7CYOURS",
        None,
    ),
    ("GET", "/accounts/{account}/usage/local"): (KNOWN, "/accounts/owner/usage/local", None),
    ("GET", "/accounts/{account}/usage/local/{rse}"): (KNOWN, "/accounts/owner/usage/local/MINE", None),
    ("GET", "/accounts/{account}/usage/global"): (KNOWN, "/accounts/owner/usage/global", None),
    ("GET", "/accounts/{account}/usage/global/{expression:path}"): (
        KNOWN,
        "/accounts/owner/usage/global/MINE%7CYOURS",
        None,
    ),
    ("GET", "/accounts/{account}/usage/history/{rse}"): (KNOWN, "/accounts/owner/usage/history/MINE", None),
    ("GET", "/accounts/{account}/scopes"): (KNOWN, "/accounts/owner/scopes", None),
    ("POST", "/accounts/{account}/scopes/{scope}"): (ROOT, "/accounts/owner/scopes/new", None),
    ("GET", "/accounts/{account}/rules"): (KNOWN, "/accounts/owner/rules", None),
    ("GET", "/identities/{identity:path}/{kind}/accounts"): (
        ROOT,
        "/identities/owner/USERPASS/accounts",
        None,
    ),
    ("GET", "/scopes"): (KNOWN, "/scopes", None),
    ("GET", "/scopes/owner"): (KNOWN, "/scopes/owner", None),
    ("PUT", "/scopes/{account}/{scope}"): (ROOT, "/scopes/owner/hers", None),
    ("GET", "/tokens"): (KNOWN, "/tokens", None),
    ("POST", "/tokens"): (KNOWN - {"reader", "agent"}, "/tokens", {"label": "x", "lifetime_s": 600}),
    ("DELETE", "/tokens/{token_id}"): (OWNER, "/tokens/TOKEN", None),
}
