"""Collections: added once, closed for good, found by name and metadata."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.schema.tables import contents, did_meta, events, rules
from arriero.registry.schema.tables import dids as dids_table
from arriero.registry.services import did_lists, dids, metadata
from arriero.registry.services.authorisation import Denied
from arriero.registry.services.contents import Child
from arriero.registry.services.dids import NewCollection
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.states import Role

RSE = "SLAC_RAW_DISK"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    return catalogue


def names(site, **options) -> list[str]:
    given = {"filters": None, "did_type": "collection", "long": False, "recursive": False, **options}
    return list(did_lists.search(site.context, "raw", **given))


def test_a_collection_comes_with_everything_or_not_at_all(site):
    site.files(RSE, ["a"])
    whole = NewCollection(
        "raw",
        "d",
        "DATASET",
        lifetime_s=3600,
        meta={"night": "20241108"},
        children=[Child("raw", "a")],
        rules=[RuleSpec(RSE, 1)],
    )
    dids.add_collections(site.context, site.root, [whole])
    assert dids.get_did(site.context, "raw", "d")["expired_at"] is not None
    assert metadata.get_metadata(site.context, "raw", "d", plugin="JSON") == {"night": "20241108"}
    assert (site.count(contents), site.count(rules)) == (1, 1)
    before = site.snapshot_of(dids_table, contents, did_meta, rules)
    broken = NewCollection("raw", "e", "DATASET", meta={"k": 1}, children=[Child("raw", "missing")])
    with pytest.raises(NotFound):
        dids.add_collections(site.context, site.root, [NewCollection("raw", "f", "DATASET"), broken])
    assert site.snapshot_of(dids_table, contents, did_meta, rules) == before


def test_a_name_is_given_once(site):
    site.dataset("d")
    new = [NewCollection("raw", "e", "DATASET"), NewCollection("raw", "d", "CONTAINER")]
    with pytest.raises(Conflict) as refused:
        dids.add_collections(site.context, site.root, new)
    assert refused.value.rucio_class == "DataIdentifierAlreadyExists"
    assert names(site) == ["d"]
    with pytest.raises(Conflict, match="twice"):
        dids.add_collections(site.context, site.root, [new[0], new[0]])


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewCollection("nowhere", "d", "DATASET"), NotFound),
        (NewCollection("raw", "../d", "DATASET"), InvalidInput),
        (NewCollection("raw", "d", "FILE"), InvalidInput),
        (NewCollection("raw", "d", "ARCHIVE"), InvalidInput),
        (NewCollection("raw", "d", "DATASET", meta={"k": 2**63}), InvalidInput),
        (NewCollection("raw", "d", "DATASET", meta={"lifetime": 3}), InvalidInput),
        (NewCollection("raw", "d", "DATASET", meta={"bytes": 3}), InvalidInput),
        (NewCollection("raw", "d", "DATASET", meta={"k": "x" * 300_000}), InvalidInput),
        (NewCollection("raw", "d", "DATASET", meta={"k": "\x00"}), InvalidInput),
    ],
)
def test_what_cannot_be_meant_is_refused(site, new, error):
    with pytest.raises(error):
        dids.add_collections(site.context, site.root, [new])
    assert site.count(dids_table) == 0


def test_closing_is_told_once_and_reopening_is_for_administrators(site):
    site.files(RSE, ["a", "b"])
    alice = site.account("alice")
    site.scope("hers", owner="alice")
    site.dataset("d", scope="hers")
    site.attach("d", [], scope="hers")
    dids.set_status(site.context, alice, "hers", "d", is_open=False)
    with pytest.raises(Conflict, match="closed already"):
        dids.set_status(site.context, alice, "hers", "d", is_open=False)
    with pytest.raises(Denied):
        dids.set_status(site.context, alice, "hers", "d", is_open=True)
    [event] = site.rows(select(events))
    assert (event["event_type"], event["key"]) == ("CLOSE", "hers:d")
    assert event["payload"] == {"scope": "hers", "name": "d", "account": "root", "length": 0, "bytes": 0}
    dids.set_status(site.context, site.root, "hers", "d", is_open=True)
    assert dids.get_did(site.context, "hers", "d")["open"] is True
    with pytest.raises(Conflict, match="file"):
        dids.set_status(site.context, site.root, "raw", "a", is_open=False)


def test_search_by_name_type_account_and_metadata(site):
    site.dataset("Dataset/x_1")
    site.dataset("Dataset/xA1")
    site.container("C%")
    site.files(RSE, ["f.fits"], meta={"night": 20241108, "good": True, "who": "O'Brien; DROP TABLE dids --"})
    metadata.set_metadata(site.context, site.root, [("raw", "Dataset/x_1", {"night": "20241108"})])
    assert names(site) == ["C%", "Dataset/xA1", "Dataset/x_1"]
    assert names(site, filters="[{'name': 'Dataset/x_*'}]") == ["Dataset/x_1"]
    assert names(site, filters='[{"name": "*x*1"}]', did_type="dataset") == ["Dataset/xA1", "Dataset/x_1"]
    assert names(site, filters="[{'name': 'C%'}, {'name': 'f.fits'}]", did_type="all") == ["C%", "f.fits"]
    assert names(site, filters="[{'night': 20241108}]", did_type="all") == ["Dataset/x_1", "f.fits"]
    assert names(site, filters="[{'good': True, 'name': '*'}]", did_type="file") == ["f.fits"]
    assert names(site, filters="""[{"who": "O'Brien; DROP TABLE dids --"}]""", did_type="all") == ["f.fits"]
    assert names(site, filters="[{'account': 'nobody'}]", did_type="all") == []
    assert names(site, did_type="container") == ["C%"]


@pytest.mark.parametrize(
    "filters",
    [
        "__import__('os').system('true')",
        "[" * 5000,
        "{'a': {}}",
        "[1]",
        "9" * 20_000,
    ],
)
def test_filters_that_cannot_be_read_are_refused(site, filters):
    with pytest.raises(InvalidInput):
        names(site, filters=filters)


def test_metadata_is_laid_over_what_is_there(site):
    site.dataset("d")
    site.dataset("e")
    root, context = site.root, site.context
    metadata.set_metadata(context, root, [("raw", "d", {"a": 1, "b": {"deep": [1]}}), ("raw", "e", {"a": 2})])
    # a key's value is replaced as a whole, on both databases, whatever it holds
    metadata.set_metadata(context, root, [("raw", "d", {"b": {"other": {"of": None, "n": 2**53}}})])
    assert metadata.get_metadata(context, "raw", "d", plugin="JSON")["b"] == {
        "other": {"of": None, "n": 2**53}
    }
    metadata.set_metadata(context, root, [("raw", "d", {"b": "new", "c": "ü"})])
    assert metadata.get_metadata(context, "raw", "d", plugin="JSON") == {"a": 1, "b": "new", "c": "ü"}
    bulk = {
        row["name"]: row
        for row in metadata.get_metadata_bulk(context, [("raw", "d"), ("raw", "e"), ("raw", "z")])
    }
    assert {name: row["a"] for name, row in bulk.items()} == {"d": 1, "e": 2}
    metadata.delete_metadata(context, root, "raw", "d", "a")
    assert metadata.get_metadata(context, "raw", "d", plugin="JSON") == {"b": "new", "c": "ü"}
    with pytest.raises(NotFound) as missing:
        metadata.delete_metadata(context, root, "raw", "d", "a")
    assert missing.value.rucio_class == "KeyNotFound"
    before = site.snapshot_of(did_meta)
    with pytest.raises(NotFound):
        metadata.set_metadata(context, root, [("raw", "d", {"x": 1}), ("raw", "missing", {"x": 1})])
    assert site.snapshot_of(did_meta) == before


def test_a_lifetime_is_set_and_taken_back_as_metadata(site):
    site.dataset("d")
    metadata.set_metadata(site.context, site.root, [("raw", "d", {"lifetime": 86400})])
    assert dids.get_did(site.context, "raw", "d")["expired_at"] is not None
    metadata.set_metadata(site.context, site.root, [("raw", "d", {"lifetime": None})])
    assert dids.get_did(site.context, "raw", "d")["expired_at"] is None
    with pytest.raises(InvalidInput):
        metadata.set_metadata(site.context, site.root, [("raw", "d", {"lifetime": "soon"})])


def test_only_the_owner_of_a_scope_adds_to_it(site):
    bob = site.account("bob")
    reader = site.account("eve", Role.READER)
    site.scope("hers", owner="eve")
    for actor, scope in ((bob, "raw"), (reader, "raw"), (reader, "hers")):
        with pytest.raises(Denied):
            dids.add_collections(site.context, actor, [NewCollection(scope, "d", "DATASET")])
    assert site.count(dids_table) == 0
