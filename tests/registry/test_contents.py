"""Attaching and detaching: what is refused changes nothing, and every rule above is woken."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.schema.tables import contents as contents_table
from arriero.registry.schema.tables import dids as dids_table
from arriero.registry.schema.tables import evaluations, replicas
from arriero.registry.services import contents, did_lists, dids
from arriero.registry.services.contents import Attachment, Child
from arriero.registry.services.dids import NewCollection
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from support.database import counted_statements

RSE = "SLAC_RAW_DISK"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    catalogue.rse("IN2P3_RAW_DISK")
    catalogue.files(RSE, ["a", "b", "c"])
    return catalogue


def held(site, parent: str) -> list[str]:
    return sorted(row["name"] for row in did_lists.list_content(site.context, "raw", parent))


def rule(site, name: str, **options):
    [uuid] = add_rules(site.context, site.root, RuleSpec("IN2P3_RAW_DISK", 1, **options), [("raw", name)])
    return uuid


def test_attaches_and_lists_both_ways(site):
    site.dataset("d")
    site.attach("d", ["a", "b"])
    site.container("c1", ["d"])
    assert held(site, "d") == ["a", "b"]
    assert held(site, "c1") == ["d"]
    parents = list(did_lists.list_parents(site.context, "raw", "a"))
    assert parents == [{"scope": "raw", "name": "d", "type": "DATASET"}]
    assert sorted(row["name"] for row in did_lists.list_files(site.context, "raw", "c1")) == ["a", "b"]
    described = dids.get_did(site.context, "raw", "c1", with_totals=True)
    assert (described["length"], described["bytes"]) == (2, 2000)


def test_a_file_in_two_datasets_of_a_container_counts_once(site):
    site.dataset("d1", ["a", "b"])
    site.dataset("d2", ["b", "c"])
    site.container("c1", ["d1", "d2"])
    assert dids.get_did(site.context, "raw", "c1", with_totals=True)["length"] == 3
    assert sorted(row["name"] for row in did_lists.list_files(site.context, "raw", "c1")) == ["a", "b", "c"]


def test_what_is_attached_already_is_refused_or_passed_over(site):
    site.dataset("d", ["a"])
    with pytest.raises(Conflict) as refused:
        site.attach("d", ["b", "a"])
    assert refused.value.rucio_class == "FileAlreadyExists"
    assert held(site, "d") == ["a"]
    site.attach("d", ["b", "a", "b"], ignore_duplicate=True)
    assert held(site, "d") == ["a", "b"]


@pytest.mark.parametrize(
    ("parent", "children", "error", "said"),
    [
        ("d", [Child("raw", "missing")], NotFound, "raw:missing"),
        ("d", [Child("nowhere", "a")], NotFound, "nowhere:a"),
        ("missing", [Child("raw", "a")], NotFound, "raw:missing"),
        ("d", [Child("raw", "d2")], Conflict, "cannot be attached"),
        ("c1", [Child("raw", "a")], Conflict, "cannot be attached"),
        ("a", [Child("raw", "b")], Conflict, "is a file"),
        ("closed", [Child("raw", "a")], Conflict, "closed"),
        ("d", [Child("raw", "a", bytes=999)], Conflict, "bytes"),
        ("d", [Child("raw", "a", adler32="0000002b")], Conflict, "adler32"),
        ("d", [Child("raw", "a", adler32="zz")], InvalidInput, "adler32"),
        ("c1", [Child("raw", "c1")], Conflict, "circular"),
        ("inner", [Child("raw", "c1")], Conflict, "circular"),
    ],
)
def test_what_cannot_be_attached_changes_nothing(site, parent, children, error, said):
    site.dataset("d")
    site.dataset("d2")
    site.container("c1")
    site.container("inner")
    site.attach("c1", ["inner"])
    site.dataset("closed")
    dids.set_status(site.context, site.root, "raw", "closed", is_open=False)
    before = site.snapshot_of(contents_table, evaluations, replicas)
    good = [Child("raw", "b", adler32="2A", bytes=1000)] if parent == "d" else []
    with pytest.raises(error, match=said):
        contents.attach(site.context, site.root, [Attachment("raw", parent, [*good, *children])])
    assert site.snapshot_of(contents_table, evaluations, replicas) == before


def test_a_circle_within_one_call_is_refused(site):
    for name in ("x", "y", "z"):
        site.container(name)
    circle = [Attachment("raw", one, [Child("raw", other)]) for one, other in ("xy", "yz", "zx")]
    with pytest.raises(Conflict, match="circular"):
        contents.attach(site.context, site.root, circle)
    assert site.count(contents_table) == 0


def test_several_attachments_are_all_made_or_none(site):
    site.dataset("d1")
    site.dataset("d2")
    good = Attachment("raw", "d1", [Child("raw", "a")])
    with pytest.raises(NotFound):
        contents.attach(site.context, site.root, [good, Attachment("raw", "d2", [Child("raw", "missing")])])
    assert site.count(contents_table) == 0
    contents.attach(site.context, site.root, [good, Attachment("raw", "d2", [Child("raw", "a")])])
    assert (held(site, "d1"), held(site, "d2")) == (["a"], ["a"])


def test_every_rule_above_is_woken_and_no_other(site):
    site.dataset("d")
    site.dataset("elsewhere")
    site.container("inner", ["d"])
    site.container("outer", ["inner"])
    above = [rule(site, name) for name in ("d", "inner", "outer")]
    others = [rule(site, "elsewhere"), rule(site, "a")]
    site.evaluated()
    site.attach("d", ["a"])
    assert [site.generation(uuid) for uuid in above] == [1, 1, 1]
    assert [site.generation(uuid) for uuid in others] == [None, None]
    site.attach("d", ["b"])
    assert [site.generation(uuid) for uuid in above] == [2, 2, 2]
    site.evaluated()
    site.attach("d", ["a", "b"], ignore_duplicate=True)
    assert [site.generation(uuid) for uuid in above] == [None, None, None]
    site.detach("d", ["a"])
    assert [site.generation(uuid) for uuid in above] == [1, 1, 1]
    site.evaluated()
    site.detach("outer", ["inner"])
    assert [site.generation(uuid) for uuid in above] == [None, None, 1]


def test_a_rule_that_waits_for_approval_is_told_too(site):
    """It may be approved at this moment: whether it rests is decided where its row is held."""
    site.dataset("d")
    uuid = rule(site, "d", ask_approval=True)
    assert site.generation(uuid) is None
    site.attach("d", ["a"])
    assert site.generation(uuid) == 1


def test_detaching_what_is_not_attached_changes_nothing(site):
    site.dataset("d", ["a"])
    with pytest.raises(NotFound, match="raw:b"):
        site.detach("d", ["a", "b"])
    assert held(site, "d") == ["a"]
    site.detach("d", ["a"])
    assert held(site, "d") == []


def test_nothing_is_detached_from_what_only_grows(site):
    dids.add_collections(site.context, site.root, [NewCollection("raw", "m", "DATASET", monotonic=True)])
    site.attach("m", ["a"])
    with pytest.raises(Conflict, match="monotonic"):
        site.detach("m", ["a"])
    assert held(site, "m") == ["a"]


def test_attaching_with_an_rse_registers_the_replicas_too(site):
    site.dataset("d")
    new = Attachment("raw", "d", [Child("raw", "new", 5, "00000001", meta={"k": "v"})], rse=RSE)
    contents.attach(site.context, site.root, [new])
    assert held(site, "d") == ["new"]
    assert site.count(replicas) == 4
    bad = Attachment("raw", "d", [Child("raw", "newer", 5), Child("raw", "a", 6)], rse=RSE)
    with pytest.raises(Conflict):
        contents.attach(site.context, site.root, [bad])
    assert held(site, "d") == ["new"]
    assert site.rows(select(dids_table).where(dids_table.c.name == "newer")) == []


def test_as_many_statements_for_ten_children_as_for_a_thousand(site):
    attached, detached = [], []
    for number in (10, 1000):
        names = [f"{number}/{i}" for i in range(number)]
        site.files(RSE, names)
        site.dataset(f"d{number}")
        rule(site, f"d{number}")
        with counted_statements(site.database) as statements:
            site.attach(f"d{number}", names)
        attached.append(len(statements))
        with counted_statements(site.database) as statements:
            site.detach(f"d{number}", names)
        detached.append(len(statements))
    assert attached[0] == attached[1] < 30
    assert detached[0] == detached[1] < 30


def test_more_than_one_call_may_carry_is_refused(site):
    site.dataset("d")
    with pytest.raises(InvalidInput, match="10000"):
        site.attach("d", ["a"] * 10_001)
