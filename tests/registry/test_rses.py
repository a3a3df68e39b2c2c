"""RSEs: settings, removal, attributes, protocols, and what each refuses."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from arriero.registry.errors import Conflict, InvalidInput, NotAllowed, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    butler_rses,
    butlers,
    locks,
    replicas,
    requests,
    rse_attributes,
    rse_protocols,
    rse_usage_history,
    rules,
)
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services import rse_attributes as attributes
from arriero.registry.services import rse_distances, rse_pfns, rse_usage, rses
from arriero.registry.services import rse_protocols as protocols
from arriero.registry.services.rse_import import import_rses
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import LockState, RequestState, Role, RuleState
from arriero.rse.errors import InvalidExpression
from support.database import counted_statements

HOSTILE = ("a\nb", "\x1b[2J", "x" * 256, {"nested": 1}, ["list"])


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse("SITE")
    return catalogue


def names(site, expression: str | None = None) -> list[str]:
    return [row["rse"] for row in rses.list_rses(site.context, expression)]


def test_settings_that_cannot_be_meant_change_nothing(site):
    before = site.snapshot_of(rse_table)
    settings = ("city", "availability_read", "latitude", "rse_type")
    for change in ({key: value} for key in settings for value in HOSTILE):
        with pytest.raises(InvalidInput):
            rses.update_rse(site.context, site.root, "SITE", change)
        with pytest.raises(InvalidInput):
            rses.add_rse(site.context, site.root, "NEW", change)
    assert site.snapshot_of(rse_table) == before


def test_what_is_no_change_is_refused(site):
    nothing = ({}, {"colour": "red"}, {"name": "OTHER"}, {"availability": 8}, {"longitude": float("nan")})
    for change in (*nothing, {"volatile": None}):
        with pytest.raises(InvalidInput):
            rses.update_rse(site.context, site.root, "SITE", change)


def test_details_are_kept_forgotten_and_merged(site):
    rses.update_rse(site.context, site.root, "SITE", {"city": "Villeurbanne ☃", "longitude": 0})
    rses.update_rse(site.context, site.root, "SITE", {"city": None, "ASN": 789})
    described = rses.get_rse(site.context, "SITE")
    assert (described["city"], described["ASN"], described["longitude"]) == (None, "789", 0.0)
    assert site.audited(action="rse_update")[-1]["detail"]["details"] == {"ASN": "789", "longitude": 0.0}


def test_where_replicas_lie_paths_do_not_change(site):
    site.files("SITE", ["a"])
    with pytest.raises(Conflict, match="deterministic"):
        rses.update_rse(site.context, site.root, "SITE", {"deterministic": False})
    rses.update_rse(site.context, site.root, "SITE", {"deterministic": True, "volatile": True})
    attributes.set_attribute(site.context, site.root, "SITE", "lfn2pfn_algorithm", "identity")


class TestRemoval:
    def test_a_removed_rse_is_nowhere(self, site):
        site.rse("GONE", site="LANCS")
        rse_distances.add_distance(site.context, site.root, "SITE", "GONE", 1, bidirectional=True)
        rses.delete_rse(site.context, site.root, "GONE")
        assert names(site) == ["SITE"]
        for expression in ("GONE", "site=LANCS", "GONE|nothing"):
            with pytest.raises(InvalidExpression):
                names(site, expression)
        assert names(site, "*") == ["SITE"]
        for call in (
            lambda: rses.get_rse(site.context, "GONE"),
            lambda: site.files("GONE", ["a"]),
            lambda: rses.delete_rse(site.context, site.root, "GONE"),
            lambda: rse_usage.list_usage(site.context, "GONE"),
            lambda: rse_distances.get_distance(site.context, "SITE", "GONE"),
            lambda: rses.update_rse(site.context, site.root, "GONE", {"volatile": True}),
        ):
            with pytest.raises(NotFound):
                call()

    def test_its_name_is_not_given_again(self, site):
        rses.delete_rse(site.context, site.root, "SITE")
        with pytest.raises(Conflict, match="bring it back"):
            rses.add_rse(site.context, site.root, "SITE", {})
        assert len(site.audited(action="rse_delete")) == 1

    def test_refused_while_anything_is_left(self, site):
        site.files("SITE", ["a", "b"])
        [rse] = site.rows(select(rse_table.c.id))
        with site.database.transaction() as connection:
            connection.execute(
                insert(locks).values(rule_id=1, file_id=7, rse_id=rse["id"], bytes=1, state=LockState.STUCK)
            )
            connection.execute(
                insert(requests).values(
                    file_id=7,
                    destination_id=rse["id"],
                    bytes=1,
                    activity="x",
                    priority=3,
                    state=RequestState.QUEUED,
                )
            )
            butler = connection.scalar(
                insert(butlers).values(name="embargo", uri="/repo", instruments=[]).returning(butlers.c.id)
            )
            connection.execute(insert(butler_rses).values(butler_id=butler, rse_id=rse["id"]))
        said = r"2 replicas, 1 locks, 1 requests, 1 butlers; .*try again"
        with pytest.raises(Conflict, match=said) as refused:
            rses.delete_rse(site.context, site.root, "SITE")
        assert refused.value.rucio_class == "RSEOperationNotSupported"
        assert names(site) == ["SITE"]
        with site.database.transaction() as connection:
            for table in (replicas, locks, requests, butler_rses):
                connection.execute(table.delete())
        rses.delete_rse(site.context, site.root, "SITE")
        assert names(site) == []


class TestAttributes:
    def test_values_are_typed_as_rucio_types_them(self, site):
        cases = (
            (True, "true", True),
            ("True", "true", True),
            ("FALSE", "false", False),
            (1, "1", "1"),
            ("1", "1", "1"),
            (0.5, "0.5", "0.5"),
            ("été", "été", "été"),
        )
        for number, (value, _, _) in enumerate(cases):
            attributes.set_attribute(site.context, site.root, "SITE", f"k{number}", value)
        kept = {row["key"]: row["value"] for row in site.rows(select(rse_attributes))}
        shown = attributes.list_attributes(site.context, "SITE")
        assert [kept[f"k{number}"] for number in range(len(cases))] == [text for _, text, _ in cases]
        assert [shown[f"k{number}"] for number in range(len(cases))] == [read for _, _, read in cases]

    def test_a_change_takes_effect_at_once(self, site):
        attributes.set_attribute(site.context, site.root, "SITE", "tier", 2)
        assert names(site, "tier<3") == ["SITE"]
        attributes.set_attribute(site.context, site.root, "SITE", "tier", 3)
        with pytest.raises(InvalidExpression):
            names(site, "tier<3")

    def test_what_an_expression_could_not_read_is_refused(self, site):
        site.rse("OTHER")
        before = site.snapshot_of(rse_attributes)
        bad_keys = [(key, 1) for key in ("", "a b", "é", "x" * 256, "SITE", "OTHER")]
        for key, value in (*bad_keys, ("k", None), ("k", "a\nb"), ("k", {})):
            with pytest.raises(InvalidInput):
                attributes.set_attribute(site.context, site.root, "SITE", key, value)
        assert site.snapshot_of(rse_attributes) == before

    def test_an_rse_is_not_called_as_an_attribute_is(self, site):
        attributes.set_attribute(site.context, site.root, "SITE", "tape", "yes")
        with pytest.raises(Conflict, match="attribute"):
            rses.add_rse(site.context, site.root, "tape", {})


class TestProtocols:
    def test_several_of_a_scheme_are_told_apart(self, site):
        for port in (1095, 1096):
            protocols.add_protocol(
                site.context,
                site.root,
                "SITE",
                "davs",
                {"hostname": "dav.example.org", "port": port, "prefix": "/p"},
            )
        protocols.update_protocols(
            site.context,
            site.root,
            "SITE",
            "davs",
            {"prefix": "/new"},
            hostname="dav.example.org",
            port=1096,
        )
        shown = {one["port"]: one["prefix"] for one in rses.get_rse(site.context, "SITE")["protocols"]}
        assert shown == {1094: "/SITE", 1095: "/p", 1096: "/new"}

    def test_what_a_protocol_cannot_be_changes_nothing(self, site):
        before = site.snapshot_of(rse_protocols)
        for change, rucio_class in (
            ({"domains": {"wan": {"read": -1}}}, "RSEProtocolPriorityError"),
            ({"domains": {"wan": {"read": True}}}, "RSEProtocolPriorityError"),
            ({"domains": {"wan": {"read": "1"}}}, "RSEProtocolPriorityError"),
            ({"domains": {"wan": {"x": 1}}}, "RSEOperationNotSupported"),
            ({"domains": {"x": {}}}, "RSEProtocolDomainNotSupported"),
            ({"domains": []}, "RSEProtocolDomainNotSupported"),
            ({"port": 1}, "InvalidObject"),
            ({"impl": "a\nb"}, "InvalidObject"),
            ({"prefix": 7}, "InvalidObject"),
            ({"extended_attributes": "x"}, "InvalidObject"),
            ({"colour": "red"}, "InvalidObject"),
        ):
            with pytest.raises(InvalidInput) as refused:
                protocols.update_protocols(
                    site.context, site.root, "SITE", "davs", change, hostname=None, port=None
                )
            assert refused.value.rucio_class == rucio_class
        assert site.snapshot_of(rse_protocols) == before

    def test_rucios_older_word_for_third_party_copies_is_read(self, site):
        protocols.add_protocol(
            site.context,
            site.root,
            "SITE",
            "https",
            {"hostname": "h", "prefix": "/p", "domains": {"wan": {"read": 1, "third_party_copy": 2}}},
        )
        added = rses.get_rse(site.context, "SITE")["protocols"][-1]["domains"]["wan"]
        assert (added["third_party_copy_read"], added["third_party_copy_write"], added["write"]) == (
            2,
            2,
            None,
        )

    def test_no_pfn_leaves_the_prefix(self, site):
        for lfn in ("raw:../x", "raw:/abs", "raw:a//b", ":x", "raw", ""):
            with pytest.raises(InvalidInput):
                rse_pfns.lfns_to_pfns(site.context, "SITE", [lfn])

    def test_where_paths_are_registered_none_is_made_up(self, catalogue):
        catalogue.rse("TAPE", deterministic=False)
        with pytest.raises(InvalidInput, match="PFN") as refused:
            rse_pfns.lfns_to_pfns(catalogue.context, "TAPE", ["raw:x"])
        assert refused.value.rucio_class == "RSEOperationNotSupported"


class TestUsage:
    def test_a_site_agent_measures_its_own_rse_only(self, site):
        site.rse("OTHER")
        site.account("watcher", Role.SITE_AGENT)
        agent = site.actor("watcher", Role.SITE_AGENT, rses=["SITE"])
        measured = {"source": "storage", "used": 1, "free": 2, "files": None}
        rse_usage.set_usage(site.context, agent, "SITE", measured)
        with pytest.raises(NotAllowed):
            rse_usage.set_usage(site.context, agent, "OTHER", measured)
        with pytest.raises(NotAllowed):
            rse_usage.set_limit(site.context, agent, "SITE", "MinFreeSpace", 1)

    def test_history_is_kept_and_streams(self, site):
        [rse] = site.rows(select(rse_table.c.id))
        for used in range(3):
            rse_usage.set_usage(
                site.context, site.root, "SITE", {"source": "s", "used": used, "free": 0, "files": 1}
            )
        [current] = rse_usage.list_usage(site.context, "SITE", source="s")
        assert current["used"] == 2
        kept = list(rse_usage.list_history(site.context, "SITE"))
        assert kept[-1]["used"] == 2
        assert kept[-1]["updated_at"] == current["updated_at"]
        with site.database.transaction() as connection:
            connection.execute(
                insert(rse_usage_history).values(rse_id=rse["id"], source="t", at=now(), used=9)
            )
        assert [row["used"] for row in rse_usage.list_history(site.context, "SITE", source="t")] == [9]

    def test_the_catalogue_counts_what_lies_there(self, site):
        site.files("SITE", ["a", "b"])
        site.files("SITE", ["c"], state="COPYING")
        [counted] = rse_usage.list_usage(site.context, "SITE")
        assert (counted["source"], counted["used"], counted["files"]) == ("rucio", 2000, 2)

    def test_a_file_counts_once_for_an_account(self, site):
        site.files("SITE", ["a", "b"])
        [rse] = site.rows(select(rse_table.c.id))
        held = site.rows(select(replicas.c.file_id).order_by(replicas.c.file_id))
        for name in ("a", "b"):
            add_rules(site.context, site.root, RuleSpec("SITE", 1), [("raw", name)])
        ids = [row["id"] for row in site.rows(select(rules.c.id).order_by(rules.c.id))]
        with site.database.transaction() as connection:
            for rule_id, file in ((ids[0], held[0]), (ids[1], held[0]), (ids[1], held[1])):
                connection.execute(
                    insert(locks).values(
                        rule_id=rule_id, rse_id=rse["id"], bytes=1000, state=LockState.OK, **file
                    )
                )
        [counted] = rse_usage.list_usage(site.context, "SITE", per_account=True)
        assert counted["account_usages"] == [
            {"account": "root", "used": 2000, "files": 2, "percentage": 100.0}
        ]


def test_lists_take_as_many_statements_for_many_rses_as_for_few(site):
    def statements() -> int:
        with counted_statements(site.database) as counted:
            assert names(site, "*")
            rses.get_rse(site.context, "SITE")
        return len(counted)

    few = statements()
    for number in range(10):
        site.rse(f"SITE{number}")
    assert statements() == few


def test_what_opens_an_rse_has_stuck_rules_looked_at(site):
    site.dataset("d")
    [rule] = add_rules(site.context, site.root, RuleSpec("SITE", 1), [("raw", "d")])
    site.rse("OTHER")
    rses.update_rse(site.context, site.root, "SITE", {"availability_write": False})
    with site.database.transaction() as connection:
        connection.execute(rules.update().values(state=RuleState.STUCK))
    change = (site.context, site.root, "SITE")
    opening = (
        lambda: rses.update_rse(*change, {"availability_write": True}),
        lambda: attributes.set_attribute(*change, "site", "SLAC"),
        lambda: attributes.delete_attribute(*change, "site"),
        lambda: protocols.update_protocols(*change, "davs", {"prefix": "/p"}, hostname=None, port=None),
        lambda: protocols.add_protocol(*change, "https", {"hostname": "h", "prefix": "/p"}),
        lambda: rse_usage.set_limit(*change, "MinFreeSpace", 1),
        lambda: import_rses(site.context, site.root, {"rses": {}}),
    )
    for change_it in opening:
        site.evaluated()
        site.doorbell.rung.clear()
        change_it()
        assert site.generation(rule) is not None
        assert site.doorbell.rung[:1] == [Bell.EVALUATIONS]
    site.evaluated()
    site.doorbell.rung.clear()
    rses.update_rse(*change, {"availability_write": True, "city": "Lyon"})
    # no rule waits for a distance
    rse_distances.add_distance(*change, "OTHER", 1, bidirectional=True)
    rse_distances.delete_distance(*change, "OTHER", bidirectional=True)
    assert (site.generation(rule), site.doorbell.rung) == (None, [])
