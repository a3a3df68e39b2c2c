"""Lines made from templates say exactly what the list says, whatever the names, states and protocols."""

from __future__ import annotations

import itertools
import json

import pytest
from sqlalchemy import update

from arriero.registry.schema.tables import replicas, rse_protocols
from arriero.registry.services import replica_lines
from arriero.registry.services.replica_lines import list_replica_lines
from arriero.registry.services.replica_lists import ReplicaQuery, list_replicas

NAMES = [
    "plain.fits",
    "plain2.fits",
    "a/b/plain3.fits",
    "with space",
    "100%",
    "%s%d",
    'quo"te',
    "ünïcode",
    "semi;colon",
    "plus+equal=",
    "~tilde",
]


@pytest.fixture
def site(catalogue):
    catalogue.scope("raw")
    for name, algorithm in (("HASH", "hash"), ("SAME", "identity"), ("BUTLER", "lsst_butler")):
        catalogue.rse(name, algorithm=algorithm)
        catalogue.files(name, NAMES)
    catalogue.rse("FREE", deterministic=False)
    for number, name in enumerate(("free1", "free2")):
        catalogue.files("FREE", [name], pfn=f"davs://dav.example.org:1094/FREE/x{'%20' * number}y/{name}")
    # its beginning is the beginning of another: which PFN comes first depends on the path
    catalogue.rse("NESTED", algorithm="identity")
    catalogue.files("NESTED", NAMES[:4], adler32=None)
    catalogue.files("HASH", ["nosum"], adler32=None, md5="0" * 32)
    catalogue.dataset("all", [*NAMES, "free1", "free2", "nosum"])
    with catalogue.database.transaction() as connection:
        nested = rse_protocols.c.prefix == "/NESTED"
        connection.execute(update(rse_protocols).where(nested).values(prefix="/HASH/raw"))
        connection.execute(update(replicas).where(replicas.c.file_id % 4 == 0).values(state="COPYING"))
        connection.execute(update(replicas).where(replicas.c.file_id % 5 == 0).values(state="BAD"))
    return catalogue


ASKED = (
    {},
    {"all_states": True},
    {"rse_expression": "HASH|SAME"},
    {"schemes": frozenset({"root"})},
    {"domain": "all", "limit": 1},
    {"resolve_parents": True},
    {"sort": "geoip"},
)


def test_lines_are_the_list(site, monkeypatch):
    for most, options in itertools.product((0, 1, 1000), ASKED):
        monkeypatch.setattr(replica_lines, "_MOST_TEMPLATES", most)
        query = ReplicaQuery([("raw", "all"), ("raw", "plain.fits")], **options)
        lines = b"".join(list_replica_lines(site.context, query)).decode().splitlines()
        expected = list(list_replicas(site.context, query))
        assert [json.loads(line) for line in lines] == expected, options
        # the order of the keys is the order of preference
        assert [list(json.loads(line)["pfns"]) for line in lines] == [list(row["pfns"]) for row in expected]
        assert len(lines) == len(NAMES) + 3


def test_nothing_is_no_line(site):
    site.dataset("empty")
    assert list(list_replica_lines(site.context, ReplicaQuery([("raw", "empty")]))) == []
