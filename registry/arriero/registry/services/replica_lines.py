"""Lists of replicas as lines of JSON, a page's worth of bytes at a time: what `replica_lists` gives, only sooner.

Most files of a list lie at the same RSEs in the same states, and differ in name, size and checksums only. So the line of
the first of them is made as any other, and becomes the template for those after it. Where a line could differ in more
(names that JSON or URLs have to escape, orders by chance, parents), it is made like the first.
"""

import re
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import orjson

from arriero.registry.services.context import Context
from arriero.registry.services.replica_lists import ReplicaQuery, Shown, answer, read_pages
from arriero.registry.services.replica_order import RANDOM
from arriero.registry.store.replica_pages import ReplicaRow
from arriero.rse.lfn2pfn import hash_path, identity_path, lsst_butler_path, path_for

_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]+", re.ASCII).fullmatch
"""Texts that are the same in JSON and in a URL."""

_MOST_TEMPLATES = 1000
"""Kept of one list; each is the line of one file."""

_SCOPE, _NAME, _BYTES, _ADLER32, _MD5, _FIRST_PATH = range(6)
"""Places in a line; the paths of the replicas follow, in their order."""

Key = tuple[tuple[int | None, str | None], ...]
"""RSEs and states of the replicas of a file."""

PathMaker = Callable[[str, str], str]

# of a name that was registered nothing has to be checked again
_UNCHECKED: Mapping[str, PathMaker] = {
    "hash": hash_path,
    "identity": identity_path,
    "lsst_butler": lsst_butler_path,
}


def list_replica_lines(context: Context, query: ReplicaQuery) -> Generator[bytes, None, None]:
    """List replicas as `replica_lists.list_replicas` does.

    Yields
    ------
    bytes
        Whole lines of JSON, never none.

    Raises
    ------
    InvalidExpression
        The RSE expression cannot be read, or nothing satisfies it.
    """
    alike = query.sort != RANDOM and not query.resolve_parents
    writer: _Writer | None = None
    for page in read_pages(context, query):
        writer = writer or _Writer(page.shown, alike=alike)
        if lines := writer.lines(page.rows, page.parents):
            yield lines


class _Template:
    """A line with ``%s`` in the places of what differs between files, and which value goes where."""

    __slots__ = ("pick", "text")

    def __init__(self, line: str, mark: str) -> None:
        order: list[int] = []

        def place(found: re.Match[str]) -> str:
            order.append(int(found["quoted"] or found["bare"]))
            return "%s"

        # what is no text in JSON has lost its quotes with its mark
        marked = rf'"{mark}(?P<quoted>[{_BYTES}{_ADLER32}{_MD5}])e"|{mark}(?P<bare>[0-9]+)e'
        self.text = re.sub(marked, place, line.replace("%", "%%"))
        self.pick: Callable[[Sequence[Any]], tuple[Any, ...]] = itemgetter(*order)


class _Writer:
    """Writes the lines of one list.

    Parameters
    ----------
    alike
        Files with replicas at the same places have lines that differ in the places of `_Template` only.
    """

    def __init__(self, shown: Shown, *, alike: bool) -> None:
        self._shown = shown
        self._alike = alike
        self._mark = secrets.token_hex(8)
        self._templates: dict[Key, _Template | None] = {}
        self._makers: dict[int | None, PathMaker] = {
            rse_id: _maker(ways[0].access.rse.algorithm) for rse_id, (_, ways) in shown.rses.items() if ways
        }

    def lines(self, rows: Sequence[ReplicaRow], parents: Mapping[int, list[str]]) -> bytes:
        """Write a page."""
        made: list[str] = []
        group: list[ReplicaRow] = []
        for row in rows:
            if group and row[0] != group[0][0]:
                made.append(self._line(group, parents))
                group = [row]
            else:
                group.append(row)
        if group:
            made.append(self._line(group, parents))
        return "".join(made).encode()

    def _line(self, rows: list[ReplicaRow], parents: Mapping[int, list[str]]) -> str:
        file_id, scope, name, size, adler32, md5, rse_id, state, path = rows[0]
        if not self._alike or _PLAIN(name) is None or _PLAIN(scope) is None:
            return self._made(rows, parents.get(file_id, []))
        key: Key = ((rse_id, state),) if len(rows) == 1 else tuple((row[6], row[7]) for row in rows)
        template = self._templates[key] if key in self._templates else self._new_template(key)
        if template is None:
            return self._made(rows, [])
        values = [
            scope,
            name,
            "null" if size is None else size,
            "null" if adler32 is None else f'"{adler32}"',
            "null" if md5 is None else f'"{md5}"',
        ]
        for row in rows:
            rse_id, path = row[6], row[8]
            if path is None:
                maker = self._makers.get(rse_id)
                path = maker(scope, name) if maker is not None else ""
            elif _PLAIN(path) is None:
                return self._made(rows, [])
            values.append(path)
        return template.text % template.pick(values)

    def _made(self, rows: Sequence[ReplicaRow], parents: list[str]) -> str:
        return orjson.dumps(answer(rows, self._shown, parents)).decode() + "\n"

    def _new_template(self, key: Key) -> _Template | None:
        """Make the line of a file whose values are places; None where lines may differ in more."""
        if len(self._templates) >= _MOST_TEMPLATES:
            return None
        template = None
        if self._order_is_settled(rse_id for rse_id, _ in key):
            mark: list[Any] = [f"{self._mark}{place}e" for place in range(_FIRST_PATH + len(key))]
            scope, name, size, adler32, md5 = mark[:_FIRST_PATH]
            rows = [
                ReplicaRow(0, scope, name, size, adler32, md5, rse_id, state, path)
                for (rse_id, state), path in zip(key, mark[_FIRST_PATH:], strict=True)
            ]
            template = _Template(self._made(rows, []), self._mark)
        self._templates[key] = template
        return template

    def _order_is_settled(self, rse_ids: Iterable[int | None]) -> bool:
        """Whether PFNs are sorted by what stands before the paths: no beginning is the beginning of another."""
        known = self._shown.rses
        shown = [known[rse_id] for rse_id in rse_ids if rse_id is not None and rse_id in known]
        begins = sorted(way.access.endpoint.pfn("x")[:-1] for _, ways in shown for way in ways)
        return not any(after.startswith(before) for before, after in pairwise(begins))


def _maker(algorithm: str) -> PathMaker:
    return _UNCHECKED.get(algorithm) or partial(path_for, algorithm)
