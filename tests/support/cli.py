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
from support.server import PASSWORD, ROOT


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
