"""A group of commands that loads a command's module only when the command is used.

``arriero --help`` and completion stay fast, and a site that has not installed an extra misses only its commands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
from typing_extensions import override

from arriero.agent.cli.failures import missing_extra


class PipeClosed(Exception):
    """Whoever read our output has gone: not an error."""


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and its line in the help."""

    module: str
    help: str
    attribute: str = "command"


class LazyGroup(click.Group):
    """The root group.

    Parameters
    ----------
    commands_by_name
        In the order of the help.
    """

    def __init__(self, *args: Any, commands_by_name: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = commands_by_name

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._lazy.get(cmd_name)
        if entry is None:
            return None
        try:
            module = import_module(entry.module)
        except ModuleNotFoundError as error:
            missing = missing_extra(error)
            if missing is None:
                raise
            raise missing from error
        command: click.Command = getattr(module, entry.attribute)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._lazy.items()])

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would end with 1
            raise PipeClosed from error
