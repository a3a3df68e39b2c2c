"""Runs ``arriero`` in the test's process, with what it prints and how it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from arriero.agent.cli.main import run
from arriero.registry.client import RegistryClient
from support.server import PASSWORD, ROOT, RunningRegistry


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote with `-o json`."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Cli:
    """Runs commands; each must end with the code that is expected of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str, expect: int = 0) -> Ended:
        self._capsys.readouterr()
        code = run(words)
        captured = self._capsys.readouterr()
        ended = Ended(code, captured.out, captured.err)
        assert code == expect, f"arriero {' '.join(words)} ended with {code}:\n{ended.out}\n{ended.err}"
        return ended


def root_environment(url: str, directory: Path) -> dict[str, str]:
    """Environment of a user who is root at a registry."""
    password = directory / "root.password"
    password.write_text(PASSWORD + "\n")
    return {
        "ARRIERO_URL": url,
        "ARRIERO_ACCOUNT": ROOT,
        "ARRIERO_USERNAME": ROOT,
        "ARRIERO_PASSWORD_FILE": str(password),
    }


@pytest.fixture
def on_sqlite() -> str:
    """The one database of tests of what commands show: as ``database_kind``."""
    return "sqlite"


@pytest.fixture(autouse=True)
def environment(registry: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the commands of a module that takes this be root's at its registry."""
    for name, value in root_environment(registry.url, tmp_path).items():
        monkeypatch.setenv(name, value)


def add_two_sites(registry: RunningRegistry) -> RegistryClient:
    """Add scope raw and the RSEs SLAC and IN2P3, each with its name as ``site``; give root's client."""
    client = registry.client()
    client.add_scope(ROOT, "raw")
    for rse in ("SLAC", "IN2P3"):
        client.add_rse(rse)
        client.add_rse_attribute(rse, "site", rse)
    return client


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """`arriero`, with no settings of its own."""
    monkeypatch.setenv("ARRIERO_CONFIG", "")
    monkeypatch.delenv("ARRIERO_CONFIG")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Cli(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
