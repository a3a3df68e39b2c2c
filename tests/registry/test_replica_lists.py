"""Lists of replicas: each file once, in pages that hold nothing, the best PFN first, as JSON and as Metalink."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import text, update

from arriero.registry.api.metalink import accepts_metalink, metalink
from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.schema.tables import replicas, rses
from arriero.registry.services import rse_protocols
from arriero.registry.services.dataset_replicas import (
    list_dataset_replicas,
    list_dataset_replicas_bulk,
    list_datasets_at,
)
from arriero.registry.services.pfns import Access
from arriero.registry.services.replica_lists import Client, ReplicaQuery, list_replicas
from arriero.registry.services.replica_order import Order, Place
from arriero.registry.states import ReplicaState
from arriero.registry.store import dataset_replicas as dataset_store
from arriero.registry.store import replica_pages as store
from arriero.registry.store.rses import Rse
from arriero.rse.errors import InvalidName
from arriero.rse.lfn2pfn import path_for
from arriero.rse.types import Endpoint
from support.database import counted_statements

RSE, OTHER = "SLAC_RAW_DISK", "IN2P3_RAW_DISK"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE, site="SLAC")
    catalogue.rse(OTHER, site="IN2P3")
    return catalogue


def names(site, *dids: str, **options) -> list[str]:
    return [
        row["name"]
        for row in list_replicas(site.context, ReplicaQuery([("raw", did) for did in dids], **options))
    ]


def small_pages(monkeypatch, size: int) -> None:
    monkeypatch.setattr(store.pages, "__kwdefaults__", {"size": size})


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_every_file_comes_once_whatever_the_pages(site, monkeypatch, size):
    small_pages(monkeypatch, size)
    every = [f"f{number:03d}" for number in range(50)]
    site.files(RSE, every)
    site.files(OTHER, every[::3])
    shuffled = random.Random(1).sample(every, 50)
    site.dataset("d1", shuffled[:30])
    site.dataset("d2", shuffled[20:45])
    site.dataset("empty")
    site.container("inner", ["d2", "empty"])
    site.container("top", ["d1", "inner", "d2"])
    assert names(site, "top", "d1", *shuffled[40:]) == every
    assert names(site, "d2") == sorted(shuffled[20:45])
    assert names(site, *every[10:20]) == every[10:20]
    assert names(site, "empty") == []
    assert names(site) == []
    counted = Counter(len(row["rses"]) for row in list_replicas(site.context, ReplicaQuery([("raw", "top")])))
    held = set(shuffled[:45])
    assert counted[2] == len(held & set(every[::3]))


def test_no_connection_is_held_between_two_pages(site, monkeypatch):
    small_pages(monkeypatch, 10)
    site.files(RSE, [f"f{number:03d}" for number in range(100)])
    site.dataset("d", [f"f{number:03d}" for number in range(100)])
    pool = site.database.engine.pool
    rows = list_replicas(site.context, ReplicaQuery([("raw", "d")], resolve_parents=True))
    for row in rows:
        assert pool.checkedout() == 0
        assert row["parents"] == ["raw:d"]
    for listed in (
        list_datasets_at(site.context, RSE),
        list_dataset_replicas_bulk(site.context, [("raw", "d")]),
    ):
        next(listed)
        assert pool.checkedout() == 0


def test_what_changes_while_a_list_is_read(site, monkeypatch):
    small_pages(monkeypatch, 2)
    site.files(RSE, ["a", "b", "c", "d"])
    site.files(RSE, ["later"])
    site.dataset("set", ["a", "b", "c", "d"])
    rows = list_replicas(site.context, ReplicaQuery([("raw", "set")]))
    assert next(rows)["name"] == "a"
    site.detach("set", ["a", "d"])
    site.attach("set", ["later"])
    with site.database.transaction() as connection:
        connection.execute(update(replicas).where(replicas.c.file_id == 3).values(state=ReplicaState.BAD))
    rest = {row["name"]: row["states"] for row in rows}
    assert rest == {"b": {RSE: "AVAILABLE"}, "c": {}, "later": {RSE: "AVAILABLE"}}


def test_a_fixed_number_of_statements_a_page(site):
    counts = []
    for number in (10, 1000):
        every = [f"{number}/{i}" for i in range(number)]
        site.files(RSE, every)
        site.dataset(f"d{number}", every)
        with counted_statements(site.database) as statements:
            assert len(names(site, f"d{number}", resolve_parents=True)) == number
        with counted_statements(site.database) as counting:
            assert len(list(list_dataset_replicas(site.context, "raw", f"d{number}"))) == 1
        counts.append((len(statements), len(counting)))
    assert counts[0] == counts[1]
    assert max(counts[0]) < 15


def test_a_random_choice_takes_files_that_can_be_read(site):
    site.files(RSE, [f"f{number}" for number in range(20)])
    site.files(RSE, ["bad"], state=ReplicaState.UNAVAILABLE)
    site.dataset("d", [*(f"f{number}" for number in range(20)), "bad"])
    seen = set()
    for _ in range(30):
        chosen = names(site, "d", nrandom=3)
        assert len(set(chosen)) == 3
        seen.update(chosen)
    assert "bad" not in seen
    assert len(seen) > 10
    assert len(names(site, "d", nrandom=100)) == 20
    for wrong in (0, -1, site.context.settings.max_bulk_items + 1):
        with pytest.raises(InvalidInput):
            names(site, "d", nrandom=wrong)


def test_the_order_of_pfns(site):
    described = {
        "hostname": "lan.example.org",
        "port": 1095,
        "prefix": "/lan",
        "domains": {"lan": {"read": 2}},
    }
    rse_protocols.add_protocol(site.context, site.root, OTHER, "root", described)
    second = {"hostname": "wan.example.org", "port": 80, "prefix": "/w", "domains": {"wan": {"read": 3}}}
    rse_protocols.add_protocol(site.context, site.root, OTHER, "http", second)
    for rse in (RSE, OTHER):
        site.files(rse, ["a"])

    def listed(**options):
        [row] = list_replicas(site.context, ReplicaQuery([("raw", "a")], **options))
        assert [place["priority"] for place in row["pfns"].values()] == list(range(1, len(row["pfns"]) + 1))
        return [(pfn.split(":")[0], entry["rse"], entry["domain"]) for pfn, entry in row["pfns"].items()]

    far = [("davs", OTHER, "wan"), ("davs", RSE, "wan"), ("http", OTHER, "wan")]
    assert listed() == far
    near = [("root", OTHER, "lan"), ("davs", RSE, "wan")]
    assert listed(domain=None, client=Client("IN2P3")) == near
    assert listed(domain=None, client=Client("ROAMING")) == far
    assert listed(domain="lan") == near[:1]
    assert listed(domain="all")[0] == near[0]
    assert listed(limit=1) == far[:1]
    assert listed(schemes=frozenset({"http"})) == far[2:]
    assert {tuple(listed(sort="random")) for _ in range(40)} > {tuple(far)}
    with site.database.transaction() as connection:
        for rse, place in (
            (RSE, {"latitude": 37.4, "longitude": -122.2}),
            (OTHER, {"latitude": 45.8, "longitude": 4.9}),
        ):
            connection.execute(update(rses).where(rses.c.name == rse).values(details=place))
    for place, nearest in ((Place(36.0, -120.0), RSE), (Place(48.8, 2.3), OTHER)):
        assert listed(sort="geoip", client=Client(place=place))[0][1] == nearest
    assert listed(sort="geoip") == listed(sort="closeness") == far


@pytest.mark.parametrize(
    "values", [None, {}, {"latitude": 1}, {"latitude": "x", "longitude": 1}, {"latitude": 91, "longitude": 0}]
)
def test_a_place_that_cannot_be_meant_is_none(values):
    assert Place.of(values) is None


def test_distances_on_the_globe():
    assert Place(0, 0).distance_km(Place(0, 180)) == pytest.approx(20015, rel=1e-3)
    assert Place(37.4, -122.2).distance_km(Place(45.8, 4.9)) == pytest.approx(9420, rel=1e-2)
    with pytest.raises(InvalidInput):
        Order("by_magic")


NAMES = (
    "a.fits",
    "n/b-1_2~3.fits",
    "a b",
    ".hidden",
    "x/.y",
    "é",
    "a+b%c?d#e",
    "~",
    "a..b",
    "x" * 250,
    "d/" * 120 + "f",
)


@pytest.mark.parametrize("algorithm", ["hash", "identity", "lsst_butler"])
@pytest.mark.parametrize("prefix", ["/", "/data", "/da ta/é"])
def test_the_quick_way_to_a_pfn_is_the_way(algorithm, prefix):
    rse = Rse(**dict.fromkeys(Rse.__dataclass_fields__) | {"attributes": {"lfn2pfn_algorithm": algorithm}})
    endpoint = Endpoint("X", "davs", "dav.example.org", 1094, prefix)
    access = Access(rse, endpoint, "wan", 1)
    for name in NAMES:
        for scope in ("raw", "user.jdoe"):
            assert access.pfn(scope, name, None) == endpoint.pfn(path_for(algorithm, scope, name))
        assert access.pfn("raw", "other", name) == endpoint.pfn(name)
    for unsafe in ("../x", "a//b", "/a", "a/./b", "a\\b"):
        with pytest.raises(InvalidName):
            access.pfn("raw", "a", unsafe)


def test_what_is_left_out(site):
    site.files(RSE, ["a", "b"])
    site.files(OTHER, ["a"])
    site.dataset("d", ["a", "b"])
    with site.database.transaction() as connection:
        connection.execute(update(rses).where(rses.c.name == RSE).values(availability_read=False))
    found = {
        row["name"]: set(row["rses"]) for row in list_replicas(site.context, ReplicaQuery([("raw", "d")]))
    }
    assert found == {"a": {RSE, OTHER}, "b": {RSE}}
    readable = ReplicaQuery([("raw", "d")], ignore_availability=False)
    found = {row["name"]: set(row["rses"]) for row in list_replicas(site.context, readable)}
    assert found == {"a": {OTHER}, "b": set()}
    hour = timedelta(hours=1)
    assert names(site, "d", updated_after=datetime.now(tz=UTC) - hour) == ["a", "b"]
    assert names(site, "d", updated_after=datetime.now(tz=UTC) + hour) == []
    with pytest.raises(InvalidInput):
        names(site, "d", domain="moon")
    with pytest.raises(InvalidInput):
        names(site, "d", limit=0)


def test_a_metalink_escapes_what_names_may_hold(site):
    hostile = sorted(['<script>alert("1")</script>', "a&b;'c\"", "]]>", "é☃/%41?x=1#y", "<!--x-->"])
    site.files(RSE, hostile, md5="d" * 32)
    site.dataset("<d>&", hostile)
    query = ReplicaQuery([("raw", "<d>&")], resolve_parents=True)
    document = b"".join(metalink(list_replicas(site.context, query)))
    ns = "{urn:ietf:params:xml:ns:metalink}"
    root = ET.fromstring(document)
    assert [file.get("name") for file in root] == hostile
    assert {file.findtext(f"{ns}parents/{ns}did") for file in root} == {"raw:<d>&"}
    assert [file.findtext(f"{ns}identity") for file in root] == [f"raw:{name}" for name in hostile]
    pfns = [next(iter(row["pfns"])) for row in list_replicas(site.context, query)]
    assert [file.findtext(f"{ns}url") for file in root] == pfns
    assert ET.fromstring(b"".join(metalink([]))).findall(f"{ns}file") == []
    unwritable = {
        "scope": "s",
        "name": "a\x07\ufffe",
        "adler32": None,
        "md5": None,
        "bytes": 1,
        "parents": [],
        "pfns": {},
    }
    assert ET.fromstring(b"".join(metalink([unwritable])))[0].get("name") == "a\ufffd\ufffd"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/metalink4+xml", True),
        ("*/*", False),
        ("", False),
        ("application/x-json-stream, application/metalink4+xml", False),
    ],
)
def test_who_asks_for_a_metalink(accept, wanted):
    assert accepts_metalink(accept) is wanted


def test_a_metalink_comes_in_pieces():
    row = {"scope": "s", "name": "n", "adler32": "1", "md5": None, "bytes": 1, "parents": [], "pfns": {}}
    pieces = list(metalink(row for _ in range(1001)))
    assert len(pieces) == 1 + 1000 // 200 + 1
    assert all(pieces)


def test_datasets_at_an_rse_in_pages(site, monkeypatch):
    monkeypatch.setattr("arriero.registry.services.dataset_replicas._DATASETS_A_PAGE", 2)
    site.files(RSE, ["a", "b", "c"])
    site.files(OTHER, ["a"])
    for number in range(5):
        site.dataset(f"d{number}", ["a", "b"])
    site.dataset("only-slac", ["c"])
    site.container("top", ["d0", "d1"])
    listed = list(list_datasets_at(site.context, OTHER))
    assert [row["name"] for row in listed] == [f"d{number}" for number in range(5)]
    assert {(row["available_length"], row["length"], row["state"]) for row in listed} == {
        (1, 2, "UNAVAILABLE")
    }
    assert len(list(list_datasets_at(site.context, RSE))) == 6
    bulk = list_dataset_replicas_bulk(
        site.context, [("raw", "top"), ("raw", "d0"), ("raw", "a"), ("raw", "no")]
    )
    assert {(row["name"], row["rse"], row["available_length"]) for row in bulk} == {
        (name, rse, count) for name in ("top", "d0") for rse, count in ((RSE, 2), (OTHER, 1))
    }
    with pytest.raises(NotFound):
        next(list_datasets_at(site.context, "NOWHERE"))


def test_parents_are_skipped_through(site):
    site.files(RSE, ["a", "b"])
    for number in range(4):
        site.dataset(f"d{number}", ["a", "b"])
    with site.database.snapshot() as connection:
        found = list(dataset_store.parents_after(connection, 0, 3))
        assert len(found) == 3
        assert len(dataset_store.parents_after(connection, found[-1], 3)) == 1
        assert list(dataset_store.parents_after(connection, 10**6, 3)) == []


def test_a_page_of_a_large_catalogue_reads_the_page_only(postgresql_catalogue):
    """Without statistics, as after a bulk load."""
    site = postgresql_catalogue
    site.scope()
    site.rse(RSE)
    site.files(RSE, ["template"])
    site.dataset("d")
    with site.database.transaction() as connection:
        for table in ("dids", "contents", "replicas"):
            connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
        connection.execute(
            text(
                "INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, bytes, spread, created_at,"
                " updated_at) SELECT 1, 'f' || i, 'FILE', 1, false, false, 1, i, now(), now()"
                " FROM generate_series(1, 60000) i"
            )
        )
        files = "FROM dids WHERE name LIKE 'f%'"
        connection.execute(text(f"INSERT INTO contents SELECT 2, id, now() {files}"))
        connection.execute(
            text(
                "INSERT INTO replicas (file_id, rse_id, bytes, state, created_at, updated_at) "
                f"SELECT id, 1, 1, 'AVAILABLE', now(), now() {files}"
            )
        )
    with site.database.snapshot() as connection:
        covered = store.covered(connection, [2])
        pages = store.pages(connection, covered)
        assert len(pages) == 60_000 // store.FILES_A_PAGE + 1
        with counted_statements(site.database) as statements:
            rows = store.replicas_of_page(connection, covered, pages[6], store.Narrowing())
        assert len(rows) == store.FILES_A_PAGE
        [statement] = statements
        values = {"parent_id_1": 2, "state_1": "AVAILABLE"}
        ends = dict.fromkeys(("child_id", "id", "file_id"), pages[6])
        for name, page in ends.items():
            values |= {f"{name}_1": page.above, f"{name}_2": page.upto}
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values))
        assert "Seq Scan" not in plan.replace("Seq Scan on scopes", ""), plan
