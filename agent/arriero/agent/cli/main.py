"""The command ``arriero``: global options, the table of commands, and how a command ends.

Imports no more than click: every command lives in a module of its own, loaded when it is used.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from arriero.agent.cli.failures import INTERRUPTED, OK, USAGE, failure_of
from arriero.agent.cli.lazy import LazyCommand, LazyGroup, PipeClosed
from arriero.agent.cli.session import Session

_HERE = "arriero.agent.cli"

COMMANDS = {
    "rse": LazyCommand(f"{_HERE}.rse", "Storage elements: attributes, protocols, distances."),
    "scope": LazyCommand(f"{_HERE}.scope", "Scopes and the accounts that they belong to."),
    "did": LazyCommand(f"{_HERE}.did", "Files, datasets, containers and what they hold."),
    "replica": LazyCommand(f"{_HERE}.replica", "Where files are; register files that are there."),
    "deletion": LazyCommand(f"{_HERE}.deletion", "Bytes that go, and stopping all of it."),
    "rule": LazyCommand(f"{_HERE}.rule", "Replication rules."),
    "transfer": LazyCommand(f"{_HERE}.transfer", "Copies that are wanted, under way, or given up."),
    "link": LazyCommand(f"{_HERE}.link", "How copies go between RSEs: slots, rates, errors, limits."),
    "subscription": LazyCommand(f"{_HERE}.subscription", "Standing rules for data that is to come."),
    "butler": LazyCommand(f"{_HERE}.butler", "Butler repositories and what belongs in them."),
    "arrival": LazyCommand(f"{_HERE}.arrival", "Files on their way into a Butler."),
    "watch": LazyCommand(f"{_HERE}.watch", "What arrives at an RSE without a rule, registered."),
    "reconcile": LazyCommand(
        f"{_HERE}.reconcile", "A Butler, its ledger and its storages held against each other."
    ),
    "trace": LazyCommand(f"{_HERE}.trace", "The whole way of one file."),
    "audit": LazyCommand(f"{_HERE}.audit", "Storages held against the catalogue: missing, dark, wrong."),
    "doctor": LazyCommand(f"{_HERE}.doctor", "Whether the catalogue is whole, and mending it."),
    "token": LazyCommand(f"{_HERE}.token", "Tokens of site agents."),
    "ping": LazyCommand(f"{_HERE}.ping", "Ask the registry for its version."),
    "whoami": LazyCommand(f"{_HERE}.ping", "Ask for whom the registry takes you.", attribute="whoami"),
    "config": LazyCommand(f"{_HERE}.config", "The settings in force."),
    "completion": LazyCommand(f"{_HERE}.completion", "Completion for your shell."),
    "up": LazyCommand(f"{_HERE}.up", "Run everything on this machine."),
    "serve": LazyCommand(f"{_HERE}.serve", "Run the registry service."),
    "event": LazyCommand(f"{_HERE}.event", "What has happened, carried to a broker."),
    "agent": LazyCommand(f"{_HERE}.agent", "Run a site's agent: ingest, mover."),
    "admin": LazyCommand(f"{_HERE}.admin", "Prepare and check the database."),
}
_PROCESSES = frozenset({"up", "serve", "agent"})


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"arriero {version('arriero')}")
        ctx.exit()


def _use_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not ctx.resilient_parsing:
        os.environ["ARRIERO_CONFIG"] = str(value)
    return value


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "ARRIERO",
        "max_content_width": 110,
    },
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "jsonl", "csv"]),
    help="How to write results [default: table on a terminal, jsonl elsewhere].",
)
@click.option("--url", metavar="URL", help="The registry.")
@click.option("-a", "--account", metavar="ACCOUNT", help="Act for this account.")
@click.option("--username", metavar="NAME", help="Log in as this user.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="File with the password on its first line."
)
@click.option("--token-file", type=click.Path(path_type=Path), help="File with a token.")
@click.option("--ca-bundle", type=click.Path(path_type=Path), help="Certificate authorities to trust.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Longest silence of the registry.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=_use_config,
    is_eager=True,
    expose_value=False,
    help="Settings file (YAML).",
)
@click.option("--progress/--no-progress", default=None, help="Show progress [default: on a terminal].")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="Lowest level that is logged, on stderr.",
)
@click.option("-v", "--verbose", count=True, help="Log more (-vv: still more).", envvar=[])
@click.option(
    "--error-on-nothing", is_flag=True, help="End with 9 when there was nothing to show or to do.", envvar=[]
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
    envvar=[],
)
@click.pass_context
def cli(
    ctx: click.Context,
    /,
    log_level: str | None,
    verbose: int,
    error_on_nothing: bool,
    **flags: Any,
) -> None:
    """Replication rules, verified copies, and Butler ingest on arrival, for observatories.

    Options can be set in the environment too (ARRIERO_URL, ARRIERO_RULE_ADD_COPIES ...), and those that `arriero
    config show` lists in the settings file (--config, ARRIERO_CONFIG). Results go to stdout, everything else to stderr.
    """
    from arriero.registry.logs import configure_logs

    level = log_level or ("info" if ctx.invoked_subcommand in _PROCESSES else "warning")
    configure_logs(("warning", "info", "debug")[min(verbose, 2)] if verbose and log_level is None else level)
    given = {
        name: value
        for name, value in flags.items()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    ctx.obj = Session(given, commands=frozenset(COMMANDS), error_on_nothing=error_on_nothing)


def run(args: Sequence[str]) -> int:
    """Run a command line.

    Parameters
    ----------
    args
        Without the program's name.

    Returns
    -------
    int
        Exit code.
    """
    try:
        result = cli.main(args=list(args), prog_name="arriero", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, PipeClosed):
        _forget_stdout()
        return OK
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return USAGE
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        return _report(error, args)
    return result if isinstance(result, int) else OK


def _report(error: Exception, args: Sequence[str]) -> int:
    failure = failure_of(error, with_traceback=any(arg in {"-v", "-vv", "--verbose"} for arg in args))
    text = failure.as_json() if _wants_json(args) else failure.as_text()
    sys.stderr.write(text + "\n")
    return failure.exit_code


def _wants_json(args: Sequence[str]) -> bool:
    """Whether errors go out as JSON. From the bare arguments: the error may be that they cannot be parsed."""
    chosen = os.environ.get("ARRIERO_OUTPUT")
    for arg, following in zip(args, (*args[1:], ""), strict=True):
        if arg in {"-o", "--output"}:
            chosen = following
        elif arg.startswith("--output="):
            chosen = arg.partition("=")[2]
        elif arg.startswith("-o") and not arg.startswith("--"):
            chosen = arg[2:]
    return chosen in {"json", "jsonl"}


def _forget_stdout() -> None:
    """Let the interpreter flush into nowhere at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
