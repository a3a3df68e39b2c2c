r"""RSE expressions: which storage elements a rule means.

The grammar is Rucio's: names and attributes (`country=FR`, `tier<2`, a bare word = attribute that is true, and
an RSE's own name is such an attribute), `*` for all, `|` union, `&` intersection, `\` difference, parentheses;
all operators have equal precedence and are applied strictly from left to right. Besides there are `!=`, `>=`
and `<=`. `a!=b` is the same as `*\a=b`: it includes the RSEs that have no `a`.

Pure: no I/O, no clock. Neither parsing nor evaluation recurses, and the length is looked at before anything
else, because an expression comes from any client (Rucio 41.5 dies of 2,000 nested parentheses).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import override

from arriero.rse.errors import EmptyExpression, InvalidExpression
from arriero.rse.expression_terms import Comparison, Everything, Operator, Step, Term, number
from arriero.rse.rse_index import RseIndex
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


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: immutable, and cheap to evaluate many times."""

    text: str
    steps: tuple[Step, ...]
    """The expression in postfix order: each operator after its two operands."""

    def evaluate(self, rses: Iterable[RseInfo] | RseIndex, *, allow_empty: bool = False) -> frozenset[str]:
        """Give the names of the RSEs that satisfy the expression.

        Parameters
        ----------
        rses
            All RSEs that there are (not only those that may be chosen: names are looked up among them); an index of
            them where many expressions are evaluated.
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
        index = rses if isinstance(rses, RseIndex) else RseIndex(rses)
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

    def _refuse_unknown(self, index: RseIndex) -> None:
        columns = {step.key: step.column for step in reversed(self.steps) if isinstance(step, Term)}
        if missing := index.unknown(columns):
            unknown = {key: columns[key] for key in missing}
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
        if comparison not in {Comparison.EQUAL, Comparison.NOT_EQUAL} and number(value) is None:
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


def _combined(operator: Operator, left: int, right: int) -> int:
    if operator is Operator.UNION:
        return left | right
    if operator is Operator.INTERSECTION:
        return left & right
    return left & ~right


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
