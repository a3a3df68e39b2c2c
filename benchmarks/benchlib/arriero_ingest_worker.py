"""Who writes into a Butler in the benchmark of ingest: Arriero's agent, and the Butler's own API as others call it.

usage: arriero_ingest_worker.py ROOT

The files' names are below ROOT. Repositories are opened before a clock runs.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from lsst.daf.butler import Butler, DataCoordinate, DatasetIdGenEnum, DatasetRef, FileDataset
from lsst.resources import ResourcePath

from arriero.agent.arrivals import BATCH, IngestWorker
from arriero.agent.butler_contents import ButlerContents
from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_repository import create_repository, open_repository
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.ingest.instrument import load_instrument
from arriero.agent.ingest.models import ArrivalFile, Outcome
from arriero.agent.ingest.tai import TaiSpan
from arriero.agent.wake import Waker
from arriero.registry.client import RegistryClient
from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch

ROOT = Path(sys.argv[1])
RUN = "LSSTComCam/raw/all"
INSTRUMENT = load_instrument("LSSTComCam")
LOOK_S = 0.003
"""How often a reader looks, seconds."""

Raws = Sequence[Mapping[str, Any]]


class _Kept:
    """What the worker keeps between commands."""

    butler: Butler | None = None
    agent: "_Agent | None" = None


def create(
    repository: str, registry_db: str | None, namespace: str | None, instrument: str = INSTRUMENT.name
) -> str:
    """Make a repository for an instrument."""
    return create_repository(repository, instrument, registry_db=registry_db, namespace=namespace)


def open_butler(repository: str) -> None:
    """Open a repository for what others do."""
    close_butler()
    _Kept.butler = open_repository(repository, writeable=True)


def close_butler() -> None:
    """Let go of it."""
    if _Kept.butler is not None:
        _Kept.butler.close()
    _Kept.butler = None


def _butler() -> Butler:
    assert _Kept.butler is not None
    return _Kept.butler


class _Counted:
    """The registry, which tells when so many arrivals have been settled."""

    def __init__(self, client: RegistryClient) -> None:
        self.client = client
        self.stop = threading.Event()
        self.outcomes: dict[str, int] = {}
        self.memory: list[tuple[int, float]] = []
        self._wanted: int | None = 0

    def want(self, count: int | None) -> None:
        """Stop after so many, or with None when there is nothing to claim."""
        self.stop.clear()
        self.outcomes, self.memory, self._wanted = {}, [], count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def claim_arrivals(self, *asked: Any) -> list[ArrivalFile]:
        files = self.client.claim_arrivals(*asked)
        if not files and self._wanted is None:
            self.stop.set()
        return files

    def report_arrivals(self, outcomes: Sequence[Outcome]) -> list[int]:
        rejected = self.client.report_arrivals(outcomes)
        for outcome in outcomes:
            self.outcomes[outcome.state] = self.outcomes.get(outcome.state, 0) + 1
        settled = sum(self.outcomes.values())
        self.memory.append((settled, _resident_mb()))
        if self._wanted is not None and settled >= self._wanted:
            self.stop.set()
        return rejected


class _Agent:
    """What `arriero agent run --butler` runs, made once and warm."""

    def __init__(self, url: str, token: str, butler: str, *, visits: bool) -> None:
        self.queue = _Counted(RegistryClient(url, token=token))
        known = self.queue.butler(butler)
        instrument = INSTRUMENT if visits else INSTRUMENT.model_copy(update={"visits": None})
        self._writer = ButlerWriter(known.uri, [instrument])
        self._waker = Waker(self.queue.client, butler, lambda: ButlerContents(known.uri))
        self._butler = butler

    def work(self, count: int | None, *, batch: int = BATCH) -> None:
        self.queue.want(count)
        name = f"bench/{os.getpid()}"
        wait_s = 3.0 if count is not None else 0.0
        worker = IngestWorker(
            self.queue, self._writer, self._butler, name, batch=batch, wait_s=wait_s, waker=self._waker
        )
        worker.run(self.queue.stop)

    def close(self) -> None:
        self._waker.close()
        self._writer.close()


def agent(url: str, token: str, butler: str, *, visits: bool) -> None:
    """Make an agent."""
    dismiss()
    _Kept.agent = _Agent(url, token, butler, visits=visits)


def dismiss() -> None:
    """End it."""
    if _Kept.agent is not None:
        _Kept.agent.close()
    _Kept.agent = None


def warm_up(count: int) -> None:
    """Ingest a few files."""
    assert _Kept.agent is not None
    _Kept.agent.work(count, batch=count)


def work(count: int | None) -> dict[str, object]:
    """Claim, ingest and report until so many arrivals are settled, or with None until there is nothing to claim."""
    assert _Kept.agent is not None
    watch = Stopwatch()
    with watch:
        _Kept.agent.work(count)
    queue = _Kept.agent.queue
    settled = sum(queue.outcomes.values())
    return watch.report(settled, outcomes=queue.outcomes, memory=queue.memory)


def write(raws: Raws, repository: str, batch: int) -> dict[str, object]:
    """Ingest with the agent's writer alone: no ledger."""
    files = [
        ArrivalFile(
            id=number,
            fence=1,
            scope="raw",
            name=raw["name"],
            rse="BENCH",
            uri=(ROOT / raw["name"]).as_uri(),
            bytes=raw["bytes"],
        )
        for number, raw in enumerate(raws)
    ]
    writer = ButlerWriter(repository, [INSTRUMENT.model_copy(update={"visits": None})])
    warm, rest = files[:9], files[9:]
    writer.ingest(warm)
    watch, ingested = Stopwatch(), 0
    with watch:
        for start in range(0, len(rest), batch):
            outcomes = writer.ingest(rest[start : start + batch])
            ingested += sum(outcome.state == "ingested" for outcome in outcomes)
    writer.close()
    return watch.report(len(rest), ingested=ingested)


