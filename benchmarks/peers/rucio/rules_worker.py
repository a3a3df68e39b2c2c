"""Rucio's side in core, for rules: its core functions and its finisher, in a process of its own environment.

usage: RUCIO_HOME=HOME HOME/venv/bin/python rules_worker.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rucio.core import did as did_core
from rucio.core import rse as rse_core
from rucio.core import rule as rule_core
from rucio.core.account_limit import set_local_account_limit
from rucio.core.rse_expression_parser import parse_expression
from rucio.daemons.conveyor import finisher
from rucio.db.sqla import models
from rucio.db.sqla.constants import (
    DatabaseOperationType,
    DIDReEvaluation,
    RequestState,
    RuleState,
)
from rucio.db.sqla.session import db_session
from sqlalchemy import func, select, text, update
from worker import COMMANDS, EVERYTHING, ROOT, SCOPE, load, register

from benchlib import data, rules_data
from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch, peak_mb

ENOUGH = 10**18


def set_up_rules():
    for name in rules_data.DESTINATIONS:
        rse_id = rse_core.add_rse(name)
        protocol = {
            "scheme": "davs",
            "hostname": f"{name.lower().replace('_', '-')}.example.org",
            "port": 1094,
            "prefix": "/data/",
            "impl": "rucio.rse.protocols.webdav.Default",
            "domains": {"lan": EVERYTHING, "wan": EVERYTHING},
        }
        rse_core.add_protocol(rse_id, protocol)
        with db_session(DatabaseOperationType.WRITE) as session:
            set_local_account_limit(ROOT, rse_id, ENOUGH, session=session)
    for name in (data.RSE, *rules_data.DESTINATIONS):
        with db_session(DatabaseOperationType.WRITE) as session:
            rse_id = rse_core.get_rse_id(name, session=session)
            rse_core.add_rse_attribute(rse_id, "site", name.split("_")[0], session=session)


def fill(prefix, count, dataset, loose):
    """Lay files with a replica each in a dataset, and loose ones beside it; nothing of it waits for an evaluation."""
    load(prefix, 0, count, dataset)
    register(f"{prefix}a", 0, loose, 1000)
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(text("DELETE FROM updated_dids"))
        session.execute(text("UPDATE contents SET rule_evaluation = NULL WHERE rule_evaluation IS NOT NULL"))


def new_rule(dataset, expression, count):
    watch = Stopwatch()
    before = peak_mb()
    with watch:
        (rule,) = rule_core.add_rule(
            dids=[{"scope": SCOPE, "name": dataset}],
            account=ROOT,
            copies=1,
            rse_expression=expression,
            grouping="DATASET",
            weight=None,
            lifetime=None,
            locked=False,
            subscription_id=None,
        )
        if rule_core.get_rule(rule)["state"] == RuleState.INJECT:
            # what the judge's injector does
            rule_core.inject_rule(rule)
    return watch.report(count, rule=rule, rss_before_mb=before)


def counts(rule):
    with db_session(DatabaseOperationType.READ) as session:
        row = session.execute(
            select(models.ReplicationRule).where(models.ReplicationRule.id == rule)
        ).scalar_one_or_none()
        if row is None:
            return {"state": None}
        there = session.execute(select(func.count()).where(models.ReplicaLock.rule_id == rule)).scalar()
        asked = session.execute(select(func.count()).where(models.Request.rule_id == rule)).scalar()
        return {
            "state": row.state.name,
            "ok": row.locks_ok_cnt,
            "replicating": row.locks_replicating_cnt,
            "stuck": row.locks_stuck_cnt,
            "locks": there,
            "requests": asked,
        }


def append(prefix, start, count, dataset):
    held = [{"scope": SCOPE, "name": data.name(prefix, i)} for i in range(start, start + count)]
    attached, evaluated = Stopwatch(), Stopwatch()
    with attached:
        did_core.attach_dids(scope=SCOPE, name=dataset, dids=held, account=ROOT)
    with evaluated:
        # what the judge's evaluator does
        rule_core.re_evaluate_did(SCOPE, dataset, DIDReEvaluation.ATTACH)
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(text("DELETE FROM updated_dids"))
    return evaluated.report(count, attach_seconds=attached.seconds)


def settle_copies(rule, count, batch):
    """Mark requests DONE, as the poller does, and let the finisher do its part; the marking is not timed."""
    chosen = select(models.Request.id).where(models.Request.rule_id == rule).limit(count).scalar_subquery()
    done = {
        "state": RequestState.DONE,
        "dest_url": "davs://destination/x",
        "source_rse_id": rse_core.get_rse_id(data.RSE),
    }
    with db_session(DatabaseOperationType.WRITE) as session:
        marked = session.execute(
            update(models.Request)
            .where(models.Request.id.in_(chosen))
            .values(done)
            .execution_options(synchronize_session=False)
        ).rowcount
    watch, left, passes = Stopwatch(), marked, 0
    finisher.GRACEFUL_STOP.clear()
    while left:
        with watch:
            finisher.finisher(once=True, bulk=batch, db_bulk=1000, partition_wait_time=0)
        with db_session(DatabaseOperationType.READ) as session:
            left = session.execute(
                select(func.count()).where(
                    models.Request.rule_id == rule, models.Request.state == RequestState.DONE
                )
            ).scalar()
        passes += 1
        if passes > 10 + marked // 100:
            raise RuntimeError(f"{left} of {marked} requests are not finished")
    return watch.report(marked)


def remove(rule, count):
    watch = Stopwatch()
    with watch:
        rule_core.delete_rule(rule)
    return watch.report(count)


def add_rses(count):
    with db_session(DatabaseOperationType.WRITE) as session:
        for number in range(count):
            rse_id = rse_core.add_rse(rules_data.rse_name(number), session=session)
            for key, value in rules_data.rse_attributes(number).items():
                rse_core.add_rse_attribute(rse_id, key, value, session=session)


def expressions(kind, first, count, mode):
    """Evaluate expressions, each another one; ``again``: such as its cache knows already."""
    watch, found = Stopwatch(), []
    for number in range(first, first + count):
        one = rules_data.expression(kind, number)
        with db_session(DatabaseOperationType.READ) as session:
            if mode == "again":
                parse_expression(one, session=session)
            with watch:
                matching = parse_expression(one, session=session)
        found.append(len(matching))
    return watch.report(count, found=found)


if __name__ == "__main__":
    serve(
        {
            **COMMANDS,
            "set_up_rules": set_up_rules,
            "fill": fill,
            "new_rule": new_rule,
            "counts": counts,
            "append": append,
            "settle_copies": settle_copies,
            "remove": remove,
            "add_rses": add_rses,
            "expressions": expressions,
        }
    )
