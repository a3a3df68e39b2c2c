"""What is said against replicas, what it does to locks and rules at once, and how it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, InvalidInput, NotAllowed, NotFound
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    bad_replicas,
    dids,
    events,
    locks,
    replicas,
    rule_history,
    rules,
)
from arriero.registry.services import bad_replica_lists, rse_protocols
from arriero.registry.services import bad_replicas as service
from arriero.registry.services.bad_replicas import Declaration, Named
from arriero.registry.services.pfn_dids import dids_of_pfns
from arriero.registry.services.replica_lists import ReplicaQuery, list_replicas
from arriero.registry.services.replica_removal import delete_replicas
from arriero.registry.services.replicas import StateChange, update_states
from arriero.registry.services.rses import delete_rse
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, RuleState
from support.database import counted_statements
from support.in_process import DOMAINS
from support.invariants import assert_invariants

RSE = "SLAC_RAW_DISK"
BAD = Declaration(BadReplicaState.BAD, "truncated")
SUSPICIOUS = Declaration(BadReplicaState.SUSPICIOUS, "time-out")


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    return catalogue


def pfn(name: str, rse: str = RSE) -> str:
    return f"davs://dav.example.org:1094/{rse}/raw/{name}"


def named(*names: str, rse: str = RSE) -> list[Named]:
    return [Named("raw", name, rse) for name in names]


def states(site) -> dict[str, str]:
    query = select(dids.c.name, replicas.c.state).join(replicas, replicas.c.file_id == dids.c.id)
    return {row["name"]: row["state"] for row in site.rows(query.where(replicas.c.rse_id == 1))}


def declared(site) -> list[str]:
    return [row["state"] for row in site.rows(select(bad_replicas.c.state).order_by(bad_replicas.c.id))]


def hold(site, *names: str, state: LockState = LockState.OK) -> int:
    """A rule on each file at the RSE, evaluated: one lock, counted; give the id of the last."""
    for name in names:
        [uuid] = add_rules(site.context, site.root, RuleSpec(RSE, 1), [("raw", name)])
        with site.database.transaction() as connection:
            rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
            file_id = connection.scalar(select(dids.c.id).where(dids.c.name == name))
            connection.execute(
                locks.insert().values(rule_id=rule_id, file_id=file_id, rse_id=1, bytes=1000, state=state)
            )
            ok = int(state is LockState.OK)
            connection.execute(
                update(rules)
                .where(rules.c.id == rule_id)
                .values(
                    state=RuleState.OK if ok else RuleState.REPLICATING, locks_ok=ok, locks_replicating=1 - ok
                )
            )
    site.evaluated()
    return rule_id


def test_a_bad_replica_stops_its_locks_and_rules_at_once(site):
    site.files(RSE, ["a", "b"])
    site.files(site.rse("BACKUP"), ["a"])
    hold(site, "a", "b")
    assert service.declare(site.context, site.root, [pfn("a")], BAD) == {}
    assert states(site) == {"a": "BAD", "b": "AVAILABLE"}
    [bad] = site.rows(select(bad_replicas))
    assert (bad["state"], bad["reason"], bad["account_id"]) == ("BAD", "truncated", site.root.account_id)
    first, second = site.rows(select(rules).order_by(rules.c.id))
    assert (first["state"], first["locks_ok"], first["locks_stuck"]) == ("STUCK", 0, 1)
    assert (first["code"], first["reason"]) == ("bad_replica", "replica declared bad: truncated")
    assert None not in (first["stuck_at"], first["stuck_since"])
    assert (second["state"], second["locks_ok"]) == ("OK", 1)
    [lock] = site.rows(select(locks).where(locks.c.state == LockState.STUCK))
    assert (lock["code"], lock["reason"]) == ("bad_replica", "replica declared bad: truncated")
    [history] = site.rows(select(rule_history).where(rule_history.c.to_state == RuleState.STUCK))
    assert (history["from_state"], history["code"]) == ("OK", "bad_replica")
    assert site.generation(first["uuid"]) == 1
    assert site.generation(second["uuid"]) is None
    [event] = site.rows(select(events).where(events.c.event_type == "replica-bad"))
    assert (event["payload"]["name"], event["payload"]["rse"]) == ("a", RSE)
    [audited] = site.audited(action="replica_declare")
    assert audited["detail"] == {"state": "BAD", "count": 1, "reason": "truncated"}
    assert_invariants(site.database)


@pytest.mark.parametrize("state", [RuleState.SUSPENDED, RuleState.WAITING_APPROVAL])
def test_a_rule_that_sleeps_keeps_its_state_and_its_counts_are_right(site, state):
    site.files(RSE, ["a"])
    rule_id = hold(site, "a")
    with site.database.transaction() as connection:
        connection.execute(update(rules).where(rules.c.id == rule_id).values(state=state))
    service.declare(site.context, site.root, named("a"), BAD)
    [rule] = site.rows(select(rules))
    assert (rule["state"], rule["locks_ok"], rule["locks_stuck"]) == (state, 0, 1)
    assert rule["code"] is None
    # whether it rests is decided where its row is held
    assert site.generation(rule["uuid"]) == 1


def test_what_cannot_be_declared_is_named_and_holds_up_nobody(site):
    site.files(RSE, ["a", "b"])
    site.files(RSE, ["coming"], state=ReplicaState.COPYING)
    site.dataset("d", ["a"])
    lost = "davs://elsewhere.example.org/x"
    sent = [pfn("a"), pfn("missing"), lost, "not a url", *named("b", "nothing", "d", "coming")]
    assert service.declare(site.context, site.root, sent, BAD) == {
        RSE: [
            f"{pfn('missing')} Unknown replica",
            "raw:nothing Unknown replica",
            "raw:d Unknown replica",
            "raw:coming is COPYING",
        ],
        "unknown": [f"{lost} No RSE has this prefix", "not a url No RSE has this prefix"],
    }
    assert states(site) == {"a": "BAD", "b": "BAD", "coming": "COPYING"}
    again = service.declare(site.context, site.root, [pfn("a")], BAD)
    assert again == {RSE: [f"{pfn('a')} Already declared"]}
    forced = Declaration(BadReplicaState.BAD, "once more", force=True)
    assert service.declare(site.context, site.root, [pfn("a")], forced) == {}
    assert len(declared(site)) == 3


def test_a_replica_that_is_named_twice_is_declared_once(site):
    site.files(RSE, ["a"])
    assert service.declare(site.context, site.root, [pfn("a"), *named("a"), pfn("a")], BAD) == {}
    assert declared(site) == ["BAD"]


def test_an_rse_that_is_not_there_is_refused_and_nothing_is_declared(site):
    site.files(RSE, ["a"])
    before = site.snapshot_of(replicas, bad_replicas)
    for one in (Named("raw", "a", "NOWHERE"), Named("raw", "a", rse_id="77"), Named("raw", "a")):
        with pytest.raises(NotFound) as refused:
            service.declare(site.context, site.root, [pfn("a"), one], BAD)
        assert refused.value.rucio_class == "RSENotFound"
    assert site.snapshot_of(replicas, bad_replicas) == before
    assert service.declare(site.context, site.root, [Named("raw", "a", rse_id="1")], BAD) == {}


def test_only_the_owner_a_site_or_an_administrator_declares(site):
    site.files(RSE, ["a"])
    other = site.account("other")
    for sent in ([pfn("a")], named("a"), named("not there")):
        with pytest.raises(NotAllowed):
            service.declare(site.context, other, sent, BAD)
    assert states(site) == {"a": "AVAILABLE"}


@pytest.mark.parametrize(
    ("state", "expires_at"),
    [
        (BadReplicaState.LOST, None),
        (BadReplicaState.RECOVERED, None),
        (BadReplicaState.BAD, datetime(2099, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_cannot_be_said_is_refused(state, expires_at):
    with pytest.raises(InvalidInput):
        Declaration(state, None, expires_at)


def test_a_good_copy_with_its_checksum_settles_it_and_wakes_the_rules(site):
    site.files(RSE, ["a", "b"])
    hold(site, "a")
    service.declare(site.context, site.root, named("a", "b"), BAD)
    site.evaluated()
    with pytest.raises(Conflict):
        site.files(RSE, ["a"], adler32=None)
    site.files(RSE, ["a"])
    assert states(site) == {"a": "AVAILABLE", "b": "BAD"}
    assert declared(site) == ["RECOVERED", "BAD"]
    [rule] = site.rows(select(rules))
    assert site.generation(rule["uuid"]) == 1
    update_states(site.context, site.root, RSE, [StateChange("raw", "b", ReplicaState.AVAILABLE)])
    assert (states(site)["b"], declared(site)) == ("AVAILABLE", ["RECOVERED", "RECOVERED"])


def test_states_by_hand(site):
    site.files(RSE, ["a", "b"])
    hold(site, "a")
    changes = [
        StateChange("raw", "a", ReplicaState.BAD, "no such file"),
        StateChange("raw", "b", ReplicaState.TEMPORARY_UNAVAILABLE),
    ]
    update_states(site.context, site.root, RSE, changes)
    assert states(site) == {"a": "BAD", "b": "TEMPORARY_UNAVAILABLE"}
    [rule] = site.rows(select(rules))
    assert (rule["state"], rule["locks_stuck"]) == ("STUCK", 1)
    update_states(site.context, site.root, RSE, [changes[0]])
    with pytest.raises(NotFound) as refused:
        update_states(site.context, site.root, RSE, [StateChange("raw", "z", ReplicaState.BAD)])
    assert refused.value.rucio_class == "ReplicaNotFound"
    site.files(RSE, ["c"], state=ReplicaState.COPYING)
    with pytest.raises(Conflict, match="is COPYING"):
        update_states(site.context, site.root, RSE, [StateChange("raw", "c", ReplicaState.BAD)])


def test_what_is_unavailable_for_a_while_comes_back(site):
    site.files(RSE, ["a", "b", "c"])
    rule_id = hold(site, "a")
    until = datetime.now(tz=UTC) + timedelta(hours=1)
    for_a_while = Declaration(BadReplicaState.TEMPORARY_UNAVAILABLE, "pool is down", until)
    assert service.declare(site.context, site.root, [pfn("a"), pfn("b"), pfn("c")], for_a_while) == {}
    assert set(states(site).values()) == {"TEMPORARY_UNAVAILABLE"}
    assert site.rows(select(rules.c.state).where(rules.c.id == rule_id)) == [{"state": "OK"}]
    assert service.end_unavailability(site.context) == 0
    service.declare(site.context, site.root, [pfn("b")], BAD)
    with site.database.transaction() as connection:
        connection.execute(
            update(bad_replicas).where(bad_replicas.c.expires_at.is_not(None)).values(expires_at=after(-1))
        )
    later = Declaration(BadReplicaState.TEMPORARY_UNAVAILABLE, "still down", until)
    service.declare(site.context, site.root, [pfn("c")], later)
    assert service.end_unavailability(site.context) == 2
    assert states(site) == {"a": "AVAILABLE", "b": "BAD", "c": "TEMPORARY_UNAVAILABLE"}
    assert declared(site) == [
        "RECOVERED",
        "RECOVERED",
        "TEMPORARY_UNAVAILABLE",
        "BAD",
        "TEMPORARY_UNAVAILABLE",
    ]
    assert service.end_unavailability(site.context) == 0


def test_suspicions_are_counted_until_something_worse_is_said(site):
    site.rse("IN2P3_RAW_DISK", site="IN2P3")
    site.files(RSE, ["a", "b", "c"])
    site.files("IN2P3_RAW_DISK", ["a"])
    for _ in range(3):
        service.declare(site.context, site.root, [pfn("a"), pfn("b")], SUSPICIOUS)
    service.declare(site.context, site.root, [pfn("a", "IN2P3_RAW_DISK"), pfn("c")], SUSPICIOUS)
    service.declare(site.context, site.root, [pfn("b")], BAD)

    def listed(**options):
        rows = bad_replica_lists.list_suspicious(
            site.context, **{"rse_expression": None, "younger_than": None, "attempts": 0, **options}
        )
        return [(row["name"], row["rse"], row["cnt"]) for row in rows]

    assert listed() == [("a", RSE, 3), ("a", "IN2P3_RAW_DISK", 1), ("c", RSE, 1)]
    assert listed(attempts=2) == [("a", RSE, 3)]
    assert listed(rse_expression="site=IN2P3") == [("a", "IN2P3_RAW_DISK", 1)]
    assert listed(younger_than=datetime.now(tz=UTC) + timedelta(hours=1)) == []
    assert states(site)["c"] == "AVAILABLE"


def test_what_was_said_is_listed_and_summed_up_by_incident(site):
    site.files(RSE, ["a", "b", "c"])
    service.declare(site.context, site.root, [pfn("a"), pfn("b")], BAD)
    service.declare(site.context, site.root, [pfn("c")], SUSPICIOUS)
    site.files(RSE, ["a"])
    query = bad_replica_lists.BadQuery
    rows = list(bad_replica_lists.list_declarations(site.context, query()))
    assert [(row["name"], row["state"]) for row in rows] == [
        ("a", "RECOVERED"),
        ("b", "BAD"),
        ("c", "SUSPICIOUS"),
    ]
    chosen = query(state=BadReplicaState.BAD, rse=RSE, list_pfns=True)
    assert [row["pfn"] for row in bad_replica_lists.list_declarations(site.context, chosen)] == [pfn("b")]
    assert len(list(bad_replica_lists.list_declarations(site.context, query(limit=2)))) == 2
    summed = bad_replica_lists.summarise(site.context, rse_expression=None, since=None, until=None)
    counted = [{key: value for key, value in row.items() if key.isupper()} for row in summed]
    assert counted == [{"BAD": 1, "RECOVERED": 1}, {"SUSPICIOUS": 1}]


@pytest.mark.parametrize("algorithm", ["hash", "identity", "lsst_butler"])
def test_files_are_found_by_their_pfns(site, algorithm):
    site.scope("user.jdoe")
    site.rse("OTHER", algorithm=algorithm)
    site.files("OTHER", ["night 1/é+%.fits", "a"])
    site.files("OTHER", ["deep/er"], scope="user.jdoe")
    keys = [("raw", "night 1/é+%.fits"), ("user.jdoe", "deep/er")]
    pfns = [next(iter(row["pfns"])) for row in list_replicas(site.context, ReplicaQuery(keys))]
    alias = pfns[0].replace("davs://", "https://").replace("1094/", "1094//")
    found = dids_of_pfns(site.context, [*pfns, alias, f"{pfns[0]}x", "file:///etc/passwd"], rse="OTHER")
    assert [next(iter(one.values())) for one in found] == [
        {"scope": scope, "name": name} for scope, name in (*keys, keys[0])
    ]
    assert dids_of_pfns(site.context, pfns, rse=RSE) == []
    with pytest.raises(NotFound):
        dids_of_pfns(site.context, pfns, rse="NOWHERE")


def test_the_longest_prefix_says_which_rse(site):
    site.rse("INNER", deterministic=False)
    described = {"hostname": "inner.example.org", "port": 443, "prefix": f"/{RSE}", "domains": DOMAINS}
    rse_protocols.add_protocol(site.context, site.root, RSE, "https", described)
    deeper = {**described, "prefix": f"/{RSE}/raw"}
    rse_protocols.add_protocol(site.context, site.root, "INNER", "https", deeper)
    site.files(RSE, ["x/1"])
    site.files("INNER", ["2"], pfn=f"https://inner.example.org/{RSE}/raw/x/1")
    assert dids_of_pfns(site.context, [f"https://inner.example.org:443/{RSE}/raw/x/1"]) == [
        {f"https://inner.example.org:443/{RSE}/raw/x/1": {"scope": "raw", "name": "2"}}
    ]
    assert dids_of_pfns(site.context, [f"https://inner.example.org/{RSE}x/raw/x/1"]) == []


def test_a_pfn_below_a_prefix_that_rses_share_is_several_replicas(site):
    for rse in ("TAPE", "BUFFER"):
        site.rse(rse, deterministic=False)
        described = {"hostname": "shared.example.org", "port": 443, "prefix": "/s", "domains": DOMAINS}
        rse_protocols.add_protocol(site.context, site.root, rse, "https", described)
        site.files(rse, ["a"], pfn="https://shared.example.org/s/a")
    service.declare(site.context, site.root, named("a", rse="TAPE"), BAD)
    shared = "https://shared.example.org/s/a"
    assert service.declare(site.context, site.root, [shared], BAD) == {"TAPE": [f"{shared} Already declared"]}
    assert [row["state"] for row in site.rows(select(replicas.c.state))] == ["BAD", "BAD"]
    assert [row["detail"]["count"] for row in site.audited(action="replica_declare")] == [1, 1]


def test_as_many_statements_for_as_many_reasons(site):
    counts = []
    for number in (2, 100):
        names = [f"{number}/{i}" for i in range(number)]
        site.files(RSE, names)
        changes = [StateChange("raw", name, ReplicaState.BAD, f"{name} is cut") for name in names]
        with counted_statements(site.database) as statements:
            update_states(site.context, site.root, RSE, changes)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 40
    reasons = {row["reason"] for row in site.rows(select(bad_replicas.c.reason))}
    assert len(reasons) == 2
    assert "2/0 is cut; 2/1 is cut" in reasons


def test_as_many_statements_for_a_thousand_pfns_as_for_ten(site):
    counts = []
    for number in (10, 1000):
        names = [f"{number}/{i}" for i in range(number)]
        site.files(RSE, names)
        with counted_statements(site.database) as statements:
            service.declare(site.context, site.root, [pfn(name) for name in names], BAD)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 40


def test_the_pfns_of_what_is_gone_are_not_made_up(site):
    site.rse("TAPE", deterministic=False)
    site.files("TAPE", ["a"], pfn="davs://dav.example.org:1094/TAPE/one")
    service.declare(site.context, site.root, named("a", rse="TAPE"), BAD)
    query = bad_replica_lists.BadQuery(list_pfns=True)
    [row] = bad_replica_lists.list_declarations(site.context, query)
    assert row["pfn"] == "davs://dav.example.org:1094/TAPE/one"
    delete_replicas(site.context, site.root, "TAPE", [("raw", "a")])
    assert list(bad_replica_lists.list_declarations(site.context, query)) == []
    delete_rse(site.context, site.root, "TAPE")
    assert list(bad_replica_lists.list_declarations(site.context, query)) == []
    [row] = bad_replica_lists.list_declarations(site.context, bad_replica_lists.BadQuery())
    assert (row["rse"], row["state"]) == ("TAPE", "DELETED")
