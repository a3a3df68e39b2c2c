"""Butlers over HTTP: what is there already is theirs too."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, InvalidInput, NotAllowed, NotFound
from arriero.registry.models import ButlerRse, NewButler, NewToken
from arriero.registry.schema.tables import audit_log, replicas
from arriero.registry.states import ReplicaState
from arriero.registry.store.arrivals import record_arrivals
from support.catalogue import add_files, add_rse, add_scope


def butler(name: str = "in2p3", **changes: object) -> NewButler:
    settings: dict = {
        "name": name,
        "uri": "/sps/lsst/butler/main",
        "instruments": ["LSSTComCam"],
        "rses": [{"rse": "IN2P3_RAW_DISK"}],
        "selections": [{"scope": "raw", "pattern": "LSSTComCam/*.fits"}],
    }
    return NewButler(**{**settings, **changes})


@pytest.fixture
def rse_id(registry):
    add_scope(registry.database, "raw")
    return add_rse(registry.database, "IN2P3_RAW_DISK")


def test_a_butler_is_shown_as_it_was_added(registry, rse_id):
    client = registry.client()
    wanted = butler(
        rses=[{"rse": "IN2P3_RAW_DISK", "uri_prefix": "file:///sps/raw"}],
        selections=[{"scope": "raw", "pattern": "100%_odd\\name*"}, {"scope": "raw", "pattern": "*"}],
    )
    client.add_butler(wanted)
    shown = client.butler("in2p3")
    assert (shown.name, shown.uri, shown.transfer, shown.instruments) == (
        "in2p3",
        "/sps/lsst/butler/main",
        "direct",
        ["LSSTComCam"],
    )
    assert shown.rses == [ButlerRse(rse="IN2P3_RAW_DISK", uri_prefix="file:///sps/raw")]
    assert {taken.pattern for taken in shown.selections} == {"100%_odd\\name*", "*"}
    assert [one.name for one in client.list_butlers()] == ["in2p3"]


def test_what_is_available_already_becomes_an_arrival(registry, rse_id):
    other = add_rse(registry.database, "SLAC_RAW_DISK")
    add_files(registry.database, rse_id, ["LSSTComCam/a.fits", "LSSTComCam/b.fits", "LSSTComCam/_index.json"])
    add_files(registry.database, rse_id, ["LSSTComCam/c.fits"], state=ReplicaState.COPYING)
    add_files(registry.database, other, ["LSSTComCam/d.fits"])
    client = registry.client()
    client.add_butler(butler())
    found = {(arrival.name, arrival.rse, arrival.state.value) for arrival in client.list_arrivals()}
    assert found == {
        ("LSSTComCam/a.fits", "IN2P3_RAW_DISK", "pending"),
        ("LSSTComCam/b.fits", "IN2P3_RAW_DISK", "pending"),
    }


def test_adding_the_same_butler_again_fills_in_and_another_definition_is_refused(registry, rse_id):
    client = registry.client()
    client.add_butler(butler())
    add_files(registry.database, rse_id, ["LSSTComCam/late.fits"])
    client.add_butler(butler())
    assert [arrival.name for arrival in client.list_arrivals()] == ["LSSTComCam/late.fits"]
    with pytest.raises(Conflict, match="butler show in2p3") as refused:
        client.add_butler(butler(uri="/elsewhere"))
    assert refused.value.stable_code == "butler_exists"


def test_a_selection_takes_names_literally_but_for_the_star(registry, rse_id):
    add_files(registry.database, rse_id, ["a_b.fits", "aXb.fits", "50%.fits", "50x.fits"])
    client = registry.client()
    client.add_butler(
        butler(selections=[{"scope": "raw", "pattern": "a_b*"}, {"scope": "raw", "pattern": "50%*"}])
    )
    assert {arrival.name for arrival in client.list_arrivals()} == {"a_b.fits", "50%.fits"}


def test_a_replica_that_becomes_available_meanwhile_is_not_missed(registry, rse_id):
    """A transfer that settles while the butler is added is in the ledger, whichever of both commits first."""
    [file_id] = add_files(registry.database, rse_id, ["LSSTComCam/a.fits"], state=ReplicaState.COPYING)
    settling, go_on = threading.Event(), threading.Event()

    def settle() -> None:
        with registry.database.transaction() as connection:
            connection.execute(
                update(replicas).where(replicas.c.file_id == file_id).values(state=ReplicaState.AVAILABLE)
            )
            landed = select(replicas.c.file_id, replicas.c.rse_id).where(replicas.c.file_id == file_id)
            record_arrivals(connection, landed)
            settling.set()
            go_on.wait(10)

    transfer = threading.Thread(target=settle)
    transfer.start()
    assert settling.wait(10)
    adding = threading.Thread(target=registry.client().add_butler, args=(butler(),))
    adding.start()
    adding.join(0.5)
    go_on.set()
    transfer.join()
    adding.join()
    assert [arrival.name for arrival in registry.client().list_arrivals()] == ["LSSTComCam/a.fits"]


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"rses": [{"rse": "NOWHERE"}]}, NotFound, "RSE NOWHERE"),
        ({"selections": [{"scope": "nothing"}]}, NotFound, "scope nothing"),
    ],
)
def test_what_does_not_exist_is_named(registry, rse_id, changes, error, told):
    with pytest.raises(error, match=told):
        registry.client().add_butler(butler(**changes))
    assert list(registry.client().list_butlers()) == []


def test_a_body_that_is_no_butler_is_refused_with_its_place(registry, rse_id):
    client = registry.client()
    with pytest.raises(InvalidInput, match="transfer"):
        client._call("POST", "/butlers", body={**butler().model_dump(mode="json"), "transfer": "auto"})
    with pytest.raises(InvalidInput, match="colour"):
        client._call("POST", "/butlers", body={**butler().model_dump(mode="json"), "colour": "red"})
    with pytest.raises(NotFound, match="butler list"):
        client.butler("nobody")


def test_an_agent_may_not_add_a_butler_and_that_is_audited(registry, rse_id):
    token = registry.client().create_token(NewToken(label="agent", lifetime_s=600)).token
    with pytest.raises(NotAllowed):
        registry.client(token=token).add_butler(butler())
    with registry.database.snapshot() as connection:
        rows = connection.execute(
            select(audit_log.c.object, audit_log.c.account).where(
                audit_log.c.action == "butler_add", audit_log.c.allowed.is_(False)
            )
        ).all()
    assert rows == [("in2p3", "root")]
