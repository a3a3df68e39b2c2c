"""deploy/services as a person and `make test` use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servicelib.errors import MissingPackagesError
from servicelib.packages import install
from servicelib.process import Identity, identify
from servicelib.stack import Stack, claim, new_directory, remove_abandoned
from support.services import Services

pytestmark = pytest.mark.services
SERVICES = Path(__file__).resolve().parents[2] / "deploy" / "services"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the servers' accounts can reach; whatever is left in it is ended."""
    found = new_directory("arriero-command-")
    yield found
    Stack(found).remove()


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SERVICES), *map(str, arguments)]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)


def processes_below(directory: Path) -> list[str]:
    """Command lines of live processes that name a directory or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = (process / "cwd").readlink()
        except OSError:
            continue
        if int(process.name) != os.getpid() and (str(directory) in line or place.is_relative_to(directory)):
            found.append(line)
    return found


def test_up_env_status_and_down_leave_nothing(directory: Path) -> None:
    done = command("up", "redis", "wsgidav", "--dir", directory)
    assert done.returncode == 0, done.stderr
    exported = command("env", "--dir", directory).stdout
    assert f"export ARRIERO_TEST_SERVICES_DIR={directory}\n" in exported
    assert "export ARRIERO_TEST_REDIS_URL=redis://:" in exported
    assert "export ARRIERO_TEST_WSGIDAV_URL=http://127.0.0.1:" in exported
    shown = command("status", "--dir", directory)
    assert shown.returncode == 0
    assert str(Stack(directory).server("redis").settings["password"]) not in done.stdout + shown.stdout
    assert len(processes_below(directory)) == 2
    assert command("down", "--dir", directory).returncode == 0
    assert not directory.exists()
    assert processes_below(directory) == []


def test_down_with_keep_leaves_the_files_and_up_goes_on_with_them(directory: Path) -> None:
    command("up", "wsgidav", "--dir", directory)
    server = Stack(directory).server("wsgidav")
    command("down", "--keep", "--dir", directory)
    assert not server.is_running()
    assert command("status", "--dir", directory).returncode == 3
    command("up", "wsgidav", "--dir", directory)
    assert server.is_running()
    assert server.answers()


def test_a_session_uses_a_set_that_runs_and_leaves_it_running(directory: Path) -> None:
    command("up", "redis", "--dir", directory)
    session = Services(directory)
    url = session.redis.url
    session.close()
    assert f":{Stack(directory).server('redis').port}/" in url
    assert Stack(directory).server("redis").is_running()


def test_up_ends_the_others_when_one_cannot_start(directory: Path) -> None:
    (directory / "arriero-services").touch()
    stack = Stack(directory)
    stack.start(["redis"])
    stack.stop()
    (directory / "redis" / "redis.conf").write_text("no-such-setting yes\n")
    done = command("up", "redis", "wsgidav", "--dir", directory, "--keep")
    assert done.returncode == 1
    assert "redis ended at once" in done.stderr
    assert "no-such-setting" in done.stderr, "the last lines of the log are shown"
    assert processes_below(directory) == []


def test_a_directory_with_other_files_is_refused_and_left_alone(directory: Path) -> None:
    (directory / "thesis.tex").write_text("years of work")
    for arguments in (["up", "redis"], ["down"]):
        assert command(*arguments, "--dir", directory).returncode == 1
    assert (directory / "thesis.tex").read_text() == "years of work"


def test_run_passes_the_exit_code_on_and_ends_the_servers() -> None:
    script = "import os, sys; print(os.environ['ARRIERO_TEST_SERVICES_DIR']); sys.exit(7)"
    done = command("run", "--only", "redis", "--", sys.executable, "-c", script)
    assert done.returncode == 7
    directory = Path(done.stdout.strip())
    assert not directory.exists()
    assert processes_below(directory) == []


def test_run_ends_its_servers_when_it_is_told_to_end() -> None:
    script = (
        "import os, time\n"
        "try:\n"
        "    print(os.environ['ARRIERO_TEST_SERVICES_DIR'], flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt: print('farewell', flush=True)\n"
    )
    words = [sys.executable, str(SERVICES), "run", "--only", "redis", "--", sys.executable, "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        directory = Path(running.stdout.readline().strip())
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "farewell\n"
    assert not directory.exists()
    assert processes_below(directory) == []


def test_what_a_killed_session_left_is_ended_by_the_next() -> None:
    prefix = "arriero-abandoned-"
    directory = new_directory(prefix)
    Stack(directory).start(["redis"])
    claim(directory)
    remove_abandoned(prefix)
    assert Stack(directory).server("redis").is_running(), "its owner lives"
    dead = Identity(os.getpid(), 1, "another boot")
    (directory / "owner.json").write_text(json.dumps(vars(dead)))
    remove_abandoned(prefix)
    assert not directory.exists()
    assert processes_below(directory) == []


def test_a_recycled_process_id_is_never_killed(directory: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            stack = Stack(directory)
            stack.start(["redis"])
            pid_path = directory / "redis.pid"
            true_pid = pid_path.read_text()
            found = identify(stranger.pid)
            assert found is not None
            pid_path.write_text(json.dumps(vars(Identity(found.pid, found.started - 1, found.boot))))
            Stack(directory).stop()
            assert stranger.poll() is None
            pid_path.write_text(true_pid)
        finally:
            stranger.kill()


def test_a_server_that_ignores_the_request_to_end_is_killed(directory: Path) -> None:
    server = Stack(directory).server("redis")
    server.start()
    identity = server._daemon.identity()
    assert identity is not None
    os.kill(identity.pid, signal.SIGSTOP)
    began = time.monotonic()
    server.stop(patience=0.2)
    assert time.monotonic() - began < 5
    assert processes_below(directory) == []


def test_not_root_is_told_exactly_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing = MissingPackagesError({"slac": "no xrootd"}, ("xrootd-server", "xrootd-server-plugins"))
    with pytest.raises(MissingPackagesError, match="slac: no xrootd") as caught:
        install(missing, print)
    wanted = "apt-get install --yes --no-install-recommends xrootd-server xrootd-server-plugins"
    assert wanted in str(caught.value)


def test_servers_are_not_put_where_their_account_cannot_go() -> None:
    if os.geteuid() != 0:
        return
    with tempfile.TemporaryDirectory() as private:
        done = command("up", "redis", "--dir", Path(private) / "set")
        assert done.returncode == 1
        assert "who cannot enter" in done.stderr
