"""Fixtures of the conformance tests."""

from support.official import client, official

__all__ = ["client", "official"]
