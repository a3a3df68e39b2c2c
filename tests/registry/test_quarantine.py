"""Files that a site finds and that the catalogue does not know: they are written down, once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.schema.tables import quarantined_replicas
from arriero.registry.services import quarantine

RSE = "SLAC_RAW_DISK"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    return catalogue


def test_what_the_catalogue_knows_is_not_dark(site):
    site.files(RSE, ["a"])
    found = [quarantine.Found("/raw/a"), quarantine.Found("/raw/b")]
    assert quarantine.quarantine(site.context, site.root, found, rse=RSE) == 1
    assert [row["path"] for row in site.rows(select(quarantined_replicas))] == ["raw/b"]


def test_dark_files_are_written_down_once(site):
    site.rse("TAPE", deterministic=False)
    site.files("TAPE", ["known"], pfn="davs://dav.example.org:1094/TAPE/known.fits")
    found = [quarantine.Found("/dark/1", bytes=3), quarantine.Found("dark/1"), quarantine.Found("known.fits")]
    assert quarantine.quarantine(site.context, site.root, found, rse="TAPE") == 1
    assert quarantine.quarantine(site.context, site.root, found, rse_id="2") == 0
    assert [row["path"] for row in site.rows(select(quarantined_replicas))] == ["dark/1"]
    for wrong in ({"rse": "NOWHERE"}, {"rse_id": "9"}):
        with pytest.raises(NotFound):
            quarantine.quarantine(site.context, site.root, found, **wrong)
    for wrong in ({}, {"rse": "TAPE", "rse_id": "2"}):
        with pytest.raises(InvalidInput):
            quarantine.quarantine(site.context, site.root, found, **wrong)
    with pytest.raises(InvalidInput):
        quarantine.quarantine(site.context, site.root, [quarantine.Found("../x")], rse="TAPE")
