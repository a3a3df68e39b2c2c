"""Rucio's side in core, for copies: the functions of its submitter, poller and finisher, with its mock transfer tool.

usage: RUCIO_HOME=HOME HOME/venv/bin/python conveyor_worker.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rucio.core import rse as rse_core
from rucio.core.distance import add_distance
from rucio.core.topology import ExpiringObjectCache, Topology
from rucio.daemons.conveyor import finisher, poller, submitter
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from rules_worker import counts, fill, new_rule, set_up_rules
from sqlalchemy import func, select, update
from worker import COMMANDS

from benchlib import data, rules_data
from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch

TOOL = "mock"
"""Rucio's transfer tool without transfers: each is DONE as soon as it is asked for."""


def set_up_conveyor():
    set_up_rules()
    with db_session(DatabaseOperationType.WRITE) as session:
        source, destination = (
            rse_core.get_rse_id(name, session=session) for name in (data.RSE, rules_data.DESTINATION)
        )
        add_distance(source, destination, 1, session=session)
        able = {"third_party_copy_read": 1, "third_party_copy_write": 1}
        session.execute(update(models.RSEProtocol).values(able))


def convey(rule, count):
    """Have all requests of a rule submitted, polled and finished, one daemon after the other."""
    watch, topology = Stopwatch(), ExpiringObjectCache(ttl=300, new_obj_fnc=Topology)
    stages = (
        (RequestState.QUEUED, lambda: _submit(topology)),
        (RequestState.SUBMITTED, lambda: _poll(topology)),
        (RequestState.DONE, lambda: _finish(topology)),
    )
    for state, work in stages:
        passes = 0
        while left := _left(rule, state):
            with watch:
                work()
            passes += 1
            if passes > 10 + count // 50:
                raise RuntimeError(f"{left} of {count} requests are still {state.name}")
    if states := _states(rule):
        raise RuntimeError(f"not all of {count} requests have ended: {states}")
    return watch.report(count)


def _submit(topology):
    submitter.submitter(once=True, transfertools=[TOOL], partition_wait_time=0, cached_topology=topology)


def _poll(topology):
    poller.poller(once=True, older_than=0, transfertool=TOOL, partition_wait_time=0, cached_topology=topology)


def _finish(topology):
    finisher.finisher(once=True, partition_wait_time=0, cached_topology=topology)


def _states(rule):
    with db_session(DatabaseOperationType.READ) as session:
        query = select(models.Request.state, func.count()).where(models.Request.rule_id == rule)
        rows = session.execute(query.group_by(models.Request.state))
        return {state.name: number for state, number in rows}


def _left(rule, state):
    with db_session(DatabaseOperationType.READ) as session:
        query = select(func.count()).where(models.Request.rule_id == rule, models.Request.state == state)
        return session.execute(query).scalar()


if __name__ == "__main__":
    serve(
        {
            **COMMANDS,
            "set_up_conveyor": set_up_conveyor,
            "fill": fill,
            "new_rule": new_rule,
            "counts": counts,
            "convey": convey,
        }
    )
