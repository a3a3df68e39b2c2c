"""Every route that is served: who may call it, and a call that means something; and callers of every kind."""

from __future__ import annotations

import requests
from sqlalchemy import select

from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import butlers, token_butlers, token_rses
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services.authentication import issue_token
from arriero.registry.states import TokenKind
from support.server import PASSWORD as ROOT_PASSWORD
from support.server import RunningRegistry

CALLERS = ("nobody", "reader", "other", "owner", "agent", "root")

PUBLIC = frozenset(CALLERS)
KNOWN = PUBLIC - {"nobody"}
OWNER = frozenset({"owner", "root"})
ROOT = frozenset({"root"})
AT_RSE = frozenset({"owner", "agent", "root"})
AGENT = frozenset({"agent", "root"})

RULE = {"dids": [{"scope": "hers", "name": "d"}], "copies": 1, "rse_expression": "MINE"}
BUTLER = {"name": "embargo", "uri": "/repo", "rses": [{"rse": "MINE"}], "selections": [{"scope": "hers"}]}
FILE = {"scope": "hers", "name": "f", "bytes": 1, "adler32": "1"}

ACCESS: dict[tuple[str, str], tuple[frozenset[str], str, object]] = {
    ("GET", "/ping"): (PUBLIC, "/ping", None),
    ("GET", "/live"): (PUBLIC, "/live", None),
    ("GET", "/ready"): (PUBLIC, "/ready", None),
    ("GET", "/docs"): (PUBLIC, "/docs", None),
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
    ("GET", "/dids/{scope}/dids/search"): (KNOWN, "/dids/hers/dids/search", None),
    ("GET", "/dids/{scope}/{name:path}"): (KNOWN, "/dids/hers/d", None),
    ("POST", "/dids/{scope}/{name:path}"): (OWNER, "/dids/hers/new", {"type": "DATASET"}),
    ("GET", "/dids/{scope}/{name:path}/dids"): (KNOWN, "/dids/hers/d/dids", None),
    ("POST", "/dids/{scope}/{name:path}/dids"): (OWNER, "/dids/hers/d/dids", {"dids": []}),
    ("DELETE", "/dids/{scope}/{name:path}/dids"): (OWNER, "/dids/hers/d/dids", {"dids": []}),
    ("GET", "/dids/{scope}/{name:path}/files"): (KNOWN, "/dids/hers/d/files", None),
    ("GET", "/dids/{scope}/{name:path}/parents"): (KNOWN, "/dids/hers/d/parents", None),
    ("GET", "/dids/{scope}/{name:path}/rules"): (KNOWN, "/dids/hers/d/rules", None),
    ("GET", "/dids/{scope}/{name:path}/associated_rules"): (KNOWN, "/dids/hers/d/associated_rules", None),
    ("GET", "/dids/{scope}/{name:path}/meta"): (KNOWN, "/dids/hers/d/meta", None),
    ("POST", "/dids/{scope}/{name:path}/meta"): (OWNER, "/dids/hers/d/meta", {"meta": {"k": 1}}),
    ("DELETE", "/dids/{scope}/{name:path}/meta"): (OWNER, "/dids/hers/d/meta?key=k", None),
    ("POST", "/dids/{scope}/{name:path}/meta/{key}"): (OWNER, "/dids/hers/d/meta/k", {"value": 1}),
    ("PUT", "/dids/{scope}/{name:path}/status"): (OWNER, "/dids/hers/e/status", {"open": False}),
    ("POST", "/replicas"): (AT_RSE, "/replicas", {"rse": "MINE", "files": [FILE]}),
    ("PUT", "/replicas"): (
        AT_RSE,
        "/replicas",
        {"rse": "MINE", "files": [{"scope": "hers", "name": "f", "state": "A"}]},
    ),
    ("POST", "/replicas/list"): (KNOWN, "/replicas/list", {"dids": []}),
    ("GET", "/replicas/{scope}/{name:path}/datasets"): (KNOWN, "/replicas/hers/d/datasets", None),
    ("GET", "/rses"): (KNOWN, "/rses", None),
    ("GET", "/rses/{rse}"): (KNOWN, "/rses/MINE", None),
    ("POST", "/rses/{rse}"): (ROOT, "/rses/NEW", {}),
    ("PUT", "/rses/{rse}"): (ROOT, "/rses/MINE", {"availability_delete": False}),
    ("GET", "/rses/{rse}/attr"): (KNOWN, "/rses/MINE/attr", None),
    ("POST", "/rses/{rse}/attr/{key}"): (ROOT, "/rses/MINE/attr/k", {"value": "v"}),
    ("DELETE", "/rses/{rse}/attr/{key}"): (ROOT, "/rses/MINE/attr/k", None),
    ("GET", "/rses/{rse}/protocols"): (KNOWN, "/rses/MINE/protocols", None),
    ("POST", "/rses/{rse}/protocols/{scheme}"): (
        ROOT,
        "/rses/MINE/protocols/davs",
        {"hostname": "x.example.org", "prefix": "/p"},
    ),
    ("GET", "/rses/{rse}/protocols/{scheme}"): (KNOWN, "/rses/MINE/protocols/file", None),
    ("DELETE", "/rses/{rse}/protocols/{scheme}"): (ROOT, "/rses/MINE/protocols/davs", None),
    ("DELETE", "/rses/{rse}/protocols/{scheme}/{hostname}"): (ROOT, "/rses/MINE/protocols/davs/h", None),
    ("DELETE", "/rses/{rse}/protocols/{scheme}/{hostname}/{port}"): (
        ROOT,
        "/rses/MINE/protocols/davs/h/1",
        None,
    ),
    ("GET", "/rses/{source}/distances/{destination}"): (KNOWN, "/rses/MINE/distances/YOURS", None),
    ("POST", "/rses/{source}/distances/{destination}"): (ROOT, "/rses/MINE/distances/YOURS", {"distance": 1}),
    ("PUT", "/rses/{source}/distances/{destination}"): (ROOT, "/rses/MINE/distances/YOURS", {"distance": 2}),
    ("DELETE", "/rses/{source}/distances/{destination}"): (ROOT, "/rses/MINE/distances/YOURS", None),
    ("GET", "/rses/{rse}/usage"): (KNOWN, "/rses/MINE/usage", None),
    ("PUT", "/rses/{rse}/usage"): (ROOT, "/rses/MINE/usage", {"source": "storage", "used": 1, "free": 1}),
    ("GET", "/rses/{rse}/limits"): (KNOWN, "/rses/MINE/limits", None),
    ("PUT", "/rses/{rse}/limits"): (ROOT, "/rses/MINE/limits", {"name": "MinFreeSpace", "value": 1}),
    ("DELETE", "/rses/{rse}/limits"): (ROOT, "/rses/MINE/limits", {"name": "MinFreeSpace"}),
    ("GET", "/rules"): (KNOWN, "/rules", None),
    ("POST", "/rules"): (KNOWN - {"reader", "agent"}, "/rules", RULE),
    ("GET", "/rules/{rule_id}"): (KNOWN, "/rules/RULE", None),
    ("PUT", "/rules/{rule_id}"): (OWNER, "/rules/RULE", {"options": {"comment": "x"}}),
    ("DELETE", "/rules/{rule_id}"): (OWNER, "/rules/RULE", {}),
    ("GET", "/rules/{rule_id}/locks"): (KNOWN, "/rules/RULE/locks", None),
    ("GET", "/locks/{rse}"): (KNOWN, "/locks/MINE", None),
    ("GET", "/locks/{scope}/{name:path}"): (KNOWN, "/locks/hers/d", None),
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
    ("GET", "/tokens"): (KNOWN, "/tokens", None),
    ("POST", "/tokens"): (KNOWN - {"reader", "agent"}, "/tokens", {"label": "x", "lifetime_s": 600}),
    ("DELETE", "/tokens/{token_id}"): (OWNER, "/tokens/TOKEN", None),
    ("GET", "/trace/{scope}/{name:path}"): (KNOWN, "/trace/hers/f", None),
    ("GET", "/counts"): (KNOWN, "/counts", None),
    ("GET", "/ui"): (PUBLIC, "/ui", None),
    ("GET", "/ui/static/{name}"): (PUBLIC, "/ui/static/style.css", None),
}