def bare(raws: Raws) -> dict[str, object]:
    """Ingest everything in one call, in one transaction with its dimension records; references are made before."""
    described = list(_described(raws))
    datasets, watch = _datasets(described), Stopwatch()
    with watch, _butler().transaction():
        _insert(described)
        _butler().ingest(*datasets, transfer="direct")
    return watch.report(len(raws))


def insert_records(raws: Raws) -> None:
    """Insert what `butler ingest-files` wants to find."""
    with _butler().transaction():
        _insert(list(_described(raws)))


def one_by_one(raws: Raws) -> dict[str, object]:
    """Ingest an exposure a transaction, its records synchronised one by one as ``RawIngestTask`` of obs_base does."""
    exposures: dict[int, list[tuple[Mapping[str, Any], Any]]] = {}
    for raw, description in _described(raws):
        exposures.setdefault(raw["exposure"], []).append((raw, description))
    prepared = [(files[0][1].records, _datasets(files)) for files in exposures.values()]
    watch, butler = Stopwatch(), _butler()
    order = [element.name for element in butler.dimensions.sorted(prepared[0][0])]
    for records, datasets in prepared:
        values = {element: _values(records[element]) for element in order}
        with watch, butler.transaction():
            for element in order:
                butler.registry.syncDimensionData(element, values[element])
            butler.ingest(*datasets, transfer="direct")
    return watch.report(len(raws))


def _described(raws: Raws) -> Iterator[tuple[Mapping[str, Any], Any]]:
    indexes: dict[Path, Any] = {}
    for raw in raws:
        path = ROOT / raw["name"]
        if path.parent not in indexes:
            indexes[path.parent] = json.loads((path.parent / "_index.json").read_text())
        index = indexes[path.parent]
        yield raw, INSTRUMENT.describe({**index["__COMMON__"], **index[path.name]})


def _insert(described: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
    butler = _butler()
    by_element: dict[str, dict[tuple[object, ...], Any]] = {}
    for _, description in described:
        for element, columns in description.records.items():
            record = butler.dimensions[element].RecordClass(**_values(columns))
            by_element.setdefault(element, {})[tuple(record.dataId.required_values)] = record
    for element in butler.dimensions.sorted(by_element):
        rows = by_element[element.name].values()
        butler.registry.insertDimensionData(element, *rows, skip_existing=True)


def _values(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: private.timespan(value) if isinstance(value, TaiSpan) else value
        for name, value in columns.items()
    }


def _datasets(described: Sequence[tuple[Mapping[str, Any], Any]]) -> list[FileDataset]:
    dataset_type = _butler().get_dataset_type("raw")
    datasets = []
    for raw, description in described:
        data_id = description.data_ids[0]
        values = tuple(data_id[name] for name in dataset_type.dimensions.required)
        ref = DatasetRef(
            dataset_type,
            DataCoordinate.from_required_values(dataset_type.dimensions, values),
            run=RUN,
            id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN,
        )
        datasets.append(FileDataset(ResourcePath((ROOT / raw["name"]).as_uri()), [ref]))
    return datasets


def count(repository: str, instrument: str = INSTRUMENT.name) -> dict[str, int]:
    """Count the datasets of an instrument's raws and companions in a repository, and its visits."""
    with open_repository(repository) as butler:
        datasets = {
            ref.id
            for kind in load_instrument(instrument).kinds
            for ref in butler.query_datasets(
                kind.dataset_type.name, collections=kind.dataset_type.run, limit=None, explain=False
            )
        }
        visits = butler.query_dimension_records("visit", instrument=instrument, limit=None, explain=False)
        return {"datasets": len(datasets), "visits": len(visits)}


def await_get(raw: Mapping[str, Any], patience_s: float) -> float:
    """Read one raw as soon as the repository has it; gives the time of day at which it was read."""
    butler, deadline = _butler(), time.monotonic() + patience_s
    [dataset] = _datasets(list(_described([raw])))
    # by its id: it is the cheapest question, and who asks takes nothing from those who are measured
    while butler.get_dataset(dataset.refs[0].id) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{raw['name']} is not there after {patience_s} s")
        time.sleep(LOOK_S)
    data_id = {"instrument": INSTRUMENT.name, "exposure": raw["exposure"], "detector": raw["detector"]}
    hdus = butler.get("raw", data_id, collections=RUN)
    if hdus[0].header["CCDSLOT"] != f"S{raw['detector'] // 3}{raw['detector'] % 3}":
        raise ValueError(f"{data_id} is another file")
    return time.time()


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@contextmanager
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield


if __name__ == "__main__":
    with _quiet():
        serve(
            {
                "create": create,
                "open": open_butler,
                "close": close_butler,
                "agent": agent,
                "dismiss": dismiss,
                "warm_up": warm_up,
                "work": work,
                "write": write,
                "bare": bare,
                "insert_records": insert_records,
                "one_by_one": one_by_one,
                "count": count,
                "await_get": await_get,
            }
        )
