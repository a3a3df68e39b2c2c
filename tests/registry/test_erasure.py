"""Collections whose lifetime is over go, with a history; erased ones come back."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.schema.tables import (
    contents,
    contents_history,
    deleted_dids,
    did_meta,
    events,
    locks,
    rules,
)
from arriero.registry.schema.tables import dids as dids_table
from arriero.registry.services import did_lists, dids, metadata
from arriero.registry.services.accesses import Access, record_accesses
from arriero.registry.services.authorisation import Denied
from arriero.registry.services.did_samples import create_sample
from arriero.registry.services.erasure import erase_expired_collections, resurrect
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from support.database import counted_statements

RSE = "SLAC_RAW_DISK"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    catalogue.files(RSE, ["a", "b", "c"])
    return catalogue


def expire(site, *names: str) -> None:
    metadata.set_metadata(site.context, site.root, [("raw", name, {"lifetime": -1}) for name in names])


def history(site, name: str) -> dict[str, bool]:
    rows = did_lists.list_content_history(site.context, "raw", name)
    return {row["name"]: row["deleted_at"] is not None for row in rows}


def test_a_dataset_goes_with_its_rules_and_leaves_a_history(site):
    site.dataset("d", ["a", "b"])
    site.dataset("other", ["c"])
    site.container("top", ["d", "other"])
    [above] = add_rules(site.context, site.root, RuleSpec(RSE, 1), [("raw", "top")])
    add_rules(site.context, site.root, RuleSpec(RSE, 1), [("raw", "d")])
    metadata.set_metadata(site.context, site.root, [("raw", "d", {"night": 1})])
    site.evaluated()
    expire(site, "d")
    assert erase_expired_collections(site.context) == 1
    assert erase_expired_collections(site.context) == 0
    with pytest.raises(NotFound):
        dids.get_did(site.context, "raw", "d")
    assert site.generation(above) == 1
    assert [row["uuid"] for row in site.rows(select(rules))] == [above]
    assert site.count(locks) == 0
    assert history(site, "d") == {"a": True, "b": True}
    assert history(site, "top") == {"d": True, "other": False}
    assert site.count(contents) == 2
    [gone] = site.rows(select(deleted_dids))
    assert (gone["name"], gone["meta"]) == ("d", {"night": 1})
    assert [(row["event_type"], row["key"]) for row in site.rows(select(events))][-1] == ("ERASE", "raw:d")
    [audited] = site.audited(action="did_erase")
    assert (audited["object"], audited["account"]) == ("raw:d", None)
    # the files stay
    assert site.count(dids_table, dids_table.c.type == "FILE") == 3


def test_what_was_erased_comes_back_with_its_metadata_and_its_id(site):
    site.dataset("d", ["a"])
    metadata.set_metadata(site.context, site.root, [("raw", "d", {"night": 1})])
    [before] = site.rows(select(dids_table.c.id).where(dids_table.c.name == "d"))
    expire(site, "d")
    erase_expired_collections(site.context)
    site.container("after")
    with pytest.raises(NotFound):
        resurrect(site.context, site.root, [("raw", "d"), ("raw", "never")])
    with pytest.raises(Denied):
        resurrect(site.context, site.account("alice"), [("raw", "d")])
    resurrect(site.context, site.root, [("raw", "d")])
    [after] = site.rows(select(dids_table.c.id).where(dids_table.c.name == "d"))
    assert after == before
    assert metadata.get_metadata(site.context, "raw", "d", plugin="JSON") == {"night": 1}
    assert list(did_lists.list_content(site.context, "raw", "d")) == []
    assert history(site, "d") == {"a": True}
    assert dids.get_did(site.context, "raw", "d")["expired_at"] is None
    with pytest.raises(Conflict) as refused:
        resurrect(site.context, site.root, [("raw", "d")])
    assert refused.value.rucio_class == "DataIdentifierAlreadyExists"


def test_an_id_is_never_given_twice(site):
    for _ in range(2):
        site.dataset("last")
        expire(site, "last")
        assert erase_expired_collections(site.context) == 1
    first, second = site.rows(select(deleted_dids.c.id).order_by(deleted_dids.c.id))
    assert first != second


def test_a_locked_rule_keeps_its_collection_and_no_other(site):
    site.dataset("held", ["a"])
    site.container("empty")
    add_rules(site.context, site.root, RuleSpec(RSE, 1, locked=True), [("raw", "held")])
    expire(site, "held", "empty")
    assert erase_expired_collections(site.context) == 1
    assert dids.get_did(site.context, "raw", "held")["name"] == "held"
    with site.database.transaction() as connection:
        connection.execute(update(rules).values(locked=False))
    assert erase_expired_collections(site.context) == 1
    assert [row["event_type"] for row in site.rows(select(events))][-2:] == ["ERASE_CNT", "ERASE"]


def test_files_and_what_has_time_left_are_not_erased(site):
    site.dataset("d")
    expire(site, "a", "d")
    metadata.set_metadata(site.context, site.root, [("raw", "d", {"lifetime": None})])
    assert erase_expired_collections(site.context) == 0
    assert site.count(deleted_dids) == 0


def test_detached_content_is_remembered(site):
    site.dataset("d", ["a", "b"])
    site.detach("d", ["a"])
    site.attach("d", ["a"])
    site.detach("d", ["a"])
    assert site.count(contents_history) == 2
    rows = list(did_lists.list_content_history(site.context, "raw", "d"))
    assert sorted((row["name"], row["deleted_at"] is None) for row in rows) == [
        ("a", False),
        ("a", False),
        ("b", True),
    ]


def test_metadata_goes_down_and_is_inherited(site):
    site.dataset("d", ["a", "b"])
    site.dataset("e", ["b", "c"])
    site.container("top", ["d", "e"])
    context, root = site.context, site.root
    metadata.set_metadata(context, root, [("raw", "a", {"own": 1})])
    metadata.set_metadata(context, root, [("raw", "top", {"run": "x"})], recursive=True)
    assert site.count(did_meta) == 6
    assert metadata.get_metadata(context, "raw", "a", plugin="JSON") == {"own": 1, "run": "x"}
    metadata.set_metadata(
        context, root, [("raw", "d", {"run": "d"}), ("raw", "e", {"run": "e"})], recursive=True
    )
    assert metadata.get_metadata(context, "raw", "b", plugin="JSON") == {"run": "e"}
    metadata.set_metadata(context, root, [("raw", "top", {"site": "s", "run": "top"})])
    keys = [("raw", "b"), ("raw", "missing"), ("raw", "a")]
    rows = list(metadata.get_metadata_bulk(context, keys, plugin="JSON", inherit=True))
    assert rows == [
        {"scope": "raw", "name": "b", "run": "e", "site": "s"},
        {"scope": "raw", "name": "a", "own": 1, "run": "d", "site": "s"},
    ]


def test_metadata_below_belongs_to_its_owners(site):
    alice = site.account("alice")
    site.scope("hers", owner="alice")
    site.dataset("d", scope="hers")
    metadata.set_metadata(site.context, alice, [("hers", "d", {"k": 1})], recursive=True)
    site.files(RSE, ["x"])
    from arriero.registry.services import contents as attaching

    attaching.attach(
        site.context, site.root, [attaching.Attachment("hers", "d", [attaching.Child("raw", "x")])]
    )
    with pytest.raises(Denied):
        metadata.set_metadata(site.context, alice, [("hers", "d", {"k": 2})], recursive=True)
    assert metadata.get_metadata(site.context, "hers", "d", plugin="JSON") == {"k": 1}


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "meta", [{"k": deep(40)}, {f"k{number}": 1 for number in range(1001)}, {"created_at": "x"}, {"": 1}]
)
def test_metadata_has_limits(site, meta):
    site.dataset("d")
    with pytest.raises(InvalidInput):
        metadata.set_metadata(site.context, site.root, [("raw", "d", meta)])
    assert site.count(did_meta) == 0


def test_every_type_of_json_comes_back(site):
    site.dataset("d")
    meta = {"i": 1, "f": 1.5, "t": True, "n": None, "l": [1, "a", None], "o": {"deep": {"x": []}}, "s": "ü"}
    metadata.set_metadata(site.context, site.root, [("raw", "d", meta)])
    assert metadata.get_metadata(site.context, "raw", "d", plugin="JSON") == meta


def test_reading_is_written_down_once_a_minute(site):
    site.dataset("d", ["a"])
    accesses = [
        Access("raw", "a", RSE),
        Access("raw", "d"),
        Access("raw", "nothing"),
        Access("nowhere", "x", "NONE"),
    ]
    record_accesses(site.context, accesses)
    seen = {row["name"]: row["accessed_at"] for row in site.rows(select(dids_table))}
    assert [name for name, at in sorted(seen.items()) if at is not None] == ["a", "d"]
    before = site.snapshot_of(dids_table)
    record_accesses(site.context, accesses)
    assert site.snapshot_of(dids_table) == before


def test_a_sample_is_drawn(site):
    site.dataset("d", ["a", "b", "c"])
    create_sample(site.context, site.root, ("raw", "d"), ("raw", "s"), 2)
    create_sample(site.context, site.root, ("raw", "d"), ("raw", "all"), 10)
    assert len(list(did_lists.list_content(site.context, "raw", "s"))) == 2
    assert len(list(did_lists.list_content(site.context, "raw", "all"))) == 3
    with pytest.raises(Conflict):
        create_sample(site.context, site.root, ("raw", "d"), ("raw", "s"), 2)


def statements(site, work) -> int:
    with counted_statements(site.database) as seen:
        work()
    return len([one for one in seen if not one.startswith(("BEGIN", "SET LOCAL", "CREATE TEMPORARY"))])


def test_many_cost_as_many_statements_as_few(site):
    context, root = site.context, site.root

    def calls(count: int, stem: str) -> list[int]:
        keys = [("raw", f"{stem}{number}") for number in range(count)]
        new = [dids.NewCollection(*key, "DATASET", lifetime_s=9, meta={"k": 1}) for key in keys]
        changes = [(*key, {"k": 2, "lifetime": None}) for key in keys]
        return [
            statements(site, lambda: dids.add_collections(context, root, new)),
            statements(site, lambda: metadata.set_metadata(context, root, changes, recursive=True)),
            statements(site, lambda: list(metadata.get_metadata_bulk(context, keys, inherit=True))),
            statements(site, lambda: list(did_lists.list_files_of_many(context, keys))),
            statements(site, lambda: site.container(f"{stem}-top", [name for _, name in keys])),
            statements(site, lambda: site.detach(f"{stem}-top", [name for _, name in keys])),
        ]

    calls(2, "warm")
    assert calls(2, "few") == calls(1500, "many")
