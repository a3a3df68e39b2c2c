"""What is wrong is refused or fails with its reason, changes nothing else, and is not lost from sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from arriero.registry.errors import InvalidInput, RegistryError
from demo.exposures import write_exposure
from servicelib.xrootd import XRootD
from support.installation import wait_until
from support.laptop import DESTINATION, SOURCE, Laptop
from support.rse_small_disk import xrootd_on_small_disk
from support.services import Services

pytestmark = pytest.mark.system


def unique(stem: str) -> str:
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def test_an_unknown_scope_is_not_found_and_changes_nothing(running: Laptop) -> None:
    before = running.contents()
    said = running.arriero.run(
        "rule", "add", "nowhere:file", "--rses", DESTINATION, "--copies", "1", expect=3
    )
    assert "nowhere" in said
    said = running.arriero.run("did", "add", "nowhere:dataset", "--type", "dataset", expect=3)
    assert "nowhere" in said
    assert running.contents() == before


def test_a_wrong_checksum_at_the_source_never_becomes_available(running: Laptop) -> None:
    name = unique("wrong-checksum.fits")
    file = running.put(name, b"what lies there" * 100)
    running.client.add_replicas(SOURCE, [{**file, "adler32": "deadbeef"}])
    rule = running.wait_for_rule(running.replicate(name), "STUCK")
    replica = running.replica(name, DESTINATION)
    assert replica is None or replica.state != "AVAILABLE"
    assert "deadbeef" in str(rule["error"])
    assert file["adler32"] in str(rule["error"])
    assert not [found for found in running.files(DESTINATION) if name in found]
    trace = running.arriero.run("-o", "table", "trace", f"raw:{name}")
    assert "deadbeef" in trace
    assert "STUCK" in trace


def test_a_file_that_vanished_fails_with_that_reason(running: Laptop) -> None:
    name = unique("vanished.fits")
    file = running.put(name, b"here today")
    running.client.add_replicas(SOURCE, [file])
    running.path(SOURCE, name).unlink()
    rule = running.wait_for_rule(running.replicate(name), "STUCK")
    assert "not" in str(rule["error"]).lower()
    assert name in running.arriero.run("-o", "table", "trace", f"raw:{name}")
    assert not [found for found in running.files(DESTINATION) if name in found]
    locks = running.client.trace("raw", name).locks
    assert [(lock.state, bool(lock.reason)) for lock in locks] == [("STUCK", True)]


@pytest.fixture
def full_disk(services: Services) -> Iterator[XRootD]:
    """An XRootD server whose disk holds 1 MB."""
    with xrootd_on_small_disk(services.directory, unique("small-disk"), 1 << 20) as server:
        yield server


def test_a_full_disk_is_named_and_leaves_nothing_behind(running: Laptop, full_disk: XRootD) -> None:
    rse = f"FULL_DISK_{uuid.uuid4().hex[:6].upper()}"
    running.add_rse(rse, full_disk)
    small, large = unique("small.fits"), unique("large.fits")
    files = [running.put(small, b"s" * 10_000), running.put(large, os.urandom(3_000_000))]
    running.client.add_replicas(SOURCE, files)
    rules = {
        name: running.client.add_replication_rule([{"scope": "raw", "name": name}], 1, rse)[0]
        for name in (small, large)
    }
    running.wait_for_rule(rules[small], "OK")

    def attempted() -> bool:
        requests = running.client.trace("raw", large).requests
        return any(request.code for request in requests)

    wait_until(attempted, "the first attempt has failed")
    request = next(request for request in running.client.trace("raw", large).requests if request.code)
    assert request.code == "no_space", request.reason
    assert request.state != "DONE"
    running.wait_for_rule(rules[large], "STUCK")
    assert running.replica(large, rse).state != "AVAILABLE"
    assert running.listed(rse, "raw") == [small]


def test_a_malformed_fits_fails_alone(running: Laptop, tmp_path: Path) -> None:
    repository, butler = tmp_path / "repo", unique("butler")
    running.arriero.run("butler", "create", str(repository), "--instrument", "lsstcomcam")
    running.arriero.run(
        *("butler", "add", butler, "--uri", str(repository), "--rse", DESTINATION),
        *("--instrument", "lsstcomcam", "--select", "raw:LSSTComCam/*.fits"),
    )
    write_exposure(tmp_path / "LSSTComCam" / "20241109", 20241109, 1, detectors=range(3), index=False)
    raws = sorted(tmp_path.glob("LSSTComCam/**/*.fits"))
    names = [str(path.relative_to(tmp_path)) for path in raws]
    bad = names[1]
    files = [
        running.put(name, b"this is no FITS file" if name == bad else path.read_bytes())
        for name, path in zip(names, raws, strict=True)
    ]
    running.client.add_replicas(SOURCE, files)
    running.client.add_replication_rule([{"scope": "raw", "name": name} for name in names], 1, DESTINATION)
    running.start_agent(butler)

    def states() -> dict[str, str]:
        return {arrival.name: str(arrival.state) for arrival in running.client.list_arrivals(butler=butler)}

    expected = {name: "failed" if name == bad else "ingested" for name in names}
    wait_until(lambda: states() == expected, "only the malformed file has failed", instead=states)
    failed = next(arrival for arrival in running.client.list_arrivals(butler=butler, state="failed"))
    assert failed.code == "malformed_fits"
    assert failed.reason
    assert "malformed_fits" in running.arriero.run("-o", "table", "trace", f"raw:{bad}")


@pytest.mark.parametrize(
    "name",
    [
        "a b/c d.fits",
        "100%/50%25.fits",
        "nächte/überblick-é.fits",
        "plus+and#hash;semi.fits",
        "quote'\"&<b>.fits",
    ],
)
def test_an_unusual_name_arrives_under_that_name(running: Laptop, name: str) -> None:
    name = f"{unique('unusual')}/{name}"
    content = name.encode()
    running.client.add_replicas(SOURCE, [running.put(name, content)])
    running.wait_for_rule(running.replicate(name), "OK")
    assert running.path(DESTINATION, name).read_bytes() == content


@pytest.mark.parametrize(
    "name",
    [
        "../escape.fits",
        "a/../../escape.fits",
        "/etc/passwd",
        "a//b.fits",
        "a/./b.fits",
        "a\\..\\b",
        "nul\0.fits",
        "line\nbreak",
    ],
)
def test_a_name_that_could_escape_is_refused(running: Laptop, name: str) -> None:
    before = running.contents()
    with pytest.raises(InvalidInput):
        running.client.add_replicas(
            SOURCE, [{"scope": "raw", "name": name, "bytes": 1, "adler32": "00010001"}]
        )
    assert running.contents() == before


def test_a_token_without_the_right_is_refused_and_audited(running: Laptop, tmp_path: Path) -> None:
    mine, other = unique("mine"), unique("other")
    for butler in (mine, other):
        running.arriero.run(
            *("butler", "add", butler, "--uri", str(tmp_path / butler), "--rse", DESTINATION),
            *("--instrument", "lsstcomcam", "--select", "raw:never/*"),
        )
    url = running.arriero.client["ARRIERO_URL"]
    claim = {"butler": other, "worker": "test", "limit": 1, "lease_s": 10, "wait_s": 0}
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {running.token(mine)}"}) as http:
        assert http.post("/arrivals/claim", json={**claim, "butler": mine}).status_code == 200
        refused = http.post("/arrivals/claim", json=claim)
        assert refused.status_code == 403
        assert refused.headers["ExceptionClass"] == "AccessDenied"
        assert http.post("/rses/NEW_DISK", json={}).status_code == 403
    with httpx2.Client(base_url=url) as http:
        assert http.post("/arrivals/claim", json=claim).status_code == 401
        http.headers["X-Rucio-Auth-Token"] = "invented"
        assert http.get("/rules/").status_code == 401
    denials = running.rows(
        "SELECT account, action, object FROM audit_log WHERE NOT allowed AND object LIKE ?", f"%{other}%"
    )
    assert denials


def test_bad_settings_end_a_command_before_it_does_anything(running: Laptop) -> None:
    arriero = running.arriero
    arriero.client["ARRIERO_URLL"] = "http://typing.error"
    try:
        assert "ARRIERO_URLL" in arriero.run("rse", "list", expect=2)
    finally:
        del arriero.client["ARRIERO_URLL"]


def test_two_at_once_on_one_directory_are_refused(running: Laptop) -> None:
    said = running.arriero.run("up", "--dir", str(running.directory), "--port", "0", expect=4)
    assert "in use by another" in said


def test_errors_are_json_when_json_is_asked_for(running: Laptop) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "arriero.agent.cli.main", "-o", "json", "rule", "show", "0" * 32],
        env={**os.environ, **running.arriero.client},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert json.loads(done.stderr)["error"]["code"]
    assert issubclass(InvalidInput, RegistryError)
