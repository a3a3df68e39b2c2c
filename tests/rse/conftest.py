"""Fixtures of the storage tests."""

from support.rse_copies import bad, folder, in2p3, pool, slac

__all__ = ["bad", "folder", "in2p3", "pool", "slac"]
