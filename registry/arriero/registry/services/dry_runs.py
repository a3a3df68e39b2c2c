"""Doing something to tell what it would do: in a transaction that leaves nothing behind."""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection

from arriero.registry.services.context import Context

T = TypeVar("T")


class _Told(Exception, Generic[T]):
    """Ends the transaction, and carries what was found in it."""

    def __init__(self, answer: T) -> None:
        super().__init__("told")
        self.answer = answer


def undone(context: Context, work: Callable[[Connection], T]) -> T:
    """Give what ``work`` gives; what it has done is rolled back, also where it succeeds.

    Parameters
    ----------
    work
        As of `arriero.registry.database.Database.run`. What it raises comes through.
    """

    def tell(connection: Connection) -> None:
        raise _Told(work(connection))

    try:
        context.database.run(tell)
    except _Told as told:
        answer: T = told.answer
        return answer
    raise AssertionError("the transaction has not been rolled back")
