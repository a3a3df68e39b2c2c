"""Fixtures of the system tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.laptop import DESTINATION, SOURCE, Laptop, laptop
from support.services import Services


@pytest.fixture(scope="module")
def running(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One `arriero up` for a module, between two XRootD servers."""
    directory: Path = tmp_path_factory.mktemp("laptop")
    servers = {SOURCE: services.xrootd_slac, DESTINATION: services.xrootd_in2p3}
    with laptop(directory, servers) as made:
        yield made
