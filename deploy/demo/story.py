"""How the demo talks: steps, the commands that it runs, tables, and checks that must hold."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape


class DemoFailedError(Exception):
    """Something that the demo shows is not so."""


class Story:
    """Prints to stdout; colours only on a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._begun = time.monotonic()
        self._step = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        self._step += 1
        elapsed = time.monotonic() - self._begun
        self.console.print(f"\n[bold]{self._step}. {escape(title)}[/] [dim]({elapsed:.0f} s)[/]")

    def say(self, text: str) -> None:
        """Say a sentence."""
        self.console.print(f"   {escape(text)}")

    def command(self, words: Iterable[str]) -> None:
        """Show a command as a person would type it."""
        self.console.print(f"   [cyan]$ {escape(shlex.join(words))}[/]")

    def show(self, text: str, *, most: int | None = None) -> None:
        """Show what a command printed, at most so many lines of it."""
        lines = text.rstrip().splitlines()
        for line in lines[:most]:
            self.console.print(f"   {escape(line)}")
        if most is not None and len(lines) > most:
            self.console.print(f"   [dim]... {len(lines) - most} more lines[/]")

    def check(self, holds: bool, claim: str, otherwise: str) -> None:
        """Say that something holds, or fail."""
        if not holds:
            raise DemoFailedError(f"{claim}: not so, {otherwise}")
        self.console.print(f"   [green]ok[/] {escape(claim)}")

    def failed(self, why: str, logs: Iterable[Path]) -> None:
        """End with what went wrong and where to look."""
        self.console.print(f"\n[bold red]The demo failed:[/] {escape(why)}")
        for log in logs:
            self.console.print(f"   look into {log}")
