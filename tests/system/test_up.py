"""`arriero up` as a newcomer meets it: it starts, ends at Ctrl-C, and carries on."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import httpx2
import pytest

from support.installation import ARRIERO, Installation, Process, installation

pytestmark = pytest.mark.system


def start(arriero: Installation, directory: Path, name: str = "up") -> tuple[Process, str]:
    process = arriero.start(name, ARRIERO, "up", "--dir", str(directory), "--port", "0")
    url = process.wait_for_line(r"^Arriero is up: (http://\S+)$").group(1)
    arriero.client = {"ARRIERO_CONFIG": str(directory / "client.yaml")}
    return process, url


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_starts_ends_at_ctrl_c_and_carries_on(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with installation(tmp_path / "logs", {}) as arriero:
        process, url = start(arriero, directory)
        assert mode(directory) == 0o700
        assert mode(directory / "root.password") == 0o600
        assert mode(directory / "client.yaml") == 0o600
        password = (directory / "root.password").read_text()
        assert json.loads(arriero.run("-o", "json", "whoami"))["account"] == "root"
        arriero.run("rse", "add", "SLAC_RAW_DISK")
        page = httpx2.get(f"{url}/ui")
        assert page.status_code == 200
        assert "Arriero" in page.text

        assert process.interrupt() == 0
        assert "Traceback" not in process.output
        assert password.strip() not in process.output

        process, _ = start(arriero, directory, "up-again")
        assert (directory / "root.password").read_text() == password
        assert "SLAC_RAW_DISK" in arriero.run("rse", "list")
        assert process.stop() in {0, -15}
        assert "Traceback" not in process.output


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with installation(tmp_path / "logs", {}) as arriero:
        _, url = start(arriero, tmp_path / "one")
        port = url.rsplit(":", 1)[1]
        said = arriero.run("up", "--dir", str(tmp_path / "two"), "--port", port, expect=4)
        assert port in said
        assert "--port" in said


def test_a_kill_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with installation(tmp_path / "logs", {}) as arriero:
        process, _ = start(arriero, directory)
        arriero.run("scope", "add", "raw")
        process.kill()
        start(arriero, directory, "up-again")
        assert "raw" in arriero.run("scope", "list")
