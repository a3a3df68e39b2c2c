"""What a command ends with: exit codes, and errors as people and as programs read them.

The codes are a promise (docs/reference/exit-codes.md); each error class carries its own as ``exit_code``.
"""

import json
import sys
import traceback
from dataclasses import dataclass
from typing import Any, ClassVar

import click

from arriero.agent.errors import AgentError

OK = 0
UNEXPECTED = 1
USAGE = 2
TEMPORARY = 5
UNSUPPORTED = 7
INTERRUPTED = 130

_EXTRAS = {
    "registry": {
        "alembic",
        "argon2",
        "fastapi",
        "jinja2",
        "orjson",
        "prometheus_client",
        "psycopg",
        "sqlalchemy",
        "starlette",
        "uvicorn",
    },
    "scheduler": {"celery", "kombu", "redis"},
    "butler": {"astropy", "lsst"},
}


class PartialSuccess(AgentError):
    """Some of it was done and some was not; running it again does the rest."""

    code: ClassVar[str] = "partial_success"
    exit_code: ClassVar[int] = 8


class NothingToDo(AgentError):
    """There was nothing to show or to do, and ``--error-on-nothing`` asked to be told."""

    code: ClassVar[str] = "nothing_to_do"
    exit_code: ClassVar[int] = 9


class MissingExtra(AgentError):
    """The command needs a part of Arriero that is not installed."""

    code: ClassVar[str] = "missing_extra"
    exit_code: ClassVar[int] = UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, ready to be shown."""

    exit_code: int
    code: str
    message: str
    retryable: bool = False
    hint: str | None = None

    def as_json(self) -> str:
        """One line for programs."""
        told = {"code": self.code, "message": self.message, "retryable": self.retryable, "hint": self.hint}
        return json.dumps({"error": told}, ensure_ascii=False)

    def as_text(self) -> str:
        """For people."""
        return f"Error: {self.message}" + (f"\n{self.hint}" if self.hint else "")


def failure_of(error: BaseException, *, with_traceback: bool = False) -> Failure:
    """Say what an exception means at the command line.

    Parameters
    ----------
    error
        What a command raised.
    with_traceback
        Add where an unexpected error came from.
    """
    if (known := _of_click(error) or _of_database(error) or _of_path(error)) is not None:
        return known
    if isinstance(error, ModuleNotFoundError):
        error = missing_extra(error) or error
    exit_code: Any = getattr(error, "exit_code", None)
    if isinstance(exit_code, int):
        code = getattr(error, "stable_code", None) or getattr(error, "code", "error")
        return Failure(exit_code, str(code), str(error), bool(getattr(error, "retryable", False)))
    if type(error).__name__ == "ValidationError" and isinstance(error, ValueError):
        return Failure(USAGE, "invalid_input", _validation_text(error))
    detail = f"{type(error).__name__}: {error}"
    if with_traceback:
        detail += "\n" + "".join(traceback.format_exception(error)).rstrip()
        return Failure(UNEXPECTED, "unexpected", detail)
    return Failure(UNEXPECTED, "unexpected", detail, hint="Run it with -v to see where this comes from.")


def _of_click(error: BaseException) -> Failure | None:
    """Say what is wrong with what was typed."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "arriero"
        return Failure(USAGE, "usage", error.format_message(), hint=f"Try '{path} -h'.")
    if isinstance(error, click.ClickException):
        return Failure(error.exit_code, "command_failed", error.format_message())
    return None


def _of_database(error: BaseException) -> Failure | None:
    """Say what an error of SQLAlchemy means, never with the URL or the statement, which may hold secrets."""
    alchemy = sys.modules.get("sqlalchemy.exc")
    if alchemy is None:
        return None
    if isinstance(error, alchemy.NoSuchModuleError) or (
        isinstance(error, alchemy.ArgumentError) and "URL" in str(error)
    ):
        message = "ARRIERO_DATABASE_URL is not the URL of a database: write postgresql://USER@HOST/NAME or sqlite:///FILE."
        return Failure(USAGE, "invalid_database_url", message)
    if isinstance(error, alchemy.OperationalError | alchemy.InterfaceError):
        message = f"The database cannot be used: {' '.join(str(error.orig).split())}"
        hint = "Look at ARRIERO_DATABASE_URL and whether the database runs, then try again."
        return Failure(TEMPORARY, "database_unavailable", message, retryable=True, hint=hint)
    return None


def _of_path(error: BaseException) -> Failure | None:
    """Say which file or folder cannot be used."""
    kinds = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
    if not isinstance(error, kinds) or error.filename is None:
        return None
    hint = "Correct the path, or the permissions on it."
    return Failure(USAGE, "unusable_path", f"{error.filename} cannot be used: {error.strerror}.", hint=hint)


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """Name the extra that has the module which was not found, None when no extra has it."""
    top = (error.name or "").partition(".")[0]
    for extra, modules in _EXTRAS.items():
        if top in modules:
            return MissingExtra(
                f"This command needs a part that is not installed ({top}): run  pip install 'arriero[{extra}]'"
            )
    return None


def _validation_text(error: Any) -> str:
    """Text of a pydantic error without the values, which may be secrets."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        lines.append(f"{where}: {item['msg']}" if where else str(item["msg"]))
    return "; ".join(lines)
