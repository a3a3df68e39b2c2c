"""LFN->PFN agrees with Rucio's algorithms."""

from __future__ import annotations

import pytest

from arriero.rse.errors import InvalidName, Unsupported
from arriero.rse.lfn2pfn import path_for

RAW = "LSSTCam/20250620/MC_O_20250620_000100/MC_O_20250620_000100_R22_S11.fits"


@pytest.mark.parametrize(
    ("algorithm", "scope", "name", "path"),
    [
        ("hash", "user.jdoe", "test/file.0001", "user/jdoe/7d/d6/test/file.0001"),
        (
            "hash",
            "data15_13TeV",
            "AOD.01234567._000001.pool.root.1",
            "data15_13TeV/e4/56/AOD.01234567._000001.pool.root.1",
        ),
        ("hash", "raw", RAW, f"raw/a3/70/{RAW}"),
        ("identity", "user.jdoe", "test/file.0001", "user/jdoe/test/file.0001"),
        ("identity", "group.rubin.phys", "a.b.c", "group/rubin/phys/a.b.c"),
        ("identity", "mc", "x__y__z.fits", "mc/x__y__z.fits"),
        ("lsst_butler", "raw", RAW, RAW),
        ("lsst_butler", "user.jdoe", "test/file.0001", "test/file.0001"),
    ],
)
def test_same_as_rucio(algorithm: str, scope: str, name: str, path: str) -> None:
    assert path_for(algorithm, scope, name) == path


@pytest.mark.parametrize("algorithm", ["hash", "identity", "lsst_butler"])
@pytest.mark.parametrize("name", ["../x", "a/../../b", "a//b", "a\0b"])
def test_no_name_leaves_the_prefix(algorithm: str, name: str) -> None:
    with pytest.raises(InvalidName):
        path_for(algorithm, "raw", name)


def test_unknown_algorithm_says_which_there_are() -> None:
    with pytest.raises(Unsupported, match="hash, identity, lsst_butler"):
        path_for("no_such", "raw", "f")
