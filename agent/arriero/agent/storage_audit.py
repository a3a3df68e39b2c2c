"""What is at a storage, sent to the registry to be compared with the catalogue; and dark files, moved aside on demand.

It runs where the storage can be reached or its dump lies, and speaks to the registry by HTTP. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from arriero.agent.storage_dump import Dump, Found
from arriero.agent.storage_walk import Walk
from arriero.registry.client import RegistryClient
from arriero.registry.pages import pages_of
from arriero.rse.errors import NotFound, RSEError
from arriero.rse.protocol import StorageProtocol

LINES_A_CALL = 10_000
_FINDINGS_A_CALL = 1000


def _nothing(count: int) -> None:
    del count


@dataclass(frozen=True, slots=True)
class Upload:
    """The lines of one audit on their way.

    Parameters
    ----------
    client
        The registry.
    begun
        The audit, as the registry tells of it.
    on_lines
        Called with the number of lines of each chunk that has arrived.
    """

    client: RegistryClient
    begun: dict[str, Any]
    on_lines: Callable[[int], None] = _nothing

    def send_dump(self, dump: Dump) -> dict[str, Any]:
        """Send the lines of a dump that have not been sent yet; give how far they have come."""
        rest = islice(dump.files(), self.begun["chunks"] * LINES_A_CALL, None)
        return self._send(rest, with_cursor=False)

    def send_walk(self, walk: Walk) -> dict[str, Any]:
        """Send what a walk finds; give how far it has come."""
        return self._send(((path, size, None) for path, size in walk.files()), with_cursor=True)

    def _send(self, lines: Iterable[Found], *, with_cursor: bool) -> dict[str, Any]:
        state = self.begun
        for chunk in pages_of(lines, LINES_A_CALL):
            cursor = chunk[-1][0] if with_cursor else None
            state = self.client.add_audit_lines(state["id"], state["chunks"], chunk, cursor)
            self.on_lines(len(chunk))
        return state


@dataclass(slots=True)
class Aside:
    """What became of dark files that were to be moved aside."""

    moved: int = 0
    registered: int = 0
    """Somebody has registered them meanwhile; they are where they were."""
    gone: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def move_aside(client: RegistryClient, protocol: StorageProtocol, rse: str, findings: Sequence[int]) -> Aside:
    """Move confirmed dark files of an RSE into its quarantine; nothing is removed.

    The registry writes down where each goes before it is moved, and is asked afterwards whether it has become a replica.

    Parameters
    ----------
    findings
        Ids, as `RegistryClient.list_findings` gives them.
    """
    result = Aside()
    for page in pages_of(findings, _FINDINGS_A_CALL):
        chosen = client.move_aside(rse, page)
        places = {one["path"]: one["moved_to"] for one in chosen}
        moved = [path for path, place in places.items() if _move(protocol, path, place, result)]
        not_moved = sorted(places.keys() - set(moved))
        result.gone += sum(path not in result.failures for path in not_moved)
        back = client.moved_aside(rse, moved, not_moved)
        for path in back:
            protocol.move(places[path], path)
        result.registered += len(back)
        result.moved += len(moved) - len(back)
    return result


def _move(protocol: StorageProtocol, path: str, place: str, result: Aside) -> bool:
    try:
        protocol.make_parents(place)
        protocol.move(path, place)
    except NotFound:
        return False
    except RSEError as error:
        result.failures[path] = str(error)
        return False
    return True
