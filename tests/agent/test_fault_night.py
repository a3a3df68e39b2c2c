"""A night with everything that goes wrong at once: it ends with each file in the Butler, or with the reason why not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from arriero.agent.ingest.butler_repository import open_repository
from arriero.registry.client import RegistryClient
from support.agents import start_agent, working
from support.butler import DAY
from support.exposures import write_exposure
from support.faults import assert_agreed, chance, exposures_told, findings, hurry, visits
from support.installation import wait_until
from support.ledger_site import RSE, LedgerSite
from support.products import Source
from support.server import registry

__all__ = ["registry"]

FIRST, EXPOSURES = 250, 24
WITH_PRODUCTS, ODD_FILTER, TWICE, NO_INDEX, POISONED = 266, 300, 251, 301, 302

Step = Callable[[], object]


class Night:
    """What is sent, in what order, and what has to become of it."""

    def __init__(self, site: LedgerSite, source: Source, random: Random) -> None:
        self.site = site
        self.random = random
        self.wanted: dict[str, str] = {}
        """State of each file in the end."""
        self.orders: list[list[Step]] = []
        """What is done in its order; one beside the other."""
        self.numbers = [*range(FIRST, FIRST + EXPOSURES), ODD_FILTER]
        self._raws()
        self._odd_ones()
        self._products(source)

    def name(self, path: Path) -> str:
        return path.relative_to(self.site.root).as_posix()

    def _want(self, paths: list[Path], state: str) -> None:
        self.wanted.update((self.name(path), state) for path in paths)

    def _written(self, number: int, folder: str = "night", **options: object) -> list[Path]:
        return write_exposure(self.site.root / folder, DAY, number, shape=(2, 2), **options)

    def _sent(self, paths: list[Path]) -> Step:
        return lambda: self.site.land(paths)

    def _raws(self) -> None:
        """Raws in pieces of any size, some of them told of twice."""
        self.raws = [path for number in self.numbers[:-1] for path in self._written(number)]
        self._want(self.raws, "ingested")
        left = self.random.sample(self.raws, len(self.raws))
        while left:
            piece = [left.pop() for _ in range(min(len(left), self.random.randint(1, 40)))]
            self.orders.append([self._sent(piece)] * self.random.choice([1, 1, 1, 2]))

    def _odd_ones(self) -> None:
        """A filter that is registered later, an exposure that comes twice, and one poison in 200."""
        odd = self._written(ODD_FILTER, header={"FILTER": "n921"})
        self._want(odd, "ingested")
        self.orders.append([self._sent(odd), self._register_filter])
        again = self._written(TWICE, folder="again", seed=1)
        cut = self._written(NO_INDEX, index=False, detectors=range(8))
        cut[3].write_bytes(b"\0" * cut[3].stat().st_size)
        self._want(cut, "ingested")
        self._want(cut[3:4], "failed")
        refused = self._written(POISONED, detectors=[0], header={"MAXINDEX": 2**70})
        self._want(refused, "failed")
        self.orders += [[self._sent(cut)], [self._sent(refused)]]
        # whichever of the two comes first is the one that counts: have it be the same each time
        self._want(again, "failed")
        self.last = self._sent(again)

    def _register_filter(self) -> None:
        with open_repository(self.site.repository, writeable=True) as butler:
            record = {"instrument": "LSSTComCam", "name": "n921", "band": "n"}
            butler.registry.insertDimensionData("physical_filter", record)

    def _products(self, source: Source) -> None:
        """Products that come before their exposure is known, half of them before anybody says what they are."""
        folder = self.site.root / "products"
        folder.mkdir()
        self.products: dict[str, dict[str, object]] = {}
        for detector in range(6):
            file, _ = source.make(detector, records=False)
            path = folder / f"metrics_{detector}.yaml"
            path.write_bytes((source.root / path.name).read_bytes())
            self.products[self.name(path)] = dict(file.meta)
            steps = [self._sent([path]), self._described(path)]
            self.orders.append(steps if detector % 2 else steps[::-1])
            self._want([path], "ingested")

    def _described(self, path: Path) -> Step:
        name = self.name(path)

        def describe() -> None:
            if name in self.site.ledger():
                self.site.client.set_metadata_bulk("raw", name, self.products[name])
            else:
                [file] = self.site.described([path])
                self.site.client.add_replicas(RSE, [{**file, "meta": self.products[name]}])

        return describe

    def steps(self) -> Iterator[Step]:
        """All that is done, in an order that chance makes."""
        orders = [list(order) for order in self.orders]
        while orders:
            order = self.random.choice(orders)
            yield order.pop(0)
            if not order:
                orders.remove(order)

    def raws_are_in(self) -> bool:
        hurry(self.site, "pending", "parked")
        ledger = self.site.ledger()
        return all(ledger[self.name(path)].state == "ingested" for path in self.raws)

    def as_wanted(self) -> bool:
        hurry(self.site, "pending", "parked")
        return {name: one.state for name, one in self.site.ledger().items()} == self.wanted

    def difference(self) -> list[tuple[str, str, str | None, str | None]]:
        ledger = self.site.ledger()
        return [
            (name, state, ledger[name].state if name in ledger else None, ledger[name].reason)
            for name, state in self.wanted.items()
            if name not in ledger or ledger[name].state != state
        ]


@pytest.fixture
def night(registry, repository, source, tmp_path) -> Night:
    (tmp_path / "storage").mkdir()
    return Night(LedgerSite(registry, repository, tmp_path / "storage"), source, chance())


def replace(paths: list[Path]) -> dict[Path, bytes]:
    """Have other bytes be where files were; give what was there."""
    were = {path: path.read_bytes() for path in paths}
    for path, content in were.items():
        path.write_bytes(content + bytes(2880))
    return were


def declare(client: RegistryClient, names: list[str], state: str) -> None:
    files = [{"scope": "raw", "name": name, "state": state} for name in names]
    client._call("PUT", "/replicas", body={"rse": RSE, "files": files})


def test_a_night_of_all_faults_ends_well(night):
    site, random = night.site, night.random
    steps = list(night.steps())
    dies_at, comes_at = sorted(random.sample(range(len(steps)), 2))
    others = [start_agent(site, None, "--batch", "9", "--lease-s", "1")]
    with working(site.repository, site.agent, batch=20):
        for number, step in enumerate(steps):
            if number == dies_at:
                os.kill(others[0].pid, signal.SIGKILL)
            if number == comes_at:
                others.append(start_agent(site, None, "--batch", "9", "--lease-s", "1"))
            step()
        wait_until(night.raws_are_in, "the raws are in", instead=night.difference)
        night.last()
        wait_until(night.as_wanted, "each file is where it has to be", instead=night.difference)
        whole = {DAY * 100_000 + number for number in night.numbers}
        wait_until(lambda: whole <= exposures_told(site), "whole exposures are told")

        assert visits(site) == whole
        ledger = site.ledger()
        codes = Counter(one.code for one in ledger.values() if one.state == "failed")
        assert codes == {"replaced_file": 9, "malformed_fits": 1, "butler_refused": 1}
        raws = {
            one.dataset_id
            for name, one in ledger.items()
            if one.state == "ingested" and name.endswith("fits")
        }
        assert raws == site.in_butler()
        assert_agreed(site)

        # sent once more: the same, and other bytes under the same names
        some = random.sample(night.raws, 6)
        for path in some[:3]:
            path.write_bytes(path.read_bytes())
        site.land(some[:3])
        were = replace(some[3:])
        names = [night.name(path) for path in some[3:]]
        assert {one.name for one in findings(site, mend=True)} == set(names)
        wait_until(
            lambda: {site.ledger()[name].code for name in names} == {"size_differs"}, "they are not believed"
        )
        assert_agreed(site)
        for path, content in were.items():
            path.write_bytes(content)
        declare(site.client, names, "TEMPORARY_UNAVAILABLE")
        declare(site.client, names, "AVAILABLE")
        wait_until(night.as_wanted, "the right ones are believed again", instead=night.difference)
        assert {name: one.dataset_id for name, one in site.ledger().items()} == {
            name: one.dataset_id for name, one in ledger.items()
        }, "under their own ids"
    assert_agreed(site)
    for process in others:
        process.terminate()
        process.join(30)