PASSWORD = "a long password"


class Callers:
    """One registry with somebody of every kind."""

    def __init__(self, running: RunningRegistry) -> None:
        self.running = running
        self.url = running.url
        self.session = requests.Session()
        self.tokens: dict[str, str | None] = {"nobody": None, "root": self._login("root", ROOT_PASSWORD)}
        self._prepare()

    def _login(self, name: str, password: str) -> str:
        login = {"X-Rucio-Account": name, "X-Rucio-Username": name, "X-Rucio-Password": password}
        answered = self.session.get(f"{self.url}/auth/userpass", headers=login, timeout=20)
        return answered.headers["X-Rucio-Auth-Token"]

    def call(self, who: str, method: str, path: str, body: object = None):
        token = self.tokens[who]
        headers = {} if token is None else {"X-Rucio-Auth-Token": token}
        return self.session.request(method, self.url + path, json=body, headers=headers, timeout=20)

    def path_of(self, route: tuple[str, str]) -> str:
        """Path of the call that the table describes."""
        return ACCESS[route][1].replace("RULE", self.rule).replace("TOKEN", str(self.token))

    def close(self) -> None:
        self.session.close()

    def _do(self, method: str, path: str, body: object = None, who: str = "root"):
        answered = self.call(who, method, path, body)
        assert answered.status_code in {200, 201}, answered.text
        return answered

    def _prepare(self) -> None:
        for name, role in (
            ("reader", "reader"),
            ("other", "data_manager"),
            ("owner", "data_manager"),
            ("agent", "site_agent"),
        ):
            self._do("POST", f"/accounts/{name}", {"type": "USER", "role": role})
            self._do(
                "POST",
                f"/accounts/{name}/identities",
                {"identity": name, "authtype": "USERPASS", "password": PASSWORD},
            )
            self.tokens[name] = self._login(name, PASSWORD)
        self._do("POST", "/accounts/owner/scopes/hers")
        for name in ("MINE", "YOURS"):
            self._do("POST", f"/rses/{name}", {})
        self._do("POST", "/rses/MINE/protocols/file", {"prefix": "/tmp/mine"})
        for name in ("d", "e"):
            self._do("POST", f"/dids/hers/{name}", {"type": "DATASET"}, who="owner")
        self._do("POST", "/replicas", {"rse": "MINE", "files": [FILE]}, who="owner")
        self.rule = self._do("POST", "/rules", {**RULE, "rse_expression": "YOURS"}, who="owner").json()[0]
        self._do("POST", "/butlers", BUTLER)
        self.token = self._do("POST", "/tokens", {"label": "x", "lifetime_s": 600}, who="owner").json()["id"]
        with self.running.database.transaction() as connection:
            account_id = connection.scalar(select(account_table.c.id).where(account_table.c.name == "agent"))
            rse_id = connection.scalar(select(rse_table.c.id).where(rse_table.c.name == "MINE"))
            issued = issue_token(
                connection, account_id=account_id, account="agent", kind=TokenKind.AGENT, lifetime_s=600
            )
            connection.execute(token_rses.insert().values(token_id=issued.token_id, rse_id=rse_id))
            butler_id = connection.scalar(select(butlers.c.id))
            connection.execute(token_butlers.insert().values(token_id=issued.token_id, butler_id=butler_id))
        self.tokens["agent"] = issued.token
