r"""RSE expressions: which storage elements a rule means.

The grammar is Rucio's: names and attributes (`country=FR`, `tier<2`, a bare word = attribute that is true, and
an RSE's own name is such an attribute), `*` for all, `|` union, `&` intersection, `\` difference, parentheses;
all operators have equal precedence and are applied strictly from left to right. Besides there are `!=`, `>=`
and `<=`. `a!=b` is the same as `*\a=b`: it includes the RSEs that have no `a`.

Pure: no I/O, no clock. Neither parsing nor evaluation recurses, and the length is looked at before anything
else, because an expression comes from any client (Rucio 41.5 dies of 2,000 nested parentheses).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from typing_extensions import override

from arriero.rse.errors import EmptyExpression, InvalidExpression
from arriero.rse.types import RseInfo

MAX_LENGTH = 4096
"""Characters of an expression; Rucio's column for it holds 3,000."""

MAX_DEPTH = 32
"""Parentheses within parentheses."""

MAX_TERMS = 256
"""Names and comparisons in an expression."""

_TOKEN = re.compile(
    r"(?P<word>[A-Za-z0-9._:/@+-]+)|(?P<compare><=|>=|!=|=|<|>)|(?P<other>[|&\\()*])",
    re.ASCII,
)
_BLANK = re.compile(r"[ \t]*")
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


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: immutable, and cheap to evaluate many times."""

    text: str
    steps: tuple[Step, ...]
    """The expression in postfix order: each operator after its two operands."""

    def evaluate(self, rses: Iterable[RseInfo], *, allow_empty: bool = False) -> frozenset[str]:
        """Give the names of the RSEs that satisfy the expression.

        Parameters
        ----------
        rses
            All RSEs that there are (not only those that may be chosen: names are looked up among them).
        allow_empty
            Give an empty set instead of raising.

        Returns
        -------
        frozenset of str
            Names of RSEs.

        Raises
        ------
        InvalidExpression
            If a name in it is neither an RSE nor an attribute of one.
        EmptyExpression
            If no RSE satisfies it.
        """
        index = _Index.of(rses, {step.key for step in self.steps if isinstance(step, Term)})
        self._refuse_unknown(index)
        stack: list[int] = []
        for step in self.steps:
            if isinstance(step, Operator):
                right, left = stack.pop(), stack.pop()
                stack.append(_combined(step, left, right))
            else:
                stack.append(index.everything if isinstance(step, Everything) else index.satisfying(step))
        found = index.names_in(stack.pop())
        if not found and not allow_empty:
            raise EmptyExpression(
                f"No RSE satisfies {_shown(self.text)}; see 'arriero rse list' for names and attributes.",
                column=1,
            )
        return found

    def _refuse_unknown(self, index: _Index) -> None:
        unknown = {
            step.key: step.column
            for step in reversed(self.steps)
            if isinstance(step, Term) and step.key not in index.values
        }
        if unknown:
            names = ", ".join(repr(name[:60]) for name in sorted(unknown)[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            column = min(unknown.values())
            raise InvalidExpression(
                f"Column {column}: {names}{more} is neither an RSE nor an attribute of one; "
                "see 'arriero rse list' for names and attributes.",
                column=column,
            )

    @override
    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Expression:
    """Read an expression.

    Parameters
    ----------
    text
        The expression; blanks between its parts are ignored.

    Returns
    -------
    Expression
        Immutable, independent of any RSE.

    Raises
    ------
    InvalidExpression
        If it is not well-formed or exceeds the limits; `column` is where.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidExpression(
            f"The RSE expression has {len(text)} characters; at most {MAX_LENGTH} are read. "
            "Give the RSEs an attribute in common and name that.",
            column=MAX_LENGTH + 1,
        )
    return _Parser(text).parse()


