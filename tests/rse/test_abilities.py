"""What storages can do: found out by trial, remembered, and handed on as data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from arriero.rse import davserver
from arriero.rse.abilities import Abilities
from arriero.rse.copy import copy_file
from arriero.rse.errors import AlreadyExists, TransferFailed, Unsupported
from arriero.rse.file import FileProtocol
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, left_behind, order
from support.rse_endpoints import endpoint_of
from support.services import Services

XROOTD = {"pull": True, "push": True, "digests": {"adler32"}, "move": True, "refuses": False, "ranges": True}
PLAIN = {"pull": False, "push": False, "digests": set(), "move": True, "refuses": True, "ranges": True}


def shown(abilities: Abilities) -> dict[str, object]:
    return {
        "pull": abilities.third_party_pull,
        "push": abilities.third_party_push,
        "digests": set(abilities.digest_algorithms),
        "move": abilities.move,
        "refuses": abilities.move_refuses,
        "ranges": abilities.ranges,
    }


@pytest.mark.parametrize(
    ("server", "expected"), [("xrootd_in2p3", XROOTD), ("apache", PLAIN), ("wsgidav", PLAIN)]
)
def test_a_trial_finds_out_and_leaves_nothing(
    services: Services, pool: ProtocolPool, server: str, expected: dict[str, object]
) -> None:
    storage = services.webdav(server)
    before = sorted(path.name for path in storage.data_dir.iterdir())
    abilities = pool.get(endpoint_of(storage)).probe()
    assert shown(abilities) == expected
    assert (abilities.is_proved, abilities.list_directory) == (True, True)
    assert abilities.server
    assert sorted(path.name for path in storage.data_dir.iterdir()) == before


def test_a_server_that_nobody_knows_is_seen_to_copy_by_itself(pool: ProtocolPool) -> None:
    with bad_server(software="SomethingNew/1") as new:
        protocol = pool.get(new.endpoint())
        assert shown(protocol.abilities)["pull"] is False, "it does not say so"
        abilities = protocol.probe()
        assert shown(abilities) == {**XROOTD, "ranges": False}
        assert "seen to pull" in abilities.pull_reason
        assert new.files == {}


def test_a_server_whose_copy_is_something_else_is_found_out(pool: ProtocolPool) -> None:
    """Apache takes a destination for a name of its own, copies the file there and answers 201 without a report."""
    with bad_server(software="SomethingOld/1", copies=False) as old:
        abilities = pool.get(old.endpoint()).probe()
        assert (abilities.third_party_pull, abilities.third_party_push) == (False, False)
        assert "has no third-party copy" in abilities.pull_reason
        assert [
            verb for verb, _, headers in old.requests if verb == "COPY" and "Destination" in headers
        ] == []
        assert old.files == {}


def test_it_is_found_out_once(pool: ProtocolPool) -> None:
    with bad_server() as bad:
        protocol = pool.get(bad.endpoint())
        first = protocol.probe()
        asked = len(bad.requests)
        assert protocol.probe() is first
        assert protocol.abilities is first
        assert len(bad.requests) == asked


def test_what_was_proved_outlives_what_the_server_says(
    pool: ProtocolPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bad_server(software="SomethingNew/1") as new:
        protocol = pool.get(new.endpoint())
        first = protocol.probe()
        monkeypatch.setattr(davserver, "PROFILE_SECONDS", -1.0)
        assert protocol.abilities == first, "it is asked again, and is the same software"
        new.software = "SomethingNew/2"
        assert protocol.abilities.is_proved is False


def test_what_another_thread_proves_meanwhile_is_not_unlearnt(pool: ProtocolPool) -> None:
    with bad_server() as bad:
        proved = pool.get(bad.endpoint()).probe()
        fresh = ProtocolPool()
        slow = fresh.get(bad.endpoint())

        def overtake(verb: str, path: str) -> None:
            del path
            if verb == "OPTIONS":
                slow.remember(proved)

        bad.before = overtake
        assert slow.abilities == proved
        fresh.close()


def test_what_was_proved_outlives_a_server_that_is_away(
    pool: ProtocolPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bad_server() as bad:
        protocol = pool.get(bad.endpoint())
        proved = protocol.probe()
        monkeypatch.setattr(davserver, "PROFILE_SECONDS", -1.0)

        def refuse(verb: str, path: str) -> None:
            bad.faults[path] = Fault(status=500) if verb == "OPTIONS" else Fault()

        bad.before = refuse
        assert protocol.abilities == proved


def test_abilities_are_data(pool: ProtocolPool, services: Services) -> None:
    abilities = pool.get(endpoint_of(services.apache)).probe()
    kept = json.loads(json.dumps(abilities.as_dict()))
    assert Abilities.from_dict(kept) == abilities
    assert Abilities.from_dict({**kept, "of_a_later_version": 1}) == abilities
    with pytest.raises(TypeError):
        Abilities.from_dict({"move": True})


def test_what_another_process_has_found_out_is_not_found_out_again(pool: ProtocolPool, folder: str) -> None:
    with bad_server() as bad:
        bad.files[f"{folder}/source"] = CONTENT
        known = replace(pool.get(bad.endpoint()).probe(), move_refuses=True)
        bad.requests.clear()
        fresh = ProtocolPool()
        fresh.get(bad.endpoint()).remember(Abilities.from_dict(known.as_dict()))
        task = replace(order(bad.endpoint(), bad.endpoint(), f"{folder}/f"), source_path=f"{folder}/source")
        assert copy_file(task, fresh).mode == "third_party_pull"
        verbs = [verb for verb, path, _ in bad.requests if path != f"{folder}/source"]
        assert verbs == ["MKCOL", "COPY", "HEAD", "MOVE"]
        fresh.close()


def test_where_nothing_may_be_removed_the_rest_is_believed(pool: ProtocolPool) -> None:
    with bad_server(allow="GET,PUT,COPY") as bad:

        def refuse(verb: str, path: str) -> None:
            bad.faults[path] = Fault(status=403) if verb == "DELETE" else Fault()

        bad.before = refuse
        abilities = pool.get(bad.endpoint()).probe()
        assert (abilities.is_proved, abilities.third_party_pull) == (False, True)
        assert list(bad.files.values()) == [b""], "one empty file, and not one for each copy"
        pool.get(bad.endpoint()).probe()
        assert len(bad.files) == 1


def test_a_refusal_is_learnt_from(
    slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
) -> None:
    for name in "abc":
        slac.write_file(f"{folder}/{name}", CONTENT)
    asked: list[str] = []

    def refuse(verb: str, path: str) -> None:
        asked.append(verb)
        bad.faults[path] = Fault(status=501) if verb == "COPY" else Fault()

    bad.before = refuse
    for name in "abc":
        task = order(endpoint_of(slac), bad.endpoint(), f"{folder}/{name}")
        result = copy_file(task, pool)
        assert result.mode == "third_party_push"
        assert "the destination refused to pull" in result.mode_reason
        assert "501" in result.mode_reason
        assert [(step.mode, step.code) for step in result.steps] == [("third_party_pull", "unsupported")]
    assert asked.count("COPY") == 1


class TestRange:
    @pytest.mark.parametrize("server", ["xrootd_in2p3", "apache", "wsgidav"])
    def test_a_part_of_a_file(self, services: Services, pool: ProtocolPool, folder: str, server: str) -> None:
        services.webdav(server).write_file(f"{folder}/f", CONTENT)
        protocol = pool.get(endpoint_of(services.webdav(server)))
        for start, length in [(0, 1), (5, 100), (len(CONTENT) - 3, 3), (len(CONTENT) - 3, 100), (7, 0)]:
            assert protocol.read_range(f"{folder}/f", start, length) == CONTENT[start : start + length]
        assert protocol.read_range(f"{folder}/f", len(CONTENT) + 5, 10) == b""

    def test_a_server_that_sends_all_of_it(self, pool: ProtocolPool, folder: str, bad: BadServer) -> None:
        bad.files[f"{folder}/f"] = CONTENT
        protocol = pool.get(bad.endpoint())
        assert protocol.abilities.ranges, "others of its name give them"
        assert protocol.read_range(f"{folder}/f", 10, 5) == CONTENT[10:15]
        assert protocol.abilities.ranges is False
        assert protocol.read_range(f"{folder}/f", 100, 50) == CONTENT[100:150]


class TestInPlace:
    """A server without MOVE: what it cannot rename is written under its final name."""

    @pytest.fixture
    def plain(self) -> Iterator[BadServer]:
        with bad_server(software="plain", allow="GET,PUT,DELETE", dav="", moves=False) as server:
            yield server

    @pytest.mark.parametrize("way", ["third_party_push", "streamed"])
    def test_the_file_is_written_under_its_final_name(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, plain: BadServer, way: str
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        result = copy_file(order(endpoint_of(slac), plain.endpoint(), path, ways=(way,)), pool)
        assert (result.mode, plain.files) == (way, {path: CONTENT})
        assert pool.get(plain.endpoint()).abilities.move is False
        with pytest.raises(Unsupported, match="cannot rename"):
            pool.get(plain.endpoint()).move(path, f"{folder}/g")
        again = copy_file(order(endpoint_of(slac), plain.endpoint(), path), pool)
        assert again.mode == "adopted"

    def test_what_is_there_stays(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, plain: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        plain.files[path] = b"somebody's"
        with pytest.raises(AlreadyExists):
            copy_file(order(endpoint_of(slac), plain.endpoint(), path), pool)
        assert plain.files == {path: b"somebody's"}

    def test_what_appears_meanwhile_stays(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, plain: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)

        def appear(verb: str, asked: str) -> None:
            if (verb, asked) == ("PUT", path):
                plain.files[path] = b"somebody's"

        plain.before = appear
        with pytest.raises(AlreadyExists):
            copy_file(order(endpoint_of(slac), plain.endpoint(), path, ways=("streamed",)), pool)
        assert plain.files == {path: b"somebody's"}

    def test_what_an_earlier_attempt_has_left_partial_is_no_obstacle(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, plain: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        plain.files[path] = CONTENT[:1000]
        with pytest.raises(AlreadyExists):
            copy_file(order(endpoint_of(slac), plain.endpoint(), path), pool)
        task = order(endpoint_of(slac), plain.endpoint(), path, attempt="r1-2", earlier_attempts=("r1-1",))
        copy_file(task, pool)
        assert plain.files == {path: CONTENT}

    def test_a_failure_leaves_nothing(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, plain: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        plain.faults[path] = Fault(lose_bytes=7)
        with pytest.raises((TransferFailed, Exception), match="bytes"):
            copy_file(order(endpoint_of(slac), plain.endpoint(), path, ways=("streamed",)), pool)
        assert plain.files == {}


def test_a_file_system_says_what_it_can(tmp_path) -> None:
    abilities = FileProtocol(Endpoint("LOCAL", "file", "", 0, str(tmp_path))).probe()
    assert (abilities.move, abilities.ranges, abilities.third_party_push) == (True, True, False)


def test_nothing_is_left_of_trials(services: Services) -> None:
    """The marks that deletions leave are no trials (ADR 0023)."""
    for server in (services.xrootd_in2p3, services.apache, services.wsgidav):
        left = [path for path in left_behind(server, ".") if ".arriero-" in path]
        assert [path for path in left if not path.endswith(".arriero-deletions")] == []
