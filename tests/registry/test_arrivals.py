"""The queue of arrivals over HTTP: claims, fences, reports, leases."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import InvalidInput, NotAllowed, NotFound
from arriero.registry.models import ArrivalOutcome, NewButler, NewToken
from arriero.registry.schema.tables import arrivals, audit_log, events, replicas
from arriero.registry.services.arrivals import settle
from arriero.registry.states import ArrivalState, ReplicaState
from arriero.registry.store.arrivals import record_arrivals
from support.catalogue import add_files, add_rse, add_scope
from support.database import counted_statements

BUTLER = "in2p3"


@pytest.fixture
def rse_id(registry):
    add_scope(registry.database, "raw")
    found = add_rse(registry.database, "IN2P3_RAW_DISK", prefix="/pnfs/raw data")
    registry.client().add_butler(
        NewButler(name=BUTLER, uri="/repo", rses=[{"rse": "IN2P3_RAW_DISK"}], selections=[{"scope": "raw"}])
    )
    return found


@pytest.fixture
def agent(registry, rse_id):
    """A client that holds the token of an agent of this butler and nothing else."""
    token = registry.client().create_token(NewToken(label="agent", lifetime_s=600, butlers=[BUTLER])).token
    return registry.client(token=token)


def land(registry, rse_id, names, **options):
    """Files arrive, as the settlement of their transfers writes it."""
    ids = add_files(registry.database, rse_id, names, **options)
    with registry.database.transaction() as connection:
        record_arrivals(
            connection, select(replicas.c.file_id, replicas.c.rse_id).where(replicas.c.file_id.in_(ids))
        )


def claim(client, limit=100, *, wait_s=0.0, lease_s=60.0, worker="worker"):
    return client.claim_arrivals(BUTLER, worker, limit, wait_s, lease_s)


def test_what_was_registered_together_is_claimed_together(registry, rse_id, agent):
    """However the database finds it, also of all that a new Butler takes: files of an exposure go into one batch."""
    names = [f"f{number}" for number in range(20)]
    ids = add_files(registry.database, rse_id, names)
    found = select(replicas.c.file_id, replicas.c.rse_id).where(replicas.c.file_id.in_(ids))
    with registry.database.transaction() as connection:
        record_arrivals(connection, found.order_by(replicas.c.file_id.desc()))
    assert [file.name for file in claim(agent)] == names


def outcome(file, state="ingested", **more):
    if state == "ingested":
        more.setdefault("dataset_id", uuid4())
    return ArrivalOutcome(id=file.id, fence=file.fence, state=state, **more)


def make_due(registry):
    with registry.database.transaction() as connection:
        connection.execute(update(arrivals).values(not_before=arrivals.c.created_at))


def expire_leases(registry):
    with registry.database.transaction() as connection:
        connection.execute(
            update(arrivals).where(arrivals.c.state == "leased").values(lease_until=arrivals.c.created_at)
        )


def states(registry):
    return {arrival.name: arrival for arrival in registry.client().list_arrivals()}


def test_a_claim_tells_all_that_the_ingest_needs(registry, rse_id, agent):
    land(registry, rse_id, ["LSSTComCam/a b+%.fits"], meta={"rubin_butler": "raw_file"})
    [file] = claim(agent)
    assert (file.scope, file.name, file.rse) == ("raw", "LSSTComCam/a b+%.fits", "IN2P3_RAW_DISK")
    assert file.uri == "davs://dav.example.org:1094/pnfs/raw%20data/LSSTComCam/a%20b%2B%25.fits"
    assert (file.bytes, file.adler32, file.meta) == (2880, "0a1b2c3d", {"rubin_butler": "raw_file"})
    assert (file.attempt, file.fence) == (1, 1)
    leased = states(registry)[file.name]
    assert (leased.state, leased.lease_owner) == (ArrivalState.LEASED, "worker")
    assert claim(agent) == []


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("file:///sps/raw/", "file:///sps/raw/d/a%20b.fits"),
        ("/sps/raw", "/sps/raw/d/a b.fits"),
    ],
)
def test_the_prefix_of_the_readers_takes_the_place_of_the_rses(registry, rse_id, prefix, uri):
    root = registry.client()
    root.add_butler(
        NewButler(
            name="local",
            uri="/repo",
            rses=[{"rse": "IN2P3_RAW_DISK", "uri_prefix": prefix}],
            selections=[{"scope": "raw"}],
        )
    )
    land(registry, rse_id, ["d/a b.fits"])
    [file] = root.claim_arrivals("local", "worker", 1, 0, 60)
    assert file.uri == uri


def test_two_claimers_never_get_the_same_arrival(registry, rse_id, agent):
    land(registry, rse_id, [f"{number}.fits" for number in range(300)])

    def drain(worker):
        got = []
        while files := claim(agent, 7, worker=worker):
            got.extend(file.id for file in files)
        return got

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(drain, ["a", "b", "c", "d"]))
    everything = [key for share in shares for key in share]
    assert len(everything) == 300
    assert len(set(everything)) == 300


def test_a_long_poll_answers_at_once_when_something_lands(registry, rse_id, agent):
    started = time.monotonic()
    timer = threading.Timer(0.6, land, args=(registry, rse_id, ["late.fits"]))
    timer.start()
    [file] = claim(agent, wait_s=20)
    assert file.name == "late.fits"
    assert time.monotonic() - started < 5
    timer.join()


def test_a_long_poll_ends_when_its_time_is_over(registry, rse_id, agent):
    started = time.monotonic()
    assert claim(agent, wait_s=0.7) == []
    assert 0.6 < time.monotonic() - started < 5


def test_a_report_is_kept_and_told(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits", "b.fits", "c.fits"])
    first, second, third = claim(agent)
    done = outcome(first)
    rejected = agent.report_arrivals(
        [
            done,
            outcome(second, "failed", code="malformed_file", reason="no SIMPLE card"),
            outcome(third, "parked", code="missing_dimension", reason="no visit", waits_for="visit=1"),
        ]
    )
    assert rejected == []
    now = states(registry)
    assert (now["a.fits"].state, now["a.fits"].dataset_id, now["a.fits"].reason) == (
        "ingested",
        done.dataset_id,
        None,
    )
    assert now["a.fits"].ingested_at is not None
    assert (now["b.fits"].state, now["b.fits"].code) == ("failed", "malformed_file")
    assert now["b.fits"].reason == "no SIMPLE card"
    assert (now["c.fits"].state, now["c.fits"].waits_for) == ("parked", "visit=1")
    with registry.database.snapshot() as connection:
        told = connection.execute(select(events.c.event_type, events.c.key, events.c.payload)).all()
    assert [(row.event_type, row.key) for row in told] == [("arrival-ingested", "raw:a.fits")]
    assert told[0].payload["dataset_id"] == str(done.dataset_id)
    assert told[0].payload["butler"] == BUTLER


def test_a_parked_arrival_waits_with_a_time_and_is_tried_again(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits"])
    for _ in range(3):
        [file] = claim(agent)
        assert file.attempt == 1, "waiting costs no attempt"
        assert (
            agent.report_arrivals([outcome(file, "parked", code="missing_dimension", waits_for="visit=1")])
            == []
        )
        parked = states(registry)["a.fits"]
        assert (parked.state, parked.waits_for) == ("parked", "visit=1")
        assert parked.not_before is not None
        assert claim(agent) == []
        make_due(registry)
    [file] = claim(agent)
    assert agent.report_arrivals([outcome(file)]) == []
    landed = states(registry)["a.fits"]
    assert (landed.state, landed.waits_for, landed.not_before) == ("ingested", None, None)


def test_what_comes_wakes_what_waits_for_it_and_nothing_else(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits", "b.fits"])
    parked = claim(agent)
    agent.report_arrivals(
        [
            outcome(file, "parked", code="missing_dimension", waits_for=f"instrument=PFS,visit={number}")
            for number, file in enumerate(parked, 1)
        ]
    )
    assert claim(agent) == []
    land(registry, rse_id, ["raw.fits"])
    (raw,) = claim(agent)
    assert agent.report_arrivals([outcome(raw, provides=("instrument=PFS,visit=1", "x"))]) == []
    assert [file.name for file in claim(agent)] == ["a.fits"]
    assert states(registry)["b.fits"].state == "parked"


def test_a_report_under_an_old_fence_changes_nothing(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits"])
    [old] = claim(agent)
    expire_leases(registry)
    [new] = claim(agent, worker="other")
    assert (new.id, new.attempt) == (old.id, 2)
    assert new.fence > old.fence
    assert agent.report_arrivals([outcome(old, "failed", code="x", reason="y")]) == [old.id]
    assert states(registry)["a.fits"].state == "leased"
    assert agent.report_arrivals([outcome(new)]) == []
    assert agent.report_arrivals([outcome(new)]) == [new.id], "once only"
    assert agent.report_arrivals([ArrivalOutcome(id=999, fence=1, state="ingested")]) == [999]


def test_a_lease_that_ran_out_still_reports_while_nobody_else_has_it(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits"])
    [file] = claim(agent)
    expire_leases(registry)
    assert agent.report_arrivals([outcome(file)]) == []
    assert states(registry)["a.fits"].state == "ingested"


def test_leases_are_extended_while_they_are_held(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits", "b.fits"])
    first, second = claim(agent, lease_s=0.01)
    lost = agent.extend_arrivals([(first.id, first.fence), (second.id, second.fence + 1), (999, 1)], 60)
    assert sorted(lost) == [second.id, 999]
    time.sleep(0.05)
    assert [file.id for file in claim(agent)] == [second.id]


def test_a_failure_that_may_pass_is_tried_again_later(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits"])
    [file] = claim(agent)
    agent.report_arrivals([outcome(file, "failed", code="storage_unavailable", reason="503", retryable=True)])
    waiting = states(registry)["a.fits"]
    assert (waiting.state, waiting.attempt, waiting.code, waiting.reason) == (
        "pending",
        1,
        "storage_unavailable",
        "503",
    )
    assert waiting.not_before is not None
    assert (waiting.not_before - waiting.updated_at).total_seconds() > 3
    assert claim(agent) == [], "not before its time"
    make_due(registry)
    assert [again.attempt for again in claim(agent)] == [2]


def test_attempts_end_but_an_outage_costs_none():
    file = ArrivalOutcome(
        id=1, fence=1, state="failed", code="storage_unavailable", reason="x", retryable=True
    )
    outage = ArrivalOutcome(
        id=1, fence=1, state="failed", code="butler_unavailable", reason="x", retryable=True
    )
    assert settle(file, 9, 10).state is ArrivalState.PENDING
    assert settle(file, 10, 10).state is ArrivalState.FAILED
    assert settle(outage, 10, 10).state is ArrivalState.PENDING
    assert settle(outage, 10, 10).attempt == 9
    waits = [settle(file, attempt, 100).wait_s for attempt in range(1, 40)]
    assert waits[5] > waits[0] * 8
    assert max(waits) <= 3600 * 1.25


def test_an_agent_that_dies_again_and_again_takes_ever_fewer_files_with_it(registry, rse_id, agent):
    """One file that kills its worker ends up alone, and then fails; its neighbours do not."""
    land(registry, rse_id, [f"{number:03}.fits" for number in range(64)])
    sizes = []
    for _ in range(40):
        files = claim(agent, 64)
        if not files:
            break
        deadly = [file for file in files if file.name == "000.fits"]
        if deadly:
            sizes.append(len(files))
            expire_leases(registry)
        else:
            agent.report_arrivals([outcome(file) for file in files])
    now = states(registry)
    assert sizes[0] == 64
    assert sizes[-1] == 1
    assert (now["000.fits"].state, now["000.fits"].code) == ("failed", "lease_expired")
    assert {now[name].state for name in now if name != "000.fits"} == {"ingested"}


def test_an_arrival_whose_replica_went_waits_with_a_reason(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits"])
    with registry.database.transaction() as connection:
        connection.execute(update(replicas).values(state=ReplicaState.BAD))
    assert claim(agent) == []
    waiting = states(registry)["a.fits"]
    assert (waiting.state, waiting.code, waiting.attempt) == ("pending", "replica_not_available", 0)
    with registry.database.transaction() as connection:
        connection.execute(update(replicas).values(state=ReplicaState.AVAILABLE))
    make_due(registry)
    assert [file.name for file in claim(agent)] == ["a.fits"]


def test_a_token_claims_and_reports_its_own_butlers_only(registry, rse_id, agent):
    land(registry, rse_id, ["a.fits"])
    token = registry.client().create_token(NewToken(label="other", lifetime_s=600)).token
    stranger = registry.client(token=token)
    with pytest.raises(NotAllowed):
        claim(stranger)
    [file] = claim(agent)
    with pytest.raises(NotAllowed):
        stranger.report_arrivals([outcome(file)])
    with pytest.raises(NotAllowed):
        stranger.extend_arrivals([(file.id, file.fence)], 60)
    assert states(registry)["a.fits"].state == "leased"
    with registry.database.snapshot() as connection:
        refused = connection.execute(
            select(audit_log.c.action, audit_log.c.object).where(audit_log.c.allowed.is_(False))
        ).all()
    assert sorted(refused) == [
        ("arrival_claim", BUTLER),
        ("arrival_report", BUTLER),
        ("arrival_report", BUTLER),
    ]


def test_the_number_of_statements_does_not_depend_on_the_number_of_files(registry, rse_id, agent):
    counts = []
    for round_, number in enumerate((2, 200)):
        land(registry, rse_id, [f"{round_}/{index}.fits" for index in range(number)])
        with counted_statements(registry.database) as claimed:
            files = claim(agent, 1000)
        with counted_statements(registry.database) as reported:
            assert agent.report_arrivals([outcome(file) for file in files]) == []
        assert len(files) == number
        counts.append((len(claimed), len(reported)))
    assert counts[0] == counts[1]


def test_the_ledger_is_narrowed_and_paged(registry, rse_id, agent):
    land(registry, rse_id, [f"night{number % 2}/{number}.fits" for number in range(10)])
    claim(agent, 3)
    root = registry.client()
    assert len(list(root.list_arrivals(state="leased"))) == 3
    assert len(list(root.list_arrivals(name="night1/*"))) == 5
    assert len(list(root.list_arrivals(butler=BUTLER, scope="raw"))) == 10
    [one, *_] = claim(agent, 1)
    other = add_rse(registry.database, "ELSEWHERE")
    failed = ArrivalOutcome(
        id=one.id, fence=one.fence, state="failed", code="malformed_fits", reason="no END"
    )
    assert agent.report_arrivals([failed]) == []
    with registry.database.transaction() as connection:
        moved = arrivals.update().where(arrivals.c.state == "failed").values(rse_id=other)
        connection.execute(moved)
    for chosen in ({"rse": "ELSEWHERE"}, {"code": "malformed_fits"}, {"rse": "ELSEWHERE", "state": "failed"}):
        assert [found.id for found in root.list_arrivals(**chosen)] == [one.id], chosen
    assert list(root.list_arrivals(rse="ELSEWHERE", code="no_such_code")) == []
    page = list(root.list_arrivals(limit=4))
    assert len(page) == 4
    rest = list(root.list_arrivals(after=page[-1].id))
    assert len(rest) == 6
    assert not {one.id for one in page} & {one.id for one in rest}
    for nowhere in ({"butler": "nobody"}, {"rse": "NOWHERE"}, {"scope": "nothing"}):
        with pytest.raises(NotFound):
            list(root.list_arrivals(**nowhere))
    with pytest.raises(InvalidInput):
        list(root.list_arrivals(state="lost"))


@pytest.mark.parametrize(
    "change",
    [{"limit": 0}, {"limit": 1001}, {"wait_s": 31}, {"lease_s": 0}, {"worker": ""}, {"lease_s": 1e9}],
)
def test_claims_are_bounded(registry, rse_id, agent, change):
    body = {"butler": BUTLER, "worker": "w", "limit": 1, "lease_s": 1, "wait_s": 0, **change}
    with pytest.raises(InvalidInput, match=next(iter(change))):
        agent._call("POST", "/arrivals/claim", body=body)


def test_a_claim_of_a_butler_that_does_not_exist(registry, rse_id):
    with pytest.raises(NotFound, match="butler list"):
        registry.client().claim_arrivals("nobody", "worker", 1, 0, 60)
