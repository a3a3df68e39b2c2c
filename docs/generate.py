"""Write the generated pages of docs/reference; `--check` fails when one is not current."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from arriero.agent.cli.main import cli
from arriero.registry.settings import PREFIX, ClientSettings, Settings

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- made by docs/generate.py: `make docs` -->\n"


def settings_page() -> str:
    """List every setting with its default and meaning, from the classes themselves."""
    lines = [
        NOTE,
        "# Settings\n",
        "Each is a variable of the environment, or the lower-case name without the prefix in the YAML file that",
        "`ARRIERO_CONFIG` names; the environment wins. What a command takes as an option is `ARRIERO_<COMMAND>_<OPTION>`.",
        "Unknown names are refused.",
    ]
    for title, model in (("Central processes", Settings), ("Clients and site agents", ClientSettings)):
        lines += [f"\n## {title}\n", "| variable | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{PREFIX}{name.upper()}` | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value}`"


def commands_page() -> str:
    """Give the help of every command."""
    lines = [NOTE, "# Commands\n"]
    context = click.Context(cli, info_name="arriero", terminal_width=100, max_content_width=100)
    _describe(cli, context, lines)
    return "\n".join(lines).rstrip() + "\n"


def _describe(command: click.Command, context: click.Context, lines: list[str]) -> None:
    lines += [f"## {context.command_path}\n", "```", command.get_help(context).rstrip(), "```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                inner = click.Context(
                    child, info_name=name, parent=context, terminal_width=100, max_content_width=100
                )
                _describe(child, inner, lines)


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is not current")
    options = parser.parse_args()
    stale = [name for name, page in PAGES.items() if not _is_current(REFERENCE / name, page())]
    if options.check:
        for name in stale:
            print(f"docs/reference/{name} is not current: run `make docs`")
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name in stale:
        (REFERENCE / name).write_text(PAGES[name]())
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
