"""What is measured of Arriero alone: rules that the peer would take hours for, in seconds."""

from dataclasses import dataclass

from benchlib import rules_data
from benchlib.report import Sample
from benchlib.rules_fill import fill, fill_container
from benchlib.rules_found import Found, require, say
from benchlib.rules_sides import OURS, TEMPLATE, CoreSide, arriero, bare_rows, calm
from benchlib.sides import recreate
from benchlib.worker import Worker

DATA = "bench_rules_large_data"
DATASET, CONTAINER = "large", "night"
FEW = 100
"""Files appended as an exposure's are."""
SMALL_FILES = 10


@dataclass
class Large:
    """Sizes."""

    files: int
    datasets: int
    per_dataset: int
    appended: int
    rounds: int
    small_rules: int = 5
    pause_s: float = 1.0
    """Before each of them."""


def measure_large(worker: Worker, admin_url: str, large: Large, found: Found) -> None:
    """Measure a large rule, what is appended under it, a large container, and a small rule beside a large one.

    Each on a new copy of the same data.
    """
    say(f"{large.files:>9,}: files are laid")
    worker.do("let_go")
    _lay(admin_url, large)
    for _ in range(large.rounds):
        _one_dataset(worker, admin_url, large, found)
        _container(worker, admin_url, large, found)
        _fairness(worker, admin_url, large, found)


def _lay(admin_url: str, large: Large) -> None:
    url = recreate(admin_url, DATA, template=TEMPLATE)
    fill(url, DATASET, large.files, dataset=DATASET)
    fill_container(url, DATASET, CONTAINER, datasets=large.datasets, files=large.per_dataset)
    fill(url, "many", 3 * large.appended)
    fill(url, "few", 3 * FEW)
    for number in range(large.small_rules):
        fill(url, f"small{number}", SMALL_FILES, dataset=f"small{number}")
    calm(admin_url, url)


def _one_dataset(worker: Worker, admin_url: str, large: Large, found: Found) -> None:
    side, _ = arriero(worker, admin_url, "bench_rules_large", template=DATA)
    side.calm()
    answer, sample = side.do(
        "new_rule", dataset=DATASET, expression=rules_data.DESTINATION, count=large.files
    )
    _check(side, answer["rule"], large.files)
    found.keep("new rule, one missing copy", large.files, OURS, sample)
    growth = max(answer["client_rss_mb"] - answer["rss_before_mb"], 0.1)
    found.keep("growth of the worker, MB", large.files, OURS, Sample(growth))
    expected = large.files
    for work, prefix, count in (
        ("evaluate what is appended", "many", large.appended),
        ("evaluate a few that are appended", "few", FEW),
    ):
        side.calm()
        for turn in range(3):
            _, sample = side.do("append", prefix=prefix, start=turn * count, count=count, dataset=DATASET)
            expected += count
            _check(side, answer["rule"], expected)
            found.keep(work, large.files, OURS, sample)
    worker.do("let_go")
    bare = recreate(admin_url, "bench_rules_large", template=DATA)
    found.keep("new rule, one missing copy", large.files, "INSERT", bare_rows(admin_url, bare, DATASET))


def _container(worker: Worker, admin_url: str, large: Large, found: Found) -> None:
    files = large.datasets * large.per_dataset
    side, _ = arriero(worker, admin_url, "bench_rules_large", template=DATA)
    side.calm()
    answer, sample = side.do("new_rule", dataset=CONTAINER, expression=rules_data.ANYWHERE, count=files)
    _check(side, answer["rule"], files)
    found.keep("new rule on a container", files, OURS, sample)


def _fairness(worker: Worker, admin_url: str, large: Large, found: Found) -> None:
    side, _ = arriero(worker, admin_url, "bench_rules_large", template=DATA)
    side.calm()
    small = [f"small{number}" for number in range(large.small_rules)]
    answer = side.worker.do(
        "small_beside_large", large=DATASET, small=small, files=large.files, pause_s=large.pause_s
    )
    for wait in answer["waits"]:
        found.keep("wait of a small rule, s", large.files, OURS, Sample(wait))
    say(f"{answer['locks_meanwhile']:,} of {large.files:,} locks when the last small rule was evaluated")


def _check(side: CoreSide, rule: str, files: int) -> None:
    counts = side.worker.do("counts", rule=rule)
    expected = {
        "state": "REPLICATING",
        "ok": 0,
        "replicating": files,
        "stuck": 0,
        "locks": files,
        "requests": files,
    }
    require(counts == expected, f"{counts} instead of {expected}")
