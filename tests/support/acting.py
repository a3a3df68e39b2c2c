"""Calls that find something to change, for routes of which the access matrix's own finds nothing to do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dids, rules
from arriero.registry.services.erasure import erase_expired_collections
from arriero.scheduler.evaluate import Evaluator
from support.access import Callers
from support.catalogue import EVERYTHING
from support.routes.callers import FILE

Call = tuple[str, object]
"""Path and body."""


def acting_calls(callers: Callers) -> dict[tuple[str, str], Call]:
    """Put into a registry what can be changed, and give by route the calls that change it, once."""
    return {
        **_of_accounts(callers),
        **_of_dids(callers),
        **_of_rses(callers),
        **_of_rules(callers),
        **_of_arrivals(callers),
        **_of_movers(callers),
    }


def _do(callers: Callers, method: str, path: str, body: object = None) -> Any:
    answered = callers.call("root", method, path, body)
    assert answered.status_code in {200, 201}, answered.text
    return answered.json() if answered.content else None


def _dataset(callers: Callers, name: str, *files: str) -> None:
    _do(callers, "POST", f"/dids/hers/{name}", {"type": "DATASET"})
    _do(callers, "POST", f"/dids/hers/{name}/dids", {"dids": _keys(*files)})


def _file(callers: Callers, name: str, *rses: str) -> None:
    for rse in rses:
        _do(callers, "POST", "/replicas", {"rse": rse, "files": [{**FILE, "name": name}]})


def _keys(*names: str) -> list[dict[str, str]]:
    return [{"scope": "hers", "name": name} for name in names]


def _of_accounts(callers: Callers) -> dict[tuple[str, str], Call]:
    _do(callers, "POST", "/accounts/owner/scopes/given")
    identity = {"identity": "former", "authtype": "USERPASS"}
    _do(callers, "POST", "/accounts/reader/identities", {**identity, "password": "long enough"})
    return {
        ("PUT", "/scopes/{account}/{scope}"): ("/scopes/other/given", None),
        ("DELETE", "/accounts/{account}/identities"): ("/accounts/reader/identities", identity),
    }


def _of_dids(callers: Callers) -> dict[tuple[str, str], Call]:
    _file(callers, "copied", "MINE", "YOURS")
    _file(callers, "lost", "MINE")
    _file(callers, "member", "MINE")
    said = {"rse": "MINE", "dids": _keys("lost"), "reason": "the disk is gone"}
    _do(callers, "POST", "/replicas/bad/dids", said)
    for name in ("one", "two", "gone"):
        _dataset(callers, name)
    _dataset(callers, "full", "member")
    with callers.running.database.transaction() as connection:
        connection.execute(update(dids).where(dids.c.name == "gone").values(expired_at=after(-1)))
    assert erase_expired_collections(callers.running.context) == 1
    member = {"dids": _keys("member")}
    return {
        ("POST", "/losses/accept"): ("/losses/accept", {"dids": _keys("lost")}),
        ("POST", "/dids/attachments"): (
            "/dids/attachments",
            {"attachments": [{"scope": "hers", "name": "one", **member}]},
        ),
        ("POST", "/dids/{scope}/{name:path}/dids"): ("/dids/hers/two/dids", member),
        ("DELETE", "/dids/{scope}/{name:path}/dids"): ("/dids/hers/full/dids", member),
        ("POST", "/dids/{scope}/{name:path}/meta"): ("/dids/hers/one/meta", {"meta": {"k": 1}}),
        ("POST", "/dids/resurrect"): ("/dids/resurrect", _keys("gone")),
        ("DELETE", "/replicas"): ("/replicas", {"rse": "YOURS", "files": _keys("copied")}),
    }


def _of_rses(callers: Callers) -> dict[tuple[str, str], Call]:
    for hostname, port in (("g", 1), ("h", 1), ("h", 2)):
        place = {"hostname": hostname, "port": port, "prefix": "/p"}
        _do(callers, "POST", "/rses/YOURS/protocols/davs", place)
    _do(callers, "POST", "/rses/YOURS/protocols/file", {"prefix": "/tmp/yours"})
    one = "/rses/{rse}/protocols/{scheme}/{hostname}"
    return {
        ("PUT", "/rses/{rse}/protocols/{scheme}"): ("/rses/YOURS/protocols/file", {"prefix": "/tmp/new"}),
        ("PUT", one): ("/rses/YOURS/protocols/davs/g", {"prefix": "/q"}),
        ("PUT", f"{one}/{{port}}"): ("/rses/YOURS/protocols/davs/h/1", {"prefix": "/q"}),
        ("DELETE", one): ("/rses/YOURS/protocols/davs/g", None),
        ("DELETE", f"{one}/{{port}}"): ("/rses/YOURS/protocols/davs/h/1", None),
        ("POST", "/import"): ("/import", {"rses": {"IMPORTED": {}}}),
    }


def _of_rules(callers: Callers) -> dict[tuple[str, str], Call]:
    _file(callers, "twice", "MINE", "YOURS")
    _dataset(callers, "held", "twice")
    asked = {"dids": _keys("held")}
    made = [
        _do(callers, "POST", "/rules", {**asked, "copies": copies, "rse_expression": expression})[0]
        for copies, expression in ((2, "MINE|YOURS"), (1, "MINE"), (1, "YOURS"))
    ]
    reduced, moved, _ = made
    Evaluator(callers.running.context).run()
    with callers.running.database.transaction() as connection:
        miscounted = rules.c.rse_expression == "YOURS", rules.c.locks_ok == 1
        assert connection.execute(update(rules).where(*miscounted).values(locks_ok=2)).rowcount == 1
    return {
        ("POST", "/rules/{rule_id}/reduce"): (f"/rules/{reduced}/reduce", {"copies": 1}),
        ("POST", "/rules/{rule_id}/move"): (f"/rules/{moved}/move", {"rse_expression": "YOURS|MINE"}),
        ("POST", "/doctor/repair"): ("/doctor/repair", {"checks": ["counts"]}),
    }


def _of_arrivals(callers: Callers) -> dict[tuple[str, str], Call]:
    """Everything is claimed but one file; of what was claimed some is in the Butler, parked, or has failed."""
    claim = {"butler": "embargo", "worker": "w", "limit": 100}
    [held, *_] = _do(callers, "POST", "/arrivals/claim", claim)
    report = {"id": held["id"], "fence": held["fence"], "state": "failed"}

    def made(key: str, state: str, **more: object) -> dict[str, object]:
        _file(callers, key, "MINE")
        [file] = _do(callers, "POST", "/arrivals/claim", claim)
        outcome = {
            "id": file["id"],
            "fence": file["fence"],
            "state": state,
            "code": "c",
            "reason": "r",
            **more,
        }
        _do(callers, "POST", "/arrivals/report", [outcome])
        return {"id": file["id"], "fence": file["fence"]}

    ingested, lost = made("ingested", "ingested"), made("missing", "ingested")
    made("waits", "parked", waits_for="visit=1")
    failed, known = made("failed", "failed"), made("known", "failed")
    _file(callers, "fresh", "MINE")
    extension = {"arrivals": [{"id": held["id"], "fence": held["fence"]}], "lease_s": 60}
    return {
        ("POST", "/arrivals/extend"): ("/arrivals/extend", extension),
        ("POST", "/arrivals/report"): ("/arrivals/report", [report]),
        ("POST", "/arrivals/release"): ("/arrivals/release", {"arrivals": [ingested]}),
        ("POST", "/arrivals/ingest-again"): ("/arrivals/ingest-again", {"arrivals": [lost]}),
        ("POST", "/arrivals/adopt"): (
            "/arrivals/adopt",
            {"arrivals": [{**known, "dataset_id": "00000000-0000-0000-0000-000000000001"}]},
        ),
        ("POST", "/arrivals/change"): (
            "/arrivals/change",
            {"action": "retry", "butler": "embargo", "ids": [failed["id"]]},
        ),
        ("POST", "/arrivals/wake"): (
            "/arrivals/wake",
            {"butler": "embargo", "prerequisites": ["visit=1"]},
        ),
    }


def _of_movers(callers: Callers) -> dict[tuple[str, str], Call]:
    """Two RSEs that are left to the mover of their site: for one a request is claimed, for the other it is due."""
    for rse in ("HELD", "DUE"):
        _do(callers, "POST", f"/rses/{rse}", {})
        _do(callers, "POST", f"/rses/{rse}/protocols/file", {"prefix": "/tmp/site", "domains": EVERYTHING})
        _do(callers, "POST", f"/rses/{rse}/attr/site_mover", {"value": True})
        _file(callers, f"for {rse}", "MINE")
        rule = {"dids": _keys(f"for {rse}"), "copies": 1, "rse_expression": rse}
        _do(callers, "POST", "/rules", rule)
    Evaluator(callers.running.context).run()
    [order] = _do(callers, "POST", "/requests/claim", {"worker": "w", "rses": ["HELD"]})
    outcome = {"id": order["id"], "fence": order["fence"], "state": "released"}
    return {
        ("POST", "/requests/claim"): ("/requests/claim", {"worker": "w", "rses": ["DUE"]}),
        ("POST", "/requests/report"): ("/requests/report", {"worker": "w", "outcomes": [outcome]}),
    }
