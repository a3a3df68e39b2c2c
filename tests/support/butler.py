"""Arrivals of files on disk, and what a repository says afterwards, for tests of the ingest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from lsst.daf.butler import DatasetRef

from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.models import ArrivalFile, Outcome

DAY = 20241108
RUN = "LSSTComCam/raw/all"
COMCAM_FIRST = {"instrument": "LSSTComCam", "exposure": 2024110800266, "detector": 0}


def arrivals(root: Path, paths: Sequence[Path], *, first_id: int = 1) -> list[ArrivalFile]:
    """Return the arrivals of files under a storage element's root."""
    return [
        ArrivalFile(
            id=number,
            fence=1,
            scope="raw",
            name=path.relative_to(root).as_posix(),
            rse="IN2P3_RAW_DISK",
            uri=path.as_uri(),
            bytes=path.stat().st_size,
        )
        for number, path in enumerate(paths, start=first_id)
    ]


def codes(outcomes: Sequence[Outcome]) -> Counter[str]:
    """Count outcomes by their code, or their state where they have none."""
    return Counter(outcome.code or str(outcome.state) for outcome in outcomes)


def datasets(repository: str) -> list[DatasetRef]:
    """Return the raws of a repository."""
    with open_repository(repository) as butler:
        return butler.query_datasets("raw", collections=RUN, limit=None, explain=False)


def exposures(repository: str) -> dict[int, dict[str, Any]]:
    """Return the exposure records of a repository, by id."""
    with open_repository(repository) as butler:
        records = butler.query_dimension_records(
            "exposure", instrument="LSSTComCam", limit=None, explain=False
        )
        return {record.id: record.toDict() for record in records}


def registry_url(database_url: str, directory: Path, patch: pytest.MonkeyPatch) -> str:
    """Give the URL for a Butler registry, its password where the Butler looks for it."""
    url = sqlalchemy.make_url(database_url)
    auth = directory / "db-auth.yaml"
    auth.write_text(
        f"- url: postgresql://{url.host}:{url.port}/{url.database}\n"
        f"  username: {url.username}\n"
        f"  password: '{url.password}'\n"
    )
    auth.chmod(0o600)
    patch.setenv("LSST_DB_AUTH", str(auth))
    return f"postgresql://{url.host}:{url.port}/{url.database}"
