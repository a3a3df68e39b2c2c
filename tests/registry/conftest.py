"""Fixtures of the registry's tests."""

from support.in_process import catalogue, postgresql_catalogue
from support.server import registry

__all__ = ["catalogue", "postgresql_catalogue", "registry"]
