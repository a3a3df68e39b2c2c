"""No call runs more statements because there is more of something: every route, in a small catalogue and in a large one.

The calls are those of the access matrix (`support.routes`), so that a route cannot be left out. A call that sends a list
needs a body of any length in `BULK`: one that has none fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from support.access import ACCESS, Callers
from support.database import counted_statements
from support.routes.callers import Routes
from support.server import running_registry

MANY = 25
"""Of each thing that is made one by one."""

FILES = 500
"""Files of the large catalogue, and items of a long body."""

BY_TABLE = 3
"""Statements more that a long body may take, however long: a few keys are sent as they are, many in a temporary table."""

Route = tuple[str, str]


def many(count: int) -> list[dict[str, object]]:
    return [{"scope": "hers", "name": f"many{number:04d}"} for number in range(count)]


def pfns(count: int) -> list[str]:
    return [f"davs://there.example.org:1094/p/hers/many{number:04d}" for number in range(count)]


def new_files(count: int, prefix: str) -> list[dict[str, object]]:
    return [{"scope": "hers", "name": f"{prefix}{i}", "bytes": 1, "adler32": "1"} for i in range(count)]


def _at(count: int) -> list[dict[str, object]]:
    return [{**file, "rse": "THERE"} for file in many(count)]


BULK = {
    ("POST", "/dids"): lambda n: [
        {"scope": "hers", "name": f"b{i}", "type": "DATASET", "meta": {"k": i}, "dids": many(1)}
        for i in range(n)
    ],
    ("POST", "/dids/attachments"): lambda n: {
        "attachments": [{"scope": "hers", "name": "e", "dids": many(n)}],
        "ignore_duplicate": True,
    },
    ("POST", "/dids/bulkdidsmeta"): lambda n: {"dids": [{**did, "meta": {"k": 1}} for did in many(n)]},
    ("POST", "/dids/bulkfiles"): lambda n: {"dids": many(n)},
    ("POST", "/dids/bulkmeta"): lambda n: {"dids": many(n)},
    ("POST", "/dids/{scope}/{name:path}/dids"): lambda n: {
        "dids": new_files(n, "with-replica-"),
        "rse": "THERE",
    },
    ("DELETE", "/dids/{scope}/{name:path}/dids"): lambda n: {"dids": many(n)},
    ("POST", "/locks/bulk_locks_for_dids"): lambda n: {"dids": many(n)},
    ("POST", "/losses/accept"): lambda n: {"dids": many(n)},
    ("POST", "/replicas"): lambda n: {"rse": "THERE", "files": new_files(n, "new")},
    ("PUT", "/replicas"): lambda n: {"rse": "THERE", "files": [{**did, "state": "A"} for did in many(n)]},
    ("DELETE", "/replicas"): lambda n: {"rse": "THERE", "files": many(n)},
    ("POST", "/replicas/list"): lambda n: {"dids": [{"scope": "hers", "name": "d"}, *many(n)]},
    ("POST", "/replicas/bad"): lambda n: {"replicas": _at(n), "reason": "x", "force": True},
    ("POST", "/replicas/bad/dids"): lambda n: {"rse": "THERE", "dids": many(n), "reason": "x"},
    ("POST", "/replicas/bad/pfns"): lambda n: {
        "pfns": pfns(n),
        "state": "TEMPORARY_UNAVAILABLE",
        "expires_at": "2100-01-01T00:00:00",
    },
    ("POST", "/replicas/datasets_bulk"): lambda n: {
        "dids": [{"scope": "hers", "name": f"parent{i}"} for i in range(min(n, MANY))]
    },
    ("POST", "/replicas/dids"): lambda n: {"pfns": pfns(n), "rse": "THERE"},
    ("POST", "/replicas/quarantine"): lambda n: {
        "rse": "THERE",
        "replicas": [{"path": f"x{i}"} for i in range(n)],
    },
    ("POST", "/replicas/suspicious"): lambda n: {"pfns": pfns(n), "reason": "slow"},
    ("POST", "/replicas/tombstone"): lambda n: {"replicas": _at(n)},
    ("POST", "/arrivals/extend"): lambda n: {
        "arrivals": [{"id": i + 1, "fence": 0} for i in range(n)],
        "lease_s": 60,
    },
    ("POST", "/arrivals/report"): lambda n: [{"id": i + 1, "fence": 0, "state": "failed"} for i in range(n)],
    ("POST", "/arrivals/release"): lambda n: {"arrivals": [{"id": i + 1, "fence": 0} for i in range(n)]},
    ("POST", "/arrivals/ingest-again"): lambda n: {
        "arrivals": [{"id": i + 1, "fence": 99} for i in range(n)]
    },
    ("POST", "/arrivals/adopt"): lambda n: {
        "arrivals": [{"id": i + 1, "fence": 99, "dataset_id": f"{i:032x}"} for i in range(n)]
    },
    ("POST", "/arrivals/change"): lambda n: {
        "action": "retry",
        "butler": "embargo",
        "ids": [i + 1 for i in range(n)],
    },
    ("POST", "/arrivals/wake"): lambda n: {
        "butler": "embargo",
        "prerequisites": [f"visit={i}" for i in range(n)],
    },
    ("POST", "/butlers/{name}/complete"): lambda n: {
        "exposures": [
            {"instrument": "I", "exposure": str(i), "dataset_type": "raw", "detectors": 1} for i in range(n)
        ]
    },
    ("POST", "/requests/claim"): lambda n: {"worker": "w", "rses": ["MINE"] * n},
    ("POST", "/requests/extend"): lambda n: {
        "worker": "w",
        "requests": [{"id": i + 1, "fence": 0} for i in range(n)],
        "lease_s": 60,
    },
    ("POST", "/requests/report"): lambda n: {
        "worker": "w",
        "outcomes": [{"id": i + 1, "fence": 0, "state": "released"} for i in range(n)],
    },
    ("POST", "/deletions"): lambda n: {"rse": "MINE", "dids": many(n)},
    ("POST", "/audits/{audit_id}/lines"): lambda n: {
        "chunk": 0,
        "lines": [[f"dark{i}", 1, None] for i in range(n)],
    },
    ("POST", "/audits/quarantine"): lambda n: {"rse": "MINE", "findings": list(range(1, n + 1))},
    ("POST", "/audits/quarantine/moved"): lambda n: {
        "rse": "MINE",
        "moved": [f"x{i}" for i in range(n)],
        "not_moved": ["y"],
    },
    ("POST", "/rules"): lambda n: {
        "dids": [{"scope": "hers", "name": f"parent{i}"} for i in range(min(n, MANY))],
        "copies": 1,
        "rse_expression": "THERE",
    },
}
"""Bodies of any length, for the routes that take a list."""

NO_LIST = {
    # one butler, one subscription, one sample at a time; what they list is its own parts
    ("POST", "/butlers"),
    ("POST", "/subscriptions/{account}/{name}"),
    ("PUT", "/subscriptions/{account}/{name}"),
    # what was erased comes back one by one, each with what it held
    ("POST", "/dids/resurrect"),
    # names of checks, of which there are a few
    ("POST", "/doctor/repair"),
}


class World:
    """A catalogue with so many of everything."""

    def __init__(self, callers: Callers, count: int, files: int) -> None:
        self.callers = callers
        self.count = count
        self.files = files
        self._fill()

    def counted(self, route: Route) -> tuple[int, list[str]]:
        """Call a route as root; give the status and the statements."""
        _, path, body = ACCESS[route]
        if route in BULK:
            body = BULK[route](self.files)
        path = self.callers.path_of(route) if _is_of_the_world(path) else path
        with counted_statements(self.callers.running.database) as statements:
            answered = self.callers.call("root", route[0], path, body)
        return answered.status_code, statements

    def _do(self, method: str, path: str, body: object = None) -> None:
        answered = self.callers.call("root", method, path, body)
        assert answered.status_code in {200, 201}, f"{method} {path}: {answered.text}"

    def _fill(self) -> None:
        self._do("POST", "/rses/THERE", {})
        self._do("POST", "/rses/THERE/attr/lfn2pfn_algorithm", {"value": "identity"})
        protocol = {
            "hostname": "there.example.org",
            "port": 1094,
            "prefix": "/p",
            "domains": {"wan": {"read": 1}},
        }
        self._do("POST", "/rses/THERE/protocols/davs", protocol)
        files = [{**did, "bytes": 1, "adler32": "1", "meta": {"k": 1}} for did in many(self.files)]
        for rse in ("MINE", "THERE"):
            self._do("POST", "/replicas", {"rse": rse, "files": files})
        held = [{"scope": "hers", "name": "f"}, *many(self.files)]
        self._do("POST", "/dids/hers/d/dids", {"dids": held})
        parents = [
            {
                "scope": "hers",
                "name": f"parent{i}",
                "type": "DATASET",
                "dids": [{"scope": "hers", "name": "f"}],
            }
            for i in range(self.count)
        ]
        self._do("POST", "/dids", parents)
        for number in range(self.count):
            self._each(number)
        with self.callers.running.database.transaction() as connection:
            for statement in _LAID:
                connection.execute(text(statement))

    def _each(self, number: int) -> None:
        self._do("POST", f"/rses/R{number}", {})
        self._do("POST", f"/rses/MINE/attr/k{number}", {"value": "v"})
        self._do("POST", f"/rses/MINE/protocols/file{number}", {"hostname": "h", "prefix": f"/tmp/{number}"})
        self._do("POST", f"/rses/MINE/distances/R{number}", {"distance": 1})
        self._do("PUT", "/rses/MINE/usage", {"source": f"s{number}", "used": 1, "free": 1})
        self._do("PUT", "/rses/MINE/limits", {"name": f"Limit{number}", "value": 1})
        self._do("POST", f"/accounts/u{number}", {"type": "USER"})
        self._do("POST", f"/accounts/owner/scopes/s{number}")
        self._do("POST", f"/accounts/owner/attr/k{number}", {"key": f"k{number}", "value": True})
        self._do("POST", f"/accounts/owner/limits/local/R{number}", {"bytes": 10**15})
        self._do("POST", f"/accounts/owner/limits/global/R{number}%7CMINE", {"bytes": 10**15})
        identity = {"identity": f"/CN={number}", "authtype": "X509"}
        self._do("POST", "/accounts/owner/identities", identity)
        self._do("POST", "/dids/hers/d/meta", {"meta": {f"k{number}": number}})
        rule = {"dids": [{"scope": "hers", "name": "d"}], "copies": 1, "rse_expression": f"R{number}"}
        self._do("POST", "/rules", {**rule, "account": "owner"})
        butler = {
            "name": f"b{number}",
            "uri": "/r",
            "rses": [{"rse": "YOURS"}],
            "selections": [{"scope": "hers"}],
        }
        self._do("POST", "/butlers", butler)
        self._do("POST", "/tokens", {"label": f"t{number}", "lifetime_s": 600})
        limit = {"rse_expression": f"R{number}", "max_transfers": 10}
        self._do("PUT", "/requests/transfer_limits", limit)


def _is_of_the_world(path: str) -> bool:
    return any(word in path for word in ("RULE", "TOKEN", "AUDIT"))


_LAID = (
    (
        "INSERT INTO locks (rule_id, file_id, rse_id, bytes, state, created_at)"
        " SELECT rules.id, child_id, 1, 1, 'OK', contents.created_at"
        " FROM rules JOIN contents ON contents.parent_id = rules.did_id"
    ),
    "INSERT INTO dataset_locks (rule_id, group_id, rse_id, created_at) SELECT id, did_id, 1, created_at FROM rules",
    (
        "INSERT INTO requests (type, file_id, destination_id, bytes, activity, priority, state, attempt, not_before,"
        " fence, created_at) SELECT 'TRANSFER', id, 2, 1, 'User Subscriptions', 3, 'QUEUED', 0, created_at, 0, created_at"
        " FROM dids WHERE type = 'FILE'"
    ),
    (
        "INSERT INTO request_history (at, request_id, file_id, destination_id, state, attempt, bytes, created_at)"
        " SELECT created_at, id, file_id, 1, 'DONE', 1, 1, created_at FROM requests"
    ),
    (
        "INSERT INTO bad_replicas (file_id, rse_id, state, account_id, created_at, updated_at)"
        " SELECT file_id, rse_id, 'SUSPICIOUS', 1, created_at, created_at FROM replicas"
    ),
    (
        "INSERT INTO contents_history (parent_id, child_id, attached_at, detached_at)"
        " SELECT parent_id, child_id, created_at, created_at FROM contents"
    ),
)
"""What evaluation, transfers and time leave behind."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def worlds(request, services, tmp_path_factory) -> Iterator[tuple[World, World]]:
    with ExitStack() as stack:
        made = []
        for name, count, files in (("small", 1, 1), ("large", MANY, FILES)):
            directory = tmp_path_factory.mktemp(name)
            running = stack.enter_context(running_registry(services, request.param, directory))
            callers = Callers(running)
            stack.callback(callers.close)
            made.append(World(callers, count, files))
        yield made[0], made[1]


def _order(routes: Routes) -> list[Route]:
    # what takes away comes last, and longer paths before what holds them
    return sorted(routes, key=lambda route: (route[0] == "DELETE", -len(route[1])))


@pytest.mark.parametrize("route", _order(ACCESS), ids=lambda route: f"{route[0]} {route[1]}")
def test_the_number_of_statements_does_not_depend_on_how_much_there_is(worlds, route):
    small, large = (world.counted(route) for world in worlds)
    assert small[0] == large[0]
    shown = "\n".join(statement[:150] for statement in large[1])
    more = len(large[1]) - len(small[1])
    allowed = range(BY_TABLE + 1) if route in BULK else (0,)
    assert more in allowed, f"{len(small[1])} became {len(large[1])}:\n{shown}"


def test_every_route_that_takes_a_list_is_called_with_a_long_one():
    def has_list(body: object) -> bool:
        if isinstance(body, dict):
            return any(has_list(value) for value in body.values())
        return isinstance(body, list)

    lists = {route for route, (_, _, body) in ACCESS.items() if has_list(body)}
    assert lists - set(BULK) - NO_LIST == set()
    assert (set(BULK) | NO_LIST) - set(ACCESS) == set()