class _Parser:
    """One pass over the tokens; nested parentheses are a list of pending operators, not calls."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.steps: list[Step] = []
        self.terms = 0
        self.pending: list[Operator | None] = [None]
        self.opened_at: list[int] = []

    def parse(self) -> Expression:
        """Alternate between operands and operators until the text ends."""
        while True:
            self._operand()
            if not self._operator():
                return Expression(self.text, tuple(self.steps))

    def _operand(self) -> None:
        while True:
            column, symbol = self._next()
            if symbol == "(":
                self._open(column)
                continue
            if symbol == "*":
                self._emit(Everything(column))
            elif symbol and symbol[0] not in "|&\\)=<>!":
                self._emit(self._term(symbol, column))
            else:
                raise self._expected("a name, '*' or '('", column, symbol)
            return

    def _operator(self) -> bool:
        while True:
            column, symbol = self._next()
            if symbol == ")":
                self._close(column)
            elif symbol and symbol in "|&\\":
                self.pending[-1] = Operator(symbol)
                return True
            elif not symbol and self.opened_at:
                opened = self.opened_at[-1]
                raise InvalidExpression(f"Column {opened}: this '(' is never closed.", column=opened)
            elif not symbol:
                return False
            else:
                raise self._expected("'|', '&', '\\', ')' or the end", column, symbol)

    def _term(self, key: str, column: int) -> Term:
        mark = self.position
        _, symbol = self._next()
        if not symbol or symbol[0] not in "=<>!":
            self.position = mark
            return Term(key, Comparison.EQUAL, "true", column)
        comparison = Comparison(symbol)
        value_column, value = self._next()
        if not value or value[0] in "|&\\()*=<>!":
            raise self._expected(f"a value after '{key[:60]}{symbol}'", value_column, value)
        if comparison not in {Comparison.EQUAL, Comparison.NOT_EQUAL} and _number(value) is None:
            raise InvalidExpression(
                f"Column {value_column}: {value[:60]!r} is not a number, and '{symbol}' compares numbers.",
                column=value_column,
            )
        return Term(key, comparison, value, column)

    def _open(self, column: int) -> None:
        if len(self.opened_at) == MAX_DEPTH:
            raise InvalidExpression(
                f"Column {column}: more than {MAX_DEPTH} parentheses within each other.", column=column
            )
        self.opened_at.append(column)
        self.pending.append(None)

    def _close(self, column: int) -> None:
        if not self.opened_at:
            raise InvalidExpression(f"Column {column}: this ')' closes nothing.", column=column)
        self.opened_at.pop()
        self.pending.pop()
        self._apply_pending()

    def _emit(self, operand: Everything | Term) -> None:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise InvalidExpression(
                f"Column {operand.column}: more than {MAX_TERMS} names and comparisons. "
                "Give the RSEs an attribute in common and name that.",
                column=operand.column,
            )
        self.steps.append(operand)
        self._apply_pending()

    def _apply_pending(self) -> None:
        operator = self.pending[-1]
        if operator is not None:
            self.steps.append(operator)
            self.pending[-1] = None

    def _next(self) -> tuple[int, str]:
        """Give column and text of the next token; the text is empty at the end."""
        blank = _BLANK.match(self.text, self.position)
        start = blank.end() if blank else self.position
        if start == len(self.text):
            self.position = start
            return start + 1, ""
        match = _TOKEN.match(self.text, start)
        if match is None:
            raise InvalidExpression(
                f"Column {start + 1}: {self.text[start]!a} has no meaning in an RSE expression.",
                column=start + 1,
            )
        self.position = match.end()
        return start + 1, match.group()

    def _expected(self, what: str, column: int, symbol: str) -> InvalidExpression:
        found = repr(symbol[:60]) if symbol else "the end"
        return InvalidExpression(
            f"Column {column}: expected {what}, found {found} in {_shown(self.text)}.", column=column
        )


@dataclass(slots=True)
class _Index:
    """The attributes that an expression mentions, as sets of RSEs in the bits of integers."""

    names: list[str]
    values: dict[str, dict[str, int]]
    """For each attribute, for each of its values, the RSEs that have it."""
    _steps: dict[str, tuple[list[float], list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, rses: Iterable[RseInfo], wanted: set[str]) -> _Index:
        """Index the wanted attributes; an RSE's own name counts as an attribute that is true."""
        names: list[str] = []
        values: dict[str, dict[str, int]] = {}
        for position, rse in enumerate(rses):
            names.append(rse.name)
            bit = 1 << position
            for key in _keys_in(wanted, rse.attributes):
                by_value = values.setdefault(key, {})
                value = _canonical(rse.attributes[key])
                by_value[value] = by_value.get(value, 0) | bit
            if rse.name in wanted:
                by_value = values.setdefault(rse.name, {})
                by_value["true"] = by_value.get("true", 0) | bit
        return cls(names, values)

    @property
    def everything(self) -> int:
        return (1 << len(self.names)) - 1

    def satisfying(self, term: Term) -> int:
        """Give the RSEs that satisfy one term."""
        if term.comparison is Comparison.EQUAL:
            return self._equal(term)
        if term.comparison is Comparison.NOT_EQUAL:
            return self.everything & ~self._equal(term)
        limit = _number(term.value) or 0.0
        numbers, up_to = self._ordered(term.key)
        if term.comparison is Comparison.LESS:
            return up_to[bisect_left(numbers, limit)]
        if term.comparison is Comparison.LESS_OR_EQUAL:
            return up_to[bisect_right(numbers, limit)]
        if term.comparison is Comparison.GREATER:
            return up_to[-1] & ~up_to[bisect_right(numbers, limit)]
        return up_to[-1] & ~up_to[bisect_left(numbers, limit)]

    def _equal(self, term: Term) -> int:
        return self.values[term.key].get(_canonical(term.value), 0)

    def _ordered(self, key: str) -> tuple[list[float], list[int]]:
        """Give the numeric values of an attribute in order, and the RSEs below each of them."""
        if key not in self._steps:
            by_number: dict[float, int] = {}
            for value, mask in self.values[key].items():
                number = _number(value)
                if number is not None:
                    by_number[number] = by_number.get(number, 0) | mask
            numbers = sorted(by_number)
            up_to = [0]
            for number in numbers:
                up_to.append(up_to[-1] | by_number[number])
            self._steps[key] = numbers, up_to
        return self._steps[key]

    def names_in(self, mask: int) -> frozenset[str]:
        """Give the names of the RSEs in a set."""
        bits = bin(mask)[:1:-1]
        return frozenset(name for name, bit in zip(self.names, bits, strict=False) if bit == "1")


def _keys_in(wanted: set[str], attributes: Mapping[str, str]) -> Iterable[str]:
    if len(wanted) < len(attributes):
        return [key for key in wanted if key in attributes]
    return [key for key in attributes if key in wanted]


def _canonical(value: str) -> str:
    """Booleans are one value however they are spelt; everything else is compared as written."""
    lowered = value.lower()
    return lowered if lowered in _BOOLEANS else value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _combined(operator: Operator, left: int, right: int) -> int:
    if operator is Operator.UNION:
        return left | right
    if operator is Operator.INTERSECTION:
        return left & right
    return left & ~right


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
