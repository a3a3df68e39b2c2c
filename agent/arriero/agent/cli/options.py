"""Option and argument types that several commands share."""

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from typing_extensions import override

from arriero.agent.cli.files import read_settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class DidName(NamedTuple):
    """A data identifier as it is written: ``scope:name``."""

    scope: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"

    def as_dict(self) -> dict[str, str]:
        """As Rucio's calls take it."""
        return {"scope": self.scope, "name": self.name}


class DidType(click.ParamType[DidName]):
    """``scope:name``."""

    name = "did"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DidName:
        if isinstance(value, DidName):
            return value
        scope, colon, name = str(value).partition(":")
        if not (scope and colon and name):
            self.fail(f"{value!r} is not a DID: write scope:name", param, ctx)
        return DidName(scope, name)

    @override
    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "SCOPE:NAME"


class JsonType(click.ParamType[T]):
    """JSON of one kind.

    Parameters
    ----------
    kind
        ``dict`` or ``list``.
    called
        The same as people say it.
    """

    name = "json"

    def __init__(self, kind: type[T], called: str) -> None:
        self._kind = kind
        self._called = called

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        import json

        if isinstance(value, self._kind):
            return value
        try:
            decoded = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON ({error})", param, ctx)
        if not isinstance(decoded, self._kind):
            self.fail(f"{value!r} is not a JSON {self._called}", param, ctx)
        return decoded


def all_of(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Make several options one decorator; help shows them in this order."""

    def decorate(function: F) -> F:
        decorated: F = reduce(lambda done, option: option(done), reversed(options), function)
        return decorated

    return decorate


DID = DidType()
JSON: JsonType[dict[str, Any]] = JsonType(dict, "object")
JSON_LIST: JsonType[list[Any]] = JsonType(list, "list")


def rses_option(*, required: bool = False, help_text: str = "RSE expression.") -> Callable[[F], F]:
    """``--rses``, with Rucio's alias ``--rse-exp``."""
    return click.option("--rses", "--rse-exp", "rses", required=required, metavar="EXPR", help=help_text)


def dry_run_option(function: F) -> F:
    """``-n/--dry-run``."""
    return click.option("-n", "--dry-run", is_flag=True, help="Show what would be done, and do nothing.")(
        function
    )


def _read_settings(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> dict[str, Any]:
    return {} if path is None else read_settings(path)


BROKER = click.option(
    "--broker", "brokers", multiple=True, required=True, metavar="HOST:PORT", help="May be repeated."
)
BROKER_SETTINGS = click.option(
    "--settings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=_read_settings,
    help="YAML with librdkafka's settings: security.protocol, sasl.password ...",
)
"""Of commands that talk to Kafka; the command gets what is in the file."""
