"""The parts of an RSE expression, and how their values are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

_BOOLEANS = frozenset({"true", "false"})


class Comparison(StrEnum):
    """How a term compares an attribute with its value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="


class Operator(StrEnum):
    """How two sets become one."""

    UNION = "|"
    INTERSECTION = "&"
    DIFFERENCE = "\\"


@dataclass(frozen=True, slots=True)
class Everything:
    """`*`: all RSEs."""

    column: int


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison of an attribute with a value."""

    key: str
    comparison: Comparison
    value: str
    column: int
    """Where it stands in the expression, counted from 1."""


Step = Everything | Term | Operator


def canonical(value: str) -> str:
    """Booleans are one value however they are spelt; everything else is compared as written."""
    lowered = value.lower()
    return lowered if lowered in _BOOLEANS else value


def number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
