"""The command line of `deploy/services`."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from servicelib.errors import ServiceError
from servicelib.packages import install
from servicelib.stack import MAKERS, Stack, claim, new_directory, remove_abandoned

FAMILY = "arriero-services-"
CHECKOUT = Path(__file__).resolve().parents[2]
PREFIX = f"{FAMILY}{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]}-"
RUN_PREFIX = "arriero-run-"
MARKER = "arriero-services"
_SECRET = re.compile(r"(://[^:/@]*:)[^@]*@")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 1 for trouble, 3 when `status` finds something down."""
    options = _parser().parse_args(arguments)
    # A shell starts what it puts in the background with SIGINT ignored, and commands would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return int(options.action(options))
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; what was started has been ended.", file=sys.stderr)
        return 130


def up(options: argparse.Namespace) -> int:
    """Start servers that go on running, beside those that this checkout has up already."""
    began = time.monotonic()
    running = _running_sets(PREFIX)
    stack = _prepare(options.names, options.dir or (running[0] if running else None), PREFIX)
    try:
        _start(stack, options.names)
    except BaseException:
        if stack.directory not in running:
            _discard(stack, keep=options.keep)
        raise
    print(f"Up after {time.monotonic() - began:.1f} s in {stack.directory}")
    _show(stack)
    where = "" if options.dir is None else f" --dir {shlex.quote(str(options.dir))}"
    print(f'Use them:  eval "$(deploy/services env{where})"\nEnd them:  deploy/services down{where}')
    return 0


def down(options: argparse.Namespace) -> int:
    """End servers and remove their directory."""
    directories = _running_sets(FAMILY) if options.all else _chosen(options.dir)
    for directory in directories:
        _discard(Stack(directory), keep=options.keep)
        print(f"Ended what ran in {directory}{'' if options.keep else ' and removed it'}")
    if not directories:
        print("Nothing is up.")
    return 0


def env(options: argparse.Namespace) -> int:
    """Print where everything is, for a shell."""
    for name, text in _only(options.dir).variables().items():
        print(f"export {name}={shlex.quote(text)}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print what runs."""
    stack = _only(options.dir)
    print(stack.directory)
    _show(stack)
    return 0 if all(server.is_running() for server in stack.known()) else 3


def run(options: argparse.Namespace) -> int:
    """Start servers, run a command that finds them by its environment, and end them whatever happens."""
    remove_abandoned(RUN_PREFIX)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise ServiceError("Say what to run: deploy/services run [--only NAME] -- COMMAND")
    stack = _prepare(options.only, options.dir, RUN_PREFIX)
    try:
        claim(stack.directory)
        _start(stack, options.only)
        with (
            subprocess.Popen(command, env={**os.environ, **stack.variables()}) as child,
            _forwarded_to(child),
        ):
            code = child.wait()
        return code if code >= 0 else 128 - code
    finally:
        _discard(stack, keep=options.keep)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy/services",
        description="Start private instances of the servers that Arriero's tests use, and end them again.",
        epilog="Servers: " + ", ".join(MAKERS),
    )
    actions = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, what: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=what, description=what)
        action.add_argument("--dir", type=Path, help="directory of the servers (default: a temporary one)")
        return action

    keep = "leave the files for a look"
    action = add("up", "start servers (all, or those named) and leave them running")
    action.add_argument("names", nargs="*", metavar="NAME", help="servers (default: all)")
    action.add_argument("--keep", action="store_true", help=f"when one cannot be started, {keep}")
    action.set_defaults(action=up)
    action = add("down", "end what `up` started and remove its directory")
    action.add_argument("--keep", action="store_true", help=keep)
    action.add_argument(
        "--all", action="store_true", help="end every set of yours in the temporary directory"
    )
    action.set_defaults(action=down)
    add("env", "print the environment variables for the tests, for eval").set_defaults(action=env)
    add("status", "print what runs").set_defaults(action=status)
    action = add("run", "start servers, run a command with them, and end them")
    action.add_argument("--only", action="append", choices=[*MAKERS], default=[], help="a server; repeatable")
    action.add_argument("--keep", action="store_true", help=keep)
    action.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    action.set_defaults(action=run)
    return parser


def _prepare(names: Sequence[str], directory: Path | None, prefix: str) -> Stack:
    """Install what is missing and return the set's directory, new or marked as ours."""
    names = names or list(MAKERS)
    missing = Stack(tempfile.gettempdir()).missing(names)
    if missing is not None:
        install(missing, lambda line: print(line, file=sys.stderr))
    if directory is None:
        directory = new_directory(prefix)
    else:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) and not (directory / MARKER).exists():
            raise ServiceError(f"{directory} holds other files. Name an empty or a new directory.")
    (directory / MARKER).touch()
    return Stack(directory)


def _start(stack: Stack, names: Sequence[str]) -> None:
    try:
        stack.start(names or list(MAKERS))
    except ServiceError as error:
        raise ServiceError(f"Not everything could be started in {stack.directory}.\n{error}") from error


def _discard(stack: Stack, *, keep: bool) -> None:
    if keep:
        stack.stop()
    else:
        stack.remove()


def _running_sets(prefix: str) -> list[Path]:
    """Return the directories in the temporary directory that `up` made for this user."""
    found = Path(tempfile.gettempdir()).glob(f"{prefix}*/{MARKER}")
    return sorted(marker.parent for marker in found if marker.stat().st_uid == os.geteuid())


def _chosen(directory: Path | None) -> list[Path]:
    """Return the directory that is meant, none when nothing is up; never one that is not ours."""
    if directory is not None:
        if not (directory / MARKER).exists():
            raise ServiceError(f"{directory} is no directory of deploy/services; nothing was touched.")
        return [directory]
    found = _running_sets(PREFIX)
    if len(found) > 1:
        listed = "\n".join(f"  --dir {path}" for path in found)
        raise ServiceError(f"Several sets are up. Say which one (`down --all` ends all of them):\n{listed}")
    return found


def _only(directory: Path | None) -> Stack:
    found = _chosen(directory)
    if not found:
        raise ServiceError("Nothing is up. Start the servers with: deploy/services up")
    return Stack(found[0])


def _show(stack: Stack) -> None:
    for server in stack.known():
        url = _SECRET.sub(r"\1***@", server.variables().get("URL", ""))
        print(f"  {server.name:<11} {'running' if server.is_running() else 'ended':<8} {url}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _forwarded_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the command end in good order.

    A terminal's Ctrl-C reaches it by itself; another signal is passed on as SIGINT, and a second one as SIGTERM.
    """
    sending = iter([signal.SIGINT])

    def forward(_number: int, _frame: FrameType | None) -> None:
        child.send_signal(next(sending, signal.SIGTERM))

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGHUP)}
    previous[signal.SIGINT] = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
