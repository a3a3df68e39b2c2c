"""What tests of interleavings share: the catalogues, kept while a file of tests runs, and the few settings there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.database import migrated_database
from support.interleaving import Stepper, no_pauses
from support.interleaving_search import Report, Search, order_of
from support.interleaving_site import Site, works
from support.services import Services, drop_database

ALL = os.environ.get("ARRIERO_TEST_INTERLEAVINGS") == "all"
"""Run every order; otherwise a few of most."""

ONE = os.environ.get("ARRIERO_TEST_INTERLEAVING", "")
"""What to run: some sessions, `attach+evaluate`, or one order of them, `attach+evaluate: 0x5 1x3`, as a failure names it."""

SECONDS = float(os.environ.get("ARRIERO_TEST_INTERLEAVING_S") or 0)
"""Orders are run so long and no longer, for each test; 0: until none is left."""

PREEMPTIONS = int(os.environ.get("ARRIERO_TEST_PREEMPTIONS", "3"))
"""How often a session that could go on is made to wait, of three."""

TIMEOUT_S = 6 * 3600 if ALL else 120


def chosen(names: Sequence[str]) -> bool:
    """Whether these operations are to be run: all are, unless some are asked for."""
    return not ONE or ONE.partition(":")[0] == "+".join(names)


class Sites:
    """A catalogue and its sessions for each kind of `Site`, made when first asked for."""

    def __init__(self, services: Services, directory: Path) -> None:
        self._services = services
        self._directory = directory
        self._made: dict[str, tuple[str, Site, Stepper]] = {}

    def interleave(
        self, names: Sequence[str], kind: str = "", *, preemptions: int | None = None, drawn: int | None
    ) -> Report:
        """Step some operations in all orders, or in a few.

        Parameters
        ----------
        kind
            Options of `Site` that are on, with commas.
        preemptions
            As of `Search`.
        drawn
            So many orders drawn by lot, unless all are wanted; None: all of them always.
        """
        site, stepper = self.site(kind)
        search = Search(
            stepper, works(site, names), prepare=site.prepare, check=site.check, preemptions=preemptions
        )
        title = "+".join(names)
        try:
            if ":" in ONE:
                print(search.replay(order_of(ONE.partition(":")[2])))
            elif ALL or ONE or drawn is None:
                search.explore(seconds=SECONDS or None)
            else:
                search.sample(drawn, seed=title)
        except BaseException:
            self._forget(kind)
            raise
        print(f"{title}: {search.report}")
        return search.report

    def close(self) -> None:
        for kind in list(self._made):
            self._forget(kind)

    def site(self, kind: str) -> tuple[Site, Stepper]:
        """Give one, with its sessions."""
        if kind not in self._made:
            url = migrated_database(self._services, "postgresql", self._directory)
            options = {
                "old": "no old" not in kind,
                "shared": "shared" in kind,
                "suspended": "suspended" in kind,
                "let_go": "let go" in kind,
            }
            self._made[kind] = (url, Site(url, **options), Stepper(url, 3))
        return self._made[kind][1:]

    def _forget(self, kind: str) -> None:
        url, site, stepper = self._made.pop(kind)
        stepper.abandon()
        stepper.close()
        site.close()
        drop_database(self._services, url)


@pytest.fixture(scope="module")
def sites(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Catalogues for the tests of one file, without the pauses of retries."""
    made = Sites(services, tmp_path_factory.mktemp("interleavings"))
    with no_pauses():
        yield made
        made.close()
