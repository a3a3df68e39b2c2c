"""Every route that is served: who may call it, and a call that means something; and callers of every kind."""

from __future__ import annotations

import requests
from sqlalchemy import select

from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import butlers, token_butlers, token_rses
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services.authentication import issue_token
from arriero.registry.states import TokenKind
from support.catalogue import EVERYTHING
from support.routes import accounts, dids, own, replicas, rses, rules
from support.routes.callers import BUTLER, FILE, RULE, Routes
from support.server import PASSWORD as ROOT_PASSWORD
from support.server import RunningRegistry

ACCESS: Routes = {
    **accounts.ROUTES,
    **dids.ROUTES,
    **replicas.ROUTES,
    **rses.ROUTES,
    **rules.ROUTES,
    **own.ROUTES,
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
        path = ACCESS[route][1].replace("RULE", self.rule).replace("TOKEN", str(self.token))
        return path.replace("AUDIT", str(self.audit))

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
        self._do("POST", "/rses/MINE/protocols/file", {"prefix": "/tmp/mine", "domains": EVERYTHING})
        for name in ("d", "e"):
            self._do("POST", f"/dids/hers/{name}", {"type": "DATASET"}, who="owner")
        self._do("POST", "/replicas", {"rse": "MINE", "files": [FILE]}, who="owner")
        self.rule = self._do("POST", "/rules", {**RULE, "rse_expression": "YOURS"}, who="owner").json()[0]
        self._do("POST", "/butlers", BUTLER)
        self.audit = self._do("POST", "/audits", {"rse": "MINE", "source": "WALK"}).json()["id"]
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
