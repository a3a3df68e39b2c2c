"""Arriero's side in core, for rules: services and the scheduler's workers in a process of their own.

usage: arriero_rules_worker.py DATABASE_URL
"""

import threading
import time
from functools import partial
from typing import Any

from sqlalchemy import func, insert, select

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import evaluations, locks, requests, rse_attributes, rules
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services import contents, rses
from arriero.registry.services.account_limits import set_local_limit
from arriero.registry.services.rse_attributes import set_attribute
from arriero.registry.services.rse_protocols import add_protocol
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules, parse_rule_id
from arriero.registry.states import RuleState
from arriero.scheduler.claim import ClaimedRequest, claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import Transfer, success
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.settle import settle
from benchlib import data, rules_data
from benchlib.arriero_worker import COMMANDS, EVERYTHING, side
from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch, peak_mb

ENOUGH = 10**18
COPIED = Transfer("third_party_pull", 0.5, data.RSE, "davs://source/x", "davs://destination/x", "davs")
LATE_S = 120.0
"""When the wait for a small rule is given up."""


def let_go() -> None:
    """Close the connections to the database, which may be copied then."""
    side.database.dispose()


def use(url: str) -> None:
    """Work with another database from now on."""
    side.use(url)


def set_up_rules() -> None:
    root = side.actor()
    for name in rules_data.DESTINATIONS:
        rses.add_rse(side.context, root, name, {})
        host = f"{name.lower().replace('_', '-')}.example.org"
        protocol = {"hostname": host, "port": 1094, "prefix": "/data/", "domains": {"wan": EVERYTHING}}
        add_protocol(side.context, root, name, "davs", protocol)
    for name in (data.RSE, *rules_data.DESTINATIONS):
        set_attribute(side.context, root, name, "site", name.split("_")[0])
        set_local_limit(side.context, root, "root", name, ENOUGH)


def _waiting() -> bool:
    query = select(func.count()).where(evaluations.c.not_before <= now())
    with side.database.snapshot() as connection:
        return bool(connection.scalar(query))


def _evaluate(watch: Stopwatch) -> None:
    evaluator = Evaluator(side.context)
    deadline = time.monotonic() + 3600
    while _waiting():
        if time.monotonic() > deadline:
            raise RuntimeError("evaluations do not end")
        with watch:
            evaluator.run()


def new_rule(dataset: str, expression: str, count: int) -> dict[str, object]:
    """Add a rule on a collection of so many files, and evaluate it."""
    root, watch = side.actor(), Stopwatch()
    before = peak_mb()
    with watch:
        spec = RuleSpec(expression, 1)
        (uuid,) = add_rules(side.context, root, spec, [(data.SCOPE, dataset)])
    _evaluate(watch)
    return watch.report(count, rule=uuid.hex, rss_before_mb=before)


def counts(rule: str) -> dict[str, Any]:
    """Count what a rule has led to."""
    with side.database.snapshot() as connection:
        row = connection.execute(select(rules).where(rules.c.uuid == parse_rule_id(rule))).one_or_none()
        if row is None:
            return {"state": None}
        there = connection.scalar(select(func.count()).where(locks.c.rule_id == row.id))
        asked = connection.scalar(select(func.count()).where(requests.c.rule_id == row.id))
        return {
            "state": row.state,
            "ok": row.locks_ok,
            "replicating": row.locks_replicating,
            "stuck": row.locks_stuck,
            "locks": there,
            "requests": asked,
        }


def append(prefix: str, start: int, count: int, dataset: str) -> dict[str, object]:
    """Attach files to a dataset under a rule, and evaluate what that asks for."""
    root, attached, evaluated = side.actor(), Stopwatch(), Stopwatch()
    held = [contents.Child(data.SCOPE, data.name(prefix, i)) for i in range(start, start + count)]
    with attached:
        contents.attach(side.context, root, [contents.Attachment(data.SCOPE, dataset, held)])
    _evaluate(evaluated)
    return evaluated.report(count, attach_seconds=attached.seconds)


