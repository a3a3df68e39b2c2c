"""The RSEs that there are, as RSE expressions look at them: sets of RSEs, found by attribute and value."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import compress

from arriero.rse.expression_terms import Comparison, Term, canonical, number
from arriero.rse.types import RseInfo

_AS_NUMBERS = bytes.maketrans(b"01", b"\0\1")


class RseIndex:
    """The RSEs that there are, for many expressions: what one has asked for, the next finds again.

    Sets of RSEs are the bits of integers. Attributes that change afterwards may or may not be seen.

    Parameters
    ----------
    rses
        All of them; read once.
    """

    def __init__(self, rses: Iterable[RseInfo]) -> None:
        self._rses = tuple(rses)
        self._names = [rse.name for rse in self._rses]
        self._keys: frozenset[str] | None = None
        self._named: dict[str, int] | None = None
        self._values: dict[str, dict[str, int]] = {}
        self._steps: dict[str, tuple[list[float], list[int]]] = {}

    @property
    def everything(self) -> int:
        """All RSEs."""
        return (1 << len(self._names)) - 1

    def unknown(self, keys: Iterable[str]) -> set[str]:
        """Give those that are neither an RSE nor an attribute of one."""
        return {key for key in keys if not self._values_of(key)}

    def satisfying(self, term: Term) -> int:
        """Give the RSEs that satisfy one term."""
        if term.comparison is Comparison.EQUAL:
            return self._equal(term)
        if term.comparison is Comparison.NOT_EQUAL:
            return self.everything & ~self._equal(term)
        limit = number(term.value) or 0.0
        numbers, up_to = self._ordered(term.key)
        if term.comparison is Comparison.LESS:
            return up_to[bisect_left(numbers, limit)]
        if term.comparison is Comparison.LESS_OR_EQUAL:
            return up_to[bisect_right(numbers, limit)]
        if term.comparison is Comparison.GREATER:
            return up_to[-1] & ~up_to[bisect_right(numbers, limit)]
        return up_to[-1] & ~up_to[bisect_left(numbers, limit)]

    def names_in(self, mask: int) -> frozenset[str]:
        """Give the names of the RSEs in a set."""
        bits = bin(mask)[:1:-1].encode().translate(_AS_NUMBERS)
        return frozenset(compress(self._names, bits))

    def _equal(self, term: Term) -> int:
        return self._values_of(term.key).get(canonical(term.value), 0)

    def _values_of(self, key: str) -> dict[str, int]:
        """Give the RSEs that have each value of an attribute; an RSE's own name is an attribute that is true."""
        known = self._values.get(key)
        if known is not None:
            return known
        by_value: dict[str, int] = {}
        if key in self._attributes():
            for position, rse in enumerate(self._rses):
                if (value := rse.attributes.get(key)) is not None:
                    value = canonical(value)
                    by_value[value] = by_value.get(value, 0) | 1 << position
        if named := self._by_name().get(key):
            by_value["true"] = by_value.get("true", 0) | named
        # what clients misspell is not kept
        if by_value:
            self._values[key] = by_value
        return by_value

    def _attributes(self) -> frozenset[str]:
        if self._keys is None:
            self._keys = frozenset().union(*(rse.attributes for rse in self._rses))
        return self._keys

    def _by_name(self) -> dict[str, int]:
        if self._named is None:
            named: dict[str, int] = {}
            for position, name in enumerate(self._names):
                named[name] = named.get(name, 0) | 1 << position
            self._named = named
        return self._named

    def _ordered(self, key: str) -> tuple[list[float], list[int]]:
        """Give the numeric values of an attribute in order, and the RSEs below each of them."""
        if key not in self._steps:
            by_number: dict[float, int] = {}
            for value, mask in self._values_of(key).items():
                found = number(value)
                if found is not None:
                    by_number[found] = by_number.get(found, 0) | mask
            numbers = sorted(by_number)
            up_to = [0]
            for one in numbers:
                up_to.append(up_to[-1] | by_number[one])
            self._steps[key] = numbers, up_to
        return self._steps[key]
