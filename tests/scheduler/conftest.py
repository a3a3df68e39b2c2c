"""A catalogue with the schema on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from arriero.registry.states import DidType
from support.database import migrated_database
from support.scheduling import Catalogue
from support.services import drop_database


@pytest.fixture
def catalogue(services, database_kind, tmp_path) -> Iterator[Catalogue]:
    url = migrated_database(services, database_kind, tmp_path)
    made = Catalogue(url)
    yield made
    made.close()
    drop_database(services, url)


@pytest.fixture
def two_sites(catalogue):
    """SLAC with files, IN2P3 without."""
    slac = catalogue.rse("SLAC", attributes={"site": "slac"})
    in2p3 = catalogue.rse("IN2P3", attributes={"site": "in2p3"})
    return slac, in2p3


@pytest.fixture
def five_rses(catalogue):
    slac = catalogue.rse("SLAC")
    return slac, [
        catalogue.rse(f"T{number}", attributes={"tier": "2", "lfn2pfn_algorithm": "identity"})
        for number in range(4)
    ]


@pytest.fixture
def nested(catalogue, five_rses):
    """Three datasets in two containers in one: the outermost, and the datasets."""
    slac, _ = five_rses
    sets = [
        catalogue.collection(f"set{number}", children=catalogue.files(8, prefix=f"s{number}", at=[slac]))
        for number in range(3)
    ]
    inner = catalogue.collection("inner", DidType.CONTAINER, children=sets[:2])
    other = catalogue.collection("other", DidType.CONTAINER, children=sets[2:])
    return catalogue.collection("outer", DidType.CONTAINER, children=[inner, other]), sets
