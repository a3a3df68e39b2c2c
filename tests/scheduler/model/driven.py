"""Machines that do the same each time they are run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import NAMESPACE_OID, uuid5

import pytest

from arriero.registry.services import rules
from scheduler.model.drivers import Services
from scheduler.model.machine import Machine


@contextmanager
def driven(system: Services) -> Iterator[type[Machine]]:
    """Give the machine on a system, with ids of rules that follow from the example: ties are broken by them."""
    with pytest.MonkeyPatch.context() as patch:

        class Driven(Machine):
            def __init__(self) -> None:
                super().__init__()
                numbers = itertools.count()
                patch.setattr(rules, "uuid4", lambda: uuid5(NAMESPACE_OID, f"{self.chance} {next(numbers)}"))

        Driven.system = system
        yield Driven
