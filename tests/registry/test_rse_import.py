"""The configuration of RSEs, out and in: whole or not at all, and the same again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from arriero.registry.api.streams import to_json
from arriero.registry.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    RegistryError,
    TooLarge,
    Unsupported,
)
from arriero.registry.schema.tables import rse_attributes, rse_distances, rse_limits, rse_protocols
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services import rse_distances as distances
from arriero.registry.services import rses
from arriero.registry.services.rse_attributes import list_attributes, set_attribute
from arriero.registry.services.rse_export import export_rses
from arriero.registry.services.rse_import import Sync, SyncMethods, import_rses
from arriero.registry.services.rse_usage import set_limit
from support.database import counted_statements

TABLES = (rse_table, rse_attributes, rse_protocols, rse_limits, rse_distances)
DAVS = {"scheme": "davs", "hostname": "h.example.org", "port": 1094, "prefix": "/p"}


def exported(site) -> dict:
    """As it goes over the wire."""
    return json.loads(to_json(export_rses(site.context, distances=True)))


def imported(site, document: dict, **methods: Sync) -> dict:
    return import_rses(site.context, site.root, document, SyncMethods(**methods))


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse("SLAC", site="SLAC", istape="false")
    catalogue.rse("TAPE", deterministic=False)
    rses.update_rse(
        catalogue.context, catalogue.root, "TAPE", {"city": "Lyon", "latitude": 45.5, "rse_type": "TAPE"}
    )
    set_limit(catalogue.context, catalogue.root, "SLAC", "MinFreeSpace", 5)
    distances.add_distance(catalogue.context, catalogue.root, "SLAC", "TAPE", 3, bidirectional=True)
    return catalogue


def empty(site) -> None:
    with site.database.transaction() as connection:
        connection.execute(rse_table.delete())


def test_what_is_exported_comes_back_as_it_was(site):
    document = exported(site)
    assert document["rses"]["TAPE"]["latitude"] == 45.5
    empty(site)
    assert imported(site, document) == {"rses": 2, "new_rses": 2, "distances": 2}
    assert exported(site) == document
    [noted] = site.audited(action="rse_import")
    assert noted["detail"] == {"rses": 2, "new_rses": 2, "distances": 2}


def test_the_same_again_changes_nothing(site):
    document = exported(site)
    imported(site, document)
    before = site.snapshot_of(*TABLES)
    assert imported(site, document)["new_rses"] == 0
    assert site.snapshot_of(*TABLES) == before


def test_what_the_document_does_not_name_stays(site):
    imported(site, {"rses": {"SLAC": {"attributes": {"site": "USDF"}, "protocols": [DAVS]}}})
    assert list_attributes(site.context, "SLAC")["istape"] is False
    assert [one["hostname"] for one in rses.get_rse(site.context, "SLAC")["protocols"]] == [
        "dav.example.org",
        "h.example.org",
    ]
    assert len(list(rses.list_rses(site.context, None))) == 2


def test_append_leaves_what_is_there(site):
    old = rses.get_rse(site.context, "SLAC")["protocols"][0]
    wanted = {"attributes": {"site": "USDF", "new": 1}, "protocols": [{**old, "prefix": "/other"}, DAVS]}
    imported(site, {"rses": {"SLAC": wanted}}, attributes=Sync.APPEND, protocols=Sync.APPEND)
    shown = list_attributes(site.context, "SLAC")
    assert (shown["site"], shown["new"]) == ("SLAC", "1")
    assert [one["prefix"] for one in rses.get_rse(site.context, "SLAC")["protocols"]] == ["/SLAC", "/p"]


def test_hard_removes_what_the_document_does_not_name(site):
    wanted = {"attributes": {"site": "USDF", "lfn2pfn_algorithm": "identity"}, "protocols": [DAVS]}
    imported(site, {"rses": {"SLAC": wanted}}, attributes=Sync.HARD, protocols=Sync.HARD)
    assert list_attributes(site.context, "SLAC") == {
        "SLAC": True,
        "site": "USDF",
        "lfn2pfn_algorithm": "identity",
    }
    assert [one["prefix"] for one in rses.get_rse(site.context, "SLAC")["protocols"]] == ["/p"]
    with pytest.raises(Unsupported, match="one by one"):
        imported(site, {"rses": {}}, rses=Sync.HARD)


def test_a_removed_rse_is_brought_back_with_what_it_was(site):
    document = exported(site)
    rses.delete_rse(site.context, site.root, "TAPE")
    assert set(exported(site)["rses"]) == {"SLAC"}
    assert exported(site)["distances"] == {}
    imported(site, {"rses": document["rses"]}, rses=Sync.APPEND)
    assert set(exported(site)["rses"]) == {"SLAC"}
    imported(site, document)
    assert exported(site) == document


FAULTS = (
    ({"rses": {"a b": {}}}, "rses.a b"),
    ({"rses": {"NEW": {"colour": 1}}}, "rses.NEW.colour"),
    ({"rses": {"NEW": {"latitude": 100}}}, "rses.NEW: latitude"),
    ({"rses": {"NEW": {"attributes": {"k": ["v"]}}}}, "rses.NEW.attributes.k"),
    ({"rses": {"NEW": {"attributes": {"SLAC": "v"}}}}, "rses.NEW.attributes.SLAC"),
    ({"rses": {"NEW": {"lfn2pfn_algorithm": "guess"}}}, "rses.NEW.attributes.lfn2pfn_algorithm"),
    ({"rses": {"NEW": {"protocols": [DAVS, {**DAVS, "port": "x"}]}}}, r"rses.NEW.protocols\[1\]"),
    ({"rses": {"NEW": {"protocols": [DAVS, DAVS]}}}, r"rses.NEW.protocols\[1\]"),
    ({"rses": {"NEW": {"protocols": [{**DAVS, "hostname": "a/b"}]}}}, r"rses.NEW.protocols\[0\]"),
    ({"rses": {"NEW": {"limits": {"MinFreeSpace": -1}}}}, "rses.NEW.limits.MinFreeSpace"),
    ({"rses": {"NEW": []}}, "rses.NEW"),
    ({"distances": {"SLAC": {"NEW": "near"}}}, "distances.SLAC.NEW"),
    ({"distances": {"SLAC": {"NEW": -1}}}, "distances.SLAC.NEW"),
    ({"distances": {"SLAC": {"NOWHERE": 1}}}, "distances.SLAC.NOWHERE"),
    ({"accounts": [{"account": "x"}]}, "accounts"),
    ({"rules": []}, "rules"),
)


def test_a_fault_is_named_by_its_place(catalogue):
    """And nothing of the document is taken, what comes before the fault neither."""
    catalogue.rse("SLAC")
    before = catalogue.snapshot_of(*TABLES)
    good = {"GOOD": {"attributes": {"site": "X"}, "protocols": [DAVS]}}
    for fault, place in FAULTS:
        document = {**fault, "rses": {**good, **fault.get("rses", {})}}
        with pytest.raises(RegistryError, match=place) as refused:
            imported(catalogue, document)
        assert isinstance(refused.value, InvalidInput | NotFound | Unsupported)
    assert catalogue.snapshot_of(*TABLES) == before


def test_where_replicas_lie_paths_do_not_change(site):
    site.files("SLAC", ["a"])
    before = site.snapshot_of(*TABLES)
    for wanted in ({"deterministic": False}, {"lfn2pfn_algorithm": "hash"}):
        with pytest.raises(Conflict, match=r"rses\.SLAC\."):
            imported(site, {"rses": {"SLAC": wanted, "NEW": {}}})
    assert site.snapshot_of(*TABLES) == before
    imported(site, {"rses": {"TAPE": {"deterministic": True}}})


def test_limits_and_rights(site):
    many = {f"k{number}": 1 for number in range(10 * site.context.settings.max_bulk_items)}
    with pytest.raises(TooLarge):
        imported(site, {"rses": {"SLAC": {"attributes": many}}})
    manager = site.account("manager")
    with pytest.raises(NotAllowed):
        import_rses(site.context, manager, {"rses": {}})


def test_as_many_statements_for_many_rses_as_for_few(catalogue):
    def statements(count: int, stem: str) -> int:
        document = {
            "rses": {
                f"{stem}{number}": {
                    "attributes": {"n": number},
                    "protocols": [DAVS],
                    "limits": {"MinFreeSpace": 1},
                }
                for number in range(count)
            },
            "distances": {f"{stem}0": {f"{stem}{number}": number for number in range(count)}},
        }
        with counted_statements(catalogue.database) as counted:
            imported(catalogue, document)
            imported(catalogue, document)
            export_rses(catalogue.context, distances=True)
        return len(counted)

    assert statements(2, "A") == statements(60, "B")


def test_two_imports_at_once(postgresql_catalogue):
    site = postgresql_catalogue
    names = [f"SITE{number}" for number in range(20)]
    documents = [
        {"rses": {name: {"attributes": {"site": who}, "protocols": [DAVS]} for name in order}}
        for who, order in (("A", names), ("B", names[::-1]))
    ]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(imported, site, document) for document in documents]:
            done.result(timeout=60)
    sites = {attributes["attributes"]["site"] for attributes in exported(site)["rses"].values()}
    assert sites in ({"A"}, {"B"})
    assert len(exported(site)["rses"]) == 20


def test_a_new_replica_and_a_removal_at_once(postgresql_catalogue):
    """The removal waits for whoever puts something there, and then finds it."""
    site = postgresql_catalogue
    site.scope()
    site.rse("SITE")
    with ThreadPoolExecutor(1) as pool:
        with site.database.transaction() as connection:
            rses.require_rse(connection, "SITE", hold=True)
            removal = pool.submit(rses.delete_rse, site.context, site.root, "SITE")
            set_attribute(site.context, site.root, "SITE", "k", "v")
            assert not removal.done()
        removal.result(timeout=60)
    with pytest.raises(NotFound):
        site.files("SITE", ["a"])


def test_no_rse_is_called_as_an_attribute_is(site):
    before = site.snapshot_of(*TABLES)
    with pytest.raises(Conflict, match=r"rses\.istape: 'istape' is an attribute"):
        imported(site, {"rses": {"istape": {}}})
    assert site.snapshot_of(*TABLES) == before
    # nor one that is brought back
    rses.add_rse(site.context, site.root, "OLD", {})
    rses.delete_rse(site.context, site.root, "OLD")
    set_attribute(site.context, site.root, "SLAC", "OLD", "yes")
    with pytest.raises(Conflict, match=r"rses\.OLD"):
        imported(site, {"rses": {"OLD": {}}})
