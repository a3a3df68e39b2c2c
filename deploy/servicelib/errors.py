"""What can go wrong while real servers are started for tests and the demo.

Every message names the server, the cause and the next step, because it is read by somebody who wanted to
run tests and not to administer servers.
"""

from __future__ import annotations

from pathlib import Path


class ServiceError(Exception):
    """A server could not be found, started, asked or ended."""


class MissingPackagesError(ServiceError):
    """Programs are missing that Debian packages would bring.

    Parameters
    ----------
    missing
        What is missing, in words, by name of server.
    packages
        Debian packages that bring it.
    """

    def __init__(self, missing: dict[str, str], packages: tuple[str, ...]) -> None:
        self.missing = missing
        self.packages = packages
        self.command = f"apt-get install --yes --no-install-recommends {' '.join(packages)}"
        what = "; ".join(f"{server}: {lack}" for server, lack in missing.items())
        super().__init__(
            f"Programs are missing ({what}).\nInstall them, as root, with:\n\n  {self.command}\n"
        )


class StartError(ServiceError):
    """A server ended before it answered, or did not answer in time.

    Parameters
    ----------
    server
        Its name.
    cause
        What was seen.
    log_path
        Its log, of which the last lines go into the message.
    """

    def __init__(self, server: str, cause: str, log_path: Path) -> None:
        self.server = server
        self.log_path = log_path
        lines = tail(log_path)
        shown = "\n".join(f"  | {line}" for line in lines) if lines else "  | (empty)"
        super().__init__(
            f"{server} {cause}. Last lines of {log_path}:\n{shown}\n"
            "Next: mend what the log says; `deploy/services up --keep` leaves the files for a look."
        )


def tail(path: Path, count: int = 15) -> list[str]:
    """Return the last `count` lines of a log, none when there is no such file."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 16_384))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
