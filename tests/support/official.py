"""The official Rucio client, unmodified, against a registry on each kind of database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import forked
from support.server import PASSWORD, ROOT, RunningRegistry, running_registry
from support.services import Services

forked.preload("rucio.cli.bin_legacy.rucio", "rucio.cli.command")

CONFIGURATION = """[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = {username}
password = {password}
account = {account}
auth_token_file_path = {token}

[policy]
permission = generic
schema = generic
"""


@dataclass
class Official:
    """A registry, and ways to speak to it as the official client does."""

    registry: RunningRegistry
    directory: Path
    number: int = 0

    def configuration(self, account: str = ROOT, password: str = PASSWORD) -> Path:
        path = self.directory / f"rucio-{account}.cfg"
        path.write_text(
            CONFIGURATION.format(
                url=self.registry.url,
                username=account,
                password=password,
                account=account,
                token=self.directory / f"token-{account}",
            )
        )
        return path

    def unique(self, stem: str) -> str:
        self.number += 1
        return f"{stem}{self.number}"

    def cli(self, *arguments: str, account: str = ROOT, expect: int = 0) -> str:
        """Run `rucio` as a person would, and give what it wrote."""
        done = forked.run(
            [str(Path(sys.executable).with_name("rucio")), *arguments],
            env=self._environment(account),
            directory=self.directory,
            timeout=60,
        )
        return self._said(done, expect)

    def shell(self, script: str, account: str = ROOT, expect: int = 0, **variables: str) -> str:
        """Run lines of a document in a shell, as written there."""
        done = subprocess.run(
            ["bash", "-e", "-u", "-c", script],
            env={**self._environment(account), **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return self._said(done, expect)

    def _environment(self, account: str) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RUCIO_CONFIG": str(self.configuration(account)),
            "COLUMNS": "300",
        }

    @staticmethod
    def _said(done: subprocess.CompletedProcess[str], expect: int) -> str:
        said = done.stdout + done.stderr
        assert done.returncode == expect, said
        return said


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def official(
    request: pytest.FixtureRequest, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Official]:
    directory = tmp_path_factory.mktemp(f"conformance-{request.param}")
    with running_registry(services, request.param, directory) as registry:
        yield Official(registry, directory)


@pytest.fixture
def client(official: Official, monkeypatch: pytest.MonkeyPatch):
    """`rucio.client.Client` of the account root."""
    return make_client(official, monkeypatch)


def make_client(
    official: Official, monkeypatch: pytest.MonkeyPatch, account: str = ROOT, password: str = PASSWORD
):
    monkeypatch.setenv("RUCIO_CONFIG", str(official.configuration(account, password)))
    from rucio.client import Client
    from rucio.common import config

    config.clean_cached_config()
    return Client(
        rucio_host=official.registry.url,
        auth_host=official.registry.url,
        account=account,
        auth_type="userpass",
        creds={"username": account, "password": password},
    )
