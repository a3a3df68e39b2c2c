"""What runs behind the demo: storage servers, `arriero up`, the site's agent; and the commands sent to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo.story import DemoFailedError, Story
from servicelib.accounts import Account
from servicelib.errors import ServiceError
from servicelib.process import Daemon
from servicelib.server import WebDavServer
from servicelib.wsgidav import WsgiDav
from servicelib.xrootd import XRootD

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60
POLL_S = 0.25
PATIENCE_S = 15
XROOTD_NAMES = ("slac", "in2p3")
WSGIDAV_NAMES = ("slac-wsgidav", "in2p3-wsgidav")


class Machine:
    """The processes of one demo; all of them end with it.

    Parameters
    ----------
    directory
        Where everything is kept.
    story
        Where commands and progress are shown.
    """

    def __init__(self, directory: Path, story: Story) -> None:
        self.directory = directory
        self._story = story
        self._servers: list[WebDavServer] = []
        self._daemons: list[Daemon] = []
        self._client: dict[str, str] = {}
        self.logs: list[Path] = []

    def start_storage(self, choice: str) -> tuple[WebDavServer, WebDavServer]:
        """Start the storage of both sites: XRootD where it is installed and can run, else WsgiDAV."""
        home = self.directory / "storage"
        home.mkdir()
        if choice == "xrootd" or (choice == "auto" and XRootD.lacks() is None):
            try:
                return self._start(XRootD(home, XROOTD_NAMES[0])), self._start(XRootD(home, XROOTD_NAMES[1]))
            except ServiceError as error:
                if choice == "xrootd":
                    raise DemoFailedError(str(error)) from error
                self._story.say(
                    f"XRootD cannot run here ({str(error).splitlines()[0]}); WsgiDAV takes its place."
                )
                self._stop_servers()
        return self._start(WsgiDav(home, WSGIDAV_NAMES[0])), self._start(WsgiDav(home, WSGIDAV_NAMES[1]))

    def _start(self, server: WebDavServer) -> WebDavServer:
        self._servers.append(server)
        self.logs.append(server.log_path)
        server.start()
        return server

    def start_arriero(self) -> None:
        """Start `arriero up` on a free port and learn from its files where it is."""
        data = self.directory / "arriero"
        self._story.command(["arriero", "up", "--dir", str(data), "--port", "0"])
        daemon = self._spawn("up", ["up", "--dir", str(data), "--port", "0"], {})
        self._story.say(self._wait_for(daemon, "Arriero is up: "))
        self._client = {"ARRIERO_CONFIG": str(data / "client.yaml")}

    def start_agent(self, butler: str) -> None:
        """Start the site's agent with a token of its own."""
        answer = self.arriero(
            "-o", "json", "token", "create", "--label", f"agent at {butler}", "--butler", butler, quiet=True
        )
        self._story.command(
            ["arriero", "token", "create", "--label", f"agent at {butler}", "--butler", butler]
        )
        issued: Any = json.loads(answer)
        token = (issued[0] if isinstance(issued, list) else issued)["token"]
        token_file = self.directory / butler / "agent.token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        environment = {"ARRIERO_URL": self._url(), "ARRIERO_TOKEN_FILE": str(token_file)}
        self._story.command(["arriero", "agent", "run", "--butler", butler])
        self._wait_for(
            self._spawn("agent", ["agent", "run", "--butler", butler], environment), "agent started"
        )

    def arriero(self, *words: str, quiet: bool = False) -> str:
        """Run `arriero`, show the command, and return what it printed."""
        if not quiet:
            self._story.command(["arriero", *words])
        return self._run([str(BIN / "arriero"), *words], self._client)

    def stock_butler(self, *words: str) -> str:
        """Run the `butler` command of PyPI's lsst-daf-butler."""
        self._story.command(["butler", *words])
        return self._run([str(BIN / "butler"), *words], {})

    def follow(self, rule: str, butler: str, total: int, *, timeout_s: float) -> str:
        """Follow a rule live until every file is in the Butler; return what was reached."""
        deadline = time.monotonic() + timeout_s
        from arriero.registry.client import RegistryClient

        columns = (
            TextColumn("   {task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        client = RegistryClient(
            self._url(),
            account="root",
            username="root",
            password=(self.directory / "arriero/root.password").read_text().strip(),
        )
        with client, Progress(*columns, console=self._story.console) as progress:
            copied = progress.add_task("copied to IN2P3, verified", total=None)
            ingested = progress.add_task("in the Butler at IN2P3", total=total)
            while True:
                seen = client.get_replication_rule(rule)
                locks = {state: int(seen[f"locks_{state}_cnt"]) for state in ("ok", "replicating", "stuck")}
                if sum(locks.values()):
                    progress.update(copied, completed=locks["ok"], total=sum(locks.values()))
                states = [arrival.state for arrival in client.list_arrivals(butler=butler)]
                done = sum(state == "ingested" for state in states)
                progress.update(ingested, completed=done)
                if done == total and seen["state"] == "OK":
                    return f"{locks['ok']} files copied and verified, {done} raws in the Butler"
                if locks["stuck"] or any(state == "failed" for state in states):
                    raise DemoFailedError(
                        f"the rule is {seen['state']}: {seen.get('error')}, arrivals {sorted(set(states))}"
                    )
                if time.monotonic() > deadline:
                    raise DemoFailedError(
                        f"after {timeout_s:g} s: rule {seen['state']}, {locks}, {done} of {total} ingested"
                    )
                time.sleep(POLL_S)

    def compare_with_butler(
        self, repository: Path, original: Path, relative: str, storage: WebDavServer
    ) -> None:
        """Read one raw with `butler.get`; compare pixels with the camera's file, and the file at IN2P3 byte by byte."""
        script = (
            "import sys, numpy\n"
            "from astropy.io import fits\n"
            "from lsst.daf.butler import Butler\n"
            "butler = Butler.from_config(sys.argv[1], collections='LSSTComCam/raw/all')\n"
            "image = butler.get('raw', instrument='LSSTComCam', exposure=int(sys.argv[3]), detector=8)\n"
            "with fits.open(sys.argv[2]) as written:\n"
            "    assert len(image) == len(written)\n"
            "    for got, put in zip(image, written):\n"
            "        assert got.header.tostring() == put.header.tostring()\n"
            "        assert got.data is None and put.data is None or numpy.array_equal(got.data, put.data)\n"
            "print(butler.getURI('raw', instrument='LSSTComCam', exposure=int(sys.argv[3]), detector=8))\n"
        )
        exposure = "".join(original.parent.name.split("_")[2:]).replace("_", "")
        exposure_id = str(int(exposure[:8]) * 100_000 + int(exposure[8:]))
        self._story.say(f"butler.get('raw', instrument='LSSTComCam', exposure={exposure_id}, detector=8)")
        uri = self._run(
            [sys.executable, "-c", script, str(repository), str(original), exposure_id], {}
        ).strip()
        self._story.check(bool(uri), f"pixels and headers are the camera's; the Butler read {uri}", "no URI")
        same = (storage.data_dir / relative).read_bytes() == original.read_bytes()
        self._story.check(
            same,
            f"the file at IN2P3 is the camera's, byte by byte ({original.stat().st_size} bytes)",
            "it differs",
        )

    def say_where(self, repository: Path, dataset: str) -> None:
        """Say where the pieces lie and what to try next."""
        story = self._story
        story.step("Where the pieces lie, and what to try next")
        for what, where in (
            ("catalogue, logs, password", self.directory / "arriero"),
            ("storage of both sites", self.directory / "storage"),
            ("Butler repository", repository),
        ):
            story.say(f"{what:<26} {where}")
        story.say("`make demo DEMO_ARGS=--keep` leaves it running; then, in another shell:")
        story.command(["export", f"ARRIERO_CONFIG={self.directory / 'arriero/client.yaml'}"])
        story.command([".venv/bin/arriero", "rule", "list", "--did", dataset])
        story.command([".venv/bin/arriero", "replica", "list", "file", dataset])
        story.command([".venv/bin/arriero", "arrival", "list"])
        story.say(f"and look at the dashboard: {self._url()}/ui")

    def wait(self) -> None:
        """Stay until Ctrl-C, or fail when one of the processes ends by itself."""
        while all(daemon.is_running() for daemon in self._daemons):
            time.sleep(POLL_S)
        raise DemoFailedError("a process has ended by itself")

    def stop(self) -> None:
        """End everything that was started."""
        for daemon in reversed(self._daemons):
            daemon.end(signal.SIGTERM, PATIENCE_S)
        self._stop_servers()

    @staticmethod
    def end_leftovers(directory: Path) -> None:
        """End what a demo that was killed has left running in this directory."""
        for name in ("agent", "up"):
            _daemon(directory, name).end(signal.SIGTERM, PATIENCE_S)
        storage = directory / "storage"
        for server_class, names in ((XRootD, XROOTD_NAMES), (WsgiDav, WSGIDAV_NAMES)):
            for name in names:
                if (storage / f"{name}.json").exists():
                    server_class(storage, name).stop()

    def _stop_servers(self) -> None:
        for server in self._servers:
            server.stop()
        self._servers.clear()

    def _url(self) -> str:
        import yaml

        settings: dict[str, str] = yaml.safe_load((self.directory / "arriero/client.yaml").read_text())
        return settings["url"]

    def _spawn(self, name: str, words: list[str], environment: dict[str, str]) -> Daemon:
        daemon = _daemon(self.directory, name)
        self._daemons.append(daemon)
        self.logs.append(daemon.log_path)
        daemon.spawn([str(BIN / "arriero"), *words], Account.current(), _environment(environment))
        return daemon

    def _wait_for(self, daemon: Daemon, text: str) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            content = daemon.log_path.read_text(errors="replace")
            for line in content.splitlines():
                if text in line:
                    return line
            if not daemon.is_running():
                raise DemoFailedError(f"`arriero {daemon.log_path.stem}` ended:\n{content[-2000:]}")
            time.sleep(0.05)
        raise DemoFailedError(f"{daemon.log_path} does not say {text!r} after {START_TIMEOUT_S} s")

    def _run(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, env=_environment(environment), capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            name = " ".join([Path(command[0]).name, *command[1:4]])
            raise DemoFailedError(f"`{name} ...` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def _daemon(directory: Path, name: str) -> Daemon:
    return Daemon(directory, directory / f"{name}.pid", directory / f"{name}.log")


def _environment(extra: dict[str, str]) -> dict[str, str]:
    """Take this environment without any setting of Arriero that is not the demo's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ARRIERO_")}
    return {**own, **extra}
