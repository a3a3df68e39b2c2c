"""Which RSEs a rule could place more on now, and why not on the others; nothing is changed or held."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sqlalchemy import Connection, RowMapping, select

from arriero.registry.errors import NotFound
from arriero.registry.ports import JudgedRse, Judgement
from arriero.registry.schema.tables import accounts, rules
from arriero.registry.services.account_limits import measure_room
from arriero.registry.services.limit_room import Room
from arriero.registry.store.account_limits import global_limits, local_limits
from arriero.registry.store.rses import load_rses as load_named
from arriero.rse.errors import InvalidExpression
from arriero.scheduler.core.choose import Candidate, Dropped, usable
from arriero.scheduler.rse_catalogue import load_rses


def judge_rses(connection: Connection, rule_id: int) -> Judgement:
    """Judge each RSE that a rule's expression names, as an evaluation would for files of which nothing is there.

    Parameters
    ----------
    connection
        In any transaction: it only reads, in a fixed number of statements.

    Raises
    ------
    NotFound
        There is no such rule.
    """
    rule = (
        connection.execute(
            select(rules, accounts.c.name.label("account"))
            .join(accounts, accounts.c.id == rules.c.account_id)
            .where(rules.c.id == rule_id)
        )
        .mappings()
        .one_or_none()
    )
    if rule is None:
        raise NotFound(f"there is no rule {rule_id}", rucio_class="RuleNotFound")
    known = load_rses(connection)
    room = None if rule["ignore_account_limit"] else _room(connection, rule["account_id"])
    try:
        named = known.matching(rule["rse_expression"])
    except InvalidExpression as error:
        return Judgement(code=error.code, fault=f"RSE expression: {error}")
    candidates = [known.by_id[rse_id].as_candidate() for rse_id in sorted(named)]
    if room is not None:
        candidates = [_within(one, room, rule["account"]) for one in candidates]
    return Judgement(tuple(sorted(_judged(rule, candidates), key=lambda one: one.rse)))


def _room(connection: Connection, account_id: int) -> Room | None:
    """Measure what is left of an account's limits; None where it has none, since what it uses takes a while to sum."""
    local, shared = local_limits(connection, account_id), global_limits(connection, account_id)
    return measure_room(connection, account_id, load_named(connection)) if local or shared else None


def _within(candidate: Candidate, room: Room, account: str) -> Candidate:
    if room.left_at(candidate.rse_id) > 0:
        return candidate
    return replace(candidate, barred=f"is over a limit of account {account}: nothing is left")


def _judged(rule: RowMapping, candidates: Iterable[Candidate]) -> Iterator[JudgedRse]:
    named = list(candidates)
    weight = rule["weight"]
    weights, dropped = usable(named, weight=weight, ignore_availability=rule["ignore_availability"])
    out: dict[int, Dropped] = {one.rse_id: one for one in dropped}
    for one in named:
        if one.rse_id in out:
            yield JudgedRse(one.rse_id, one.name, out[one.rse_id].code, out[one.rse_id].reason)
        elif one.free is not None and one.free <= 0:
            yield JudgedRse(
                one.rse_id, one.name, "full", "is full: nothing may be written above MinFreeSpace"
            )
        else:
            yield JudgedRse(one.rse_id, one.name, None, _merits(one, weights[one.rse_id], weight))


def _merits(candidate: Candidate, value: float, weight: str | None) -> str:
    """Say what speaks for an RSE where nothing of a group is there."""
    said = [] if weight is None else [f"{weight}={value:g}"]
    if candidate.free is not None:
        said.append(f"{candidate.free} bytes free")
    return ", ".join(said)
