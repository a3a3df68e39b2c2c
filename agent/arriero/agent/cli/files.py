"""Files that a user names: whatever is wrong with one is told with its name, as an error of usage."""

from pathlib import Path
from typing import Any

import click


def read_text(path: Path, what: str) -> str:
    """Read a file (``-``: standard input) as UTF-8.

    Parameters
    ----------
    what
        What to call it in an error, such as ``password file``.

    Raises
    ------
    click.UsageError
        If it cannot be read, or is not text.
    """
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            return str(file.read())
    except OSError as error:
        raise click.UsageError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise click.UsageError(f"The {what} {path} is not text in UTF-8.") from error


def first_line(path: Path, what: str) -> str:
    """Read the first line of a file, without the blanks around it.

    Raises
    ------
    click.UsageError
        If there is none.
    """
    line = read_text(path, what).partition("\n")[0].strip()
    if not line:
        raise click.UsageError(f"The {what} {path} holds nothing on its first line.")
    return line


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a file (``-``: standard input) that are no comments."""
    lines = (line.rstrip("\r") for line in read_text(path, "list").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def read_settings(path: Path) -> dict[str, Any]:
    """Read a settings file: ``name: value`` lines in YAML, or nothing.

    Raises
    ------
    click.UsageError
        If it holds something else.
    """
    import yaml

    text = read_text(path, "settings file")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise click.UsageError(f"The settings file {path} is not YAML: {cause}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise click.UsageError(f"The settings file {path} does not hold `name: value` lines.")
    return {str(key): value for key, value in content.items()}