def settle_copies(rule: str, count: int, batch: int) -> dict[str, object]:  # noqa: ARG001 - the only one that asks
    """Settle copies that have succeeded; claiming them is not timed."""
    held: list[ClaimedRequest] = []
    while len(held) < count:
        most = min(1000, count - len(held))
        more = side.database.run(partial(claim_requests, owner="bench", limit=most, lease_s=3600))
        if not more:
            break
        held += more
    watch = Stopwatch()
    stuck_retry_s, done = side.context.settings.stuck_retry_s, 0
    for numbers in data.chunks(0, len(held), batch):
        reports = [success(held[i], COPIED) for i in numbers]
        with watch:
            done += settle(side.database, reports, stuck_retry_s=stuck_retry_s).done
    return watch.report(done)


def remove(rule: str, count: int) -> dict[str, object]:
    """Remove a rule with so many locks."""
    root, watch = side.actor(), Stopwatch()
    with watch:
        remove_rule(side.context, root, rule, now=True)
    return watch.report(count)


def add_rses(count: int) -> None:
    numbers = range(count)
    with side.database.transaction() as connection:
        added = insert(rse_table).returning(rse_table.c.id, sort_by_parameter_order=True)
        named = [{"name": rules_data.rse_name(number)} for number in numbers]
        ids = connection.scalars(added, named).all()
        rows = [
            {"rse_id": ids[number], "key": key, "value": value}
            for number in numbers
            for key, value in rules_data.rse_attributes(number).items()
        ]
        connection.execute(insert(rse_attributes), rows)


def expressions(kind: str, first: int, count: int, mode: str) -> dict[str, object]:
    """Evaluate expressions, each another one: the RSEs ``loaded`` before, or read from the database for each.

    What is loaded keeps its index, as for a batch of copies or a page of subscriptions; an answer is
    never remembered, for no text comes twice. An evaluator reads the RSEs for each chunk: that is the other mode.
    """
    watch, found = Stopwatch(), []
    with side.database.snapshot() as connection:
        known = load_rses(connection)
    for number in range(first, first + count):
        text = rules_data.expression(kind, number)
        with watch:
            if mode != "loaded":
                with side.database.snapshot() as connection:
                    known = load_rses(connection)
            matching = known.matching(text)
        found.append(len(matching))
    return watch.report(count, found=found)


def small_beside_large(large: str, small: list[str], files: int, pause_s: float) -> dict[str, object]:
    """Time how long one evaluator that is at a large rule lets small ones wait, seconds."""
    root, stop = side.actor(), threading.Event()

    def add(dataset: str) -> str:
        spec = RuleSpec(rules_data.DESTINATION, 1)
        return add_rules(side.context, root, spec, [(data.SCOPE, dataset)])[0].hex

    def work() -> None:
        evaluator = Evaluator(side.context, stopping=stop.is_set)
        while not stop.is_set():
            evaluator.run()
            time.sleep(0.02)

    large_rule = add(large)
    thread = threading.Thread(target=work)
    thread.start()
    waits: list[float] = []
    meanwhile = 0
    try:
        for dataset in small:
            time.sleep(pause_s)
            if waits and meanwhile == files:
                break
            began = time.perf_counter()
            rule = add(dataset)
            while counts(rule)["state"] == RuleState.INJECT and time.perf_counter() - began < LATE_S:
                time.sleep(0.01)
            waits.append(time.perf_counter() - began)
            meanwhile = counts(large_rule)["locks"]
    finally:
        stop.set()
        thread.join()
    return {"waits": waits, "locks_meanwhile": meanwhile}


if __name__ == "__main__":
    serve(
        {
            **COMMANDS,
            "let_go": let_go,
            "use": use,
            "set_up_rules": set_up_rules,
            "new_rule": new_rule,
            "counts": counts,
            "append": append,
            "settle_copies": settle_copies,
            "remove": remove,
            "add_rses": add_rses,
            "expressions": expressions,
            "small_beside_large": small_beside_large,
        }
    )
