"""Fixtures that every test may use."""

from support.quick import quick
from support.services import (
    database_kind,
    database_url,
    empty_database,
    pytest_collection_modifyitems,
    services,
)

__all__ = [
    "database_kind",
    "database_url",
    "empty_database",
    "pytest_collection_modifyitems",
    "quick",
    "services",
]
