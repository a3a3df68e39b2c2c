"""How long one small file takes from a person's rule to AVAILABLE when nothing else happens, with all processes of production."""

import json
import time
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from benchlib import data
from benchlib.installation import installation
from benchlib.report import Sample
from benchlib.rules_found import Found, require
from benchlib.rules_sides import OURS
from benchlib.transfers_ours import DESTINATION, SOURCE, Crew, add_files, set_up
from benchlib.transfers_storage import Pair, clear, lay, verify
from benchlib.wire import Wire

WORK = "rule add to AVAILABLE, ms"
FOLDER = f"{data.SCOPE}/latency"
WARM = 2
"""Rules before the first that counts: processes begin to work with their first one."""

LOOK_S = 0.004
PATIENCE_S = 60.0


def measure_latency(
    crew: Crew, broker_url: str, pair: Pair, directory: Path, *, rules: int, size: int, found: Found
) -> None:
    """Add rules on one file each, one after the other."""
    files, url = lay(pair.source, FOLDER, WARM + rules, size), crew.begin(ca_bundle=pair.ca_bundle)
    set_up(crew.first, pair)
    add_files(crew.first, files, SOURCE)
    pauses = Random(1)  # noqa: S311 - so that they do not keep step with the sweeps
    with (
        installation(url, broker_url, crew.credentials, directory) as server_url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        service = _Rules(server_url)
        service.log_in()
        for number, name in enumerate(files.adler32):
            seconds = _one(service, connection, f"{FOLDER.partition('/')[2]}/{name}")
            if number >= WARM:
                found.keep(WORK, 1, OURS, Sample(1000 * seconds))
            time.sleep(pauses.uniform(0.3, 0.9))
    verify(pair.destination, files, FOLDER)
    clear(pair.destination)
    clear(pair.source, FOLDER)


def _one(service: "_Rules", connection: psycopg.Connection[Any], name: str) -> float:
    """Add a rule on a file and wait for it; gives the seconds."""
    file_id, rse_id = _ids(connection, name)
    query = "SELECT state FROM replicas WHERE file_id = %s AND rse_id = %s"
    service.hang_up()
    began = time.perf_counter()
    service.add(name)
    while True:
        row = connection.execute(query, [file_id, rse_id]).fetchone()
        seconds = time.perf_counter() - began
        if row is not None and row[0] == "AVAILABLE":
            return seconds
        require(seconds < PATIENCE_S, f"{name} is {row} {seconds:.0f} s after its rule was added")
        time.sleep(LOOK_S)


def _ids(connection: psycopg.Connection[Any], name: str) -> tuple[int, int]:
    query = "SELECT d.id, r.id FROM dids d, rses r WHERE d.name = %s AND r.name = %s"
    row = connection.execute(query, [name, DESTINATION]).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


class _Rules(Wire):
    """A client that adds rules."""

    def add(self, name: str) -> None:
        rule = {
            "dids": [{"scope": data.SCOPE, "name": name}],
            "account": "root",
            "copies": 1,
            "rse_expression": DESTINATION,
        }
        self._call("POST", "/rules/", json.dumps(rule).encode()).read()
