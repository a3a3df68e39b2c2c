"""How a command ends: one test for each exit code, with the real program as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from support import server
from support.catalogue import add_files, add_rse, add_scope
from support.cli import root_environment

registry = server.registry
ARRIERO = str(Path(sys.executable).parent / "arriero")


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture
def environment(registry, tmp_path):
    return root_environment(registry.url, tmp_path)


def arriero(*words, environment=None, expect, **options):
    done = subprocess.run(
        [ARRIERO, *words],
        env={"PATH": os.environ["PATH"], **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def test_0_done(environment):
    done = arriero("-o", "json", "whoami", environment=environment, expect=0)
    assert json.loads(done.stdout)["account"] == "root"
    assert done.stderr == ""


def test_0_when_the_reader_has_gone(environment):
    arriero("scope", "add", "raw", environment=environment, expect=0)
    listing = f"{ARRIERO} -o table config show | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", listing],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_1_unexpected():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/html\r\nConnection: close\r\n\r\nhello"
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = subprocess.Popen(
            [ARRIERO, "-o", "json", "ping"],
            env={"PATH": os.environ["PATH"], "ARRIERO_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(page)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert json.loads(err)["error"]["code"] == "unexpected_answer"


@pytest.mark.parametrize(
    "words",
    [
        ("rule", "add", "no-colon", "--copies", "1", "--rses", "X"),
        ("rule", "add", "raw:x", "--rses", "X"),
        ("nonsense",),
        ("did", "update", "raw:x"),
        ("--config", "/does/not/exist", "ping"),
        ("-o", "xml", "ping"),
    ],
)
def test_2_usage(words):
    done = arriero(*words, expect=2)
    assert done.stdout == ""
    assert "-h'" in done.stderr


def test_2_a_setting_that_nobody_knows(tmp_path):
    done = arriero("ping", environment={"ARRIERO_URRL": "http://x"}, expect=2)
    assert "ARRIERO_URRL" in done.stderr
    config = tmp_path / "arriero.yaml"
    config.write_text("url: http://127.0.0.1:1\ncolour: red\n")
    done = arriero("--config", str(config), "-o", "json", "ping", expect=2)
    assert "colour" in json.loads(done.stderr)["error"]["message"]


def test_3_not_found(environment):
    done = arriero("-o", "json", "butler", "show", "nobody", environment=environment, expect=3)
    error = json.loads(done.stderr)["error"]
    assert error == {
        "code": "butler_not_found",
        "message": error["message"],
        "retryable": False,
        "hint": None,
    }
    assert "butler list" in error["message"]


def test_4_exists(environment):
    arriero("scope", "add", "raw", environment=environment, expect=0)
    arriero("scope", "add", "raw", environment=environment, expect=4)


def test_5_temporary():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = arriero("-o", "json", "--url", url, "ping", expect=5)
    assert json.loads(done.stderr)["error"]["retryable"] is True


def test_6_not_authenticated_and_not_allowed(environment, registry):
    wrong = {**environment, "ARRIERO_USERNAME": "nobody"}
    arriero("whoami", environment=wrong, expect=6)
    token = arriero("token", "create", "--label", "x", environment=environment, expect=0).stdout.strip()
    agent = {"ARRIERO_URL": registry.url, "ARRIERO_TOKEN": token}
    assert "may not" in arriero("rse", "add", "NEW_DISK", environment=agent, expect=6).stderr


def test_7_permanent(environment, registry):
    arriero("scope", "add", "raw", environment=environment, expect=0)
    arriero("rse", "add", "DISK", environment=environment, expect=0)
    # no protocol to read from
    arriero("replica", "add", "--rse", "DISK", "--scope", "raw", "x", environment=environment, expect=7)


def test_8_partly_done(environment, registry, tmp_path):
    storage = tmp_path / "storage"
    storage.mkdir()
    for name in ("good", "other"):
        (storage / name).write_bytes(b"content")
    add_scope(registry.database, "raw")
    arriero("rse", "add", "DISK", environment=environment, expect=0)
    words = ["rse", "attribute", "set", "DISK", "--key", "lfn2pfn_algorithm", "--value", "lsst_butler"]
    arriero(*words, environment=environment, expect=0)
    words = ["rse", "protocol", "add", "DISK", "--scheme", "file", "--prefix", str(storage)]
    arriero(*words, environment=environment, expect=0)
    # the catalogue knows `other` elsewhere, with another size and checksum
    add_files(registry.database, add_rse(registry.database, "ELSEWHERE"), ["other"])
    add = ("replica", "add", "--rse", "DISK", "--scope", "raw", "good", "other")
    done = arriero("-o", "json", *add, environment=environment, expect=8)
    assert json.loads(done.stdout)["registered"] == 1
    assert "other" in done.stderr
    add = ("replica", "add", "--rse", "DISK", "--scope", "raw", "other")
    arriero(*add, environment=environment, expect=4)


def test_9_nothing_to_do(environment):
    arriero("arrival", "list", environment=environment, expect=0)
    arriero("--error-on-nothing", "arrival", "list", environment=environment, expect=9)


def test_130_interrupted():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [ARRIERO, "--url", f"http://127.0.0.1:{silent.getsockname()[1]}", "ping"],
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(4096)
            try:
                for _ in range(
                    3
                ):  # a person presses again: Python may overlook a signal just before it waits
                    process.send_signal(signal.SIGINT)
                    with suppress(subprocess.TimeoutExpired):
                        out, err = process.communicate(timeout=5)
                        break
            finally:
                process.kill()
                process.wait()
    assert (process.returncode, out, err.strip()) == (130, "", "Interrupted.")


def test_errors_are_text_unless_json_is_asked_for(environment):
    done = arriero("butler", "show", "nobody", environment=environment, expect=3)
    assert done.stderr.startswith("Error: ")
    for form in (["--output=json"], ["-ojsonl"]):
        done = arriero(*form, "butler", "show", "nobody", environment=environment, expect=3)
        assert json.loads(done.stderr)["error"]["code"] == "butler_not_found"
    chosen = {**environment, "ARRIERO_OUTPUT": "json"}
    json.loads(arriero("butler", "show", "nobody", environment=chosen, expect=3).stderr)


def test_help_is_fast():
    best = min(_seconds("--help") for _ in range(3))
    assert best < 0.3


def _seconds(*words: str) -> float:
    started = time.perf_counter()
    arriero(*words, expect=0)
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [("serve", "sqlalchemy", "registry"), ("up", "celery", "scheduler"), ("agent", "lsst", "butler")],
)
def test_a_part_that_is_not_installed_is_named_with_the_command_to_run(command, missing, extra):
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from arriero.agent.cli.main import run\n"
        f"words = [{command!r}] + (['run', '--butler', 'x'] if {command!r} == 'agent' else [])\n"
        "sys.exit(run(words))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 7, done.stderr
    assert f"pip install 'arriero[{extra}]'" in done.stderr
