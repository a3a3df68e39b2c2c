"""Every way to break a whole catalogue that the doctor has a check for."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, insert, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    arrivals,
    contents,
    dataset_locks,
    dids,
    evaluation_items,
    evaluations,
    locks,
    replicas,
    requests,
    storage_findings,
    unplaced_groups,
)
from arriero.registry.states import (
    ArrivalState,
    EvaluationItem,
    FindingKind,
    FindingState,
    LockState,
    ReplicaState,
    RequestState,
    RuleState,
)
from support import broken_deletions
from support.whole import HOUR, Whole

NOBODY = 999_999
"""An id that nothing has."""

Break = Callable[[Whole], None]


def missing_lock(w: Whole) -> None:
    w.run(delete(locks).where(locks.c.rule_id == w.of_file))


def surplus_lock(w: Whole) -> None:
    # one more than copies, where the group lies too
    lock = {"rule_id": w.of_file, "file_id": w.did["a"], "bytes": 1, "state": LockState.OK}
    w.run(insert(locks).values(rse_id=w.rse["IN2P3"], **lock))


def uncovered_lock(w: Whole) -> None:
    w.run(delete(contents).where(contents.c.child_id == w.did["c"]))


def misplaced_lock(w: Whole) -> None:
    w.run(w.lock("a").values(rse_id=w.rse["SLAC"]))


def place_of_another_group(w: Whole) -> None:
    w.run(insert(dataset_locks).values(rule_id=w.rule, group_id=w.did["apart"], rse_id=w.rse["IN2P3"]))


def no_place_of_another_group(w: Whole) -> None:
    gone = {"code": "not_enough_rses", "reason": "of a dataset that was detached"}
    w.run(insert(unplaced_groups).values(rule_id=w.rule, group_id=w.did["apart"], **gone))


def wrong_counts(w: Whole) -> None:
    w.run(w.of_rule().values(locks_ok=7))


def wrong_rule_state(w: Whole) -> None:
    w.run(w.of_rule().values(state=RuleState.OK, code=None, reason=None))


def stuck_without_cause(w: Whole) -> None:
    w.run(delete(unplaced_groups))


def ok_lock_without_replica(w: Whole) -> None:
    w.run(w.replica("a").values(state=ReplicaState.UNAVAILABLE))


def replicating_lock_without_copy(w: Whole) -> None:
    w.run(w.replica("b").values(state=ReplicaState.AVAILABLE))


def tombstone(w: Whole) -> None:
    w.run(w.replica("a").values(tombstone=after(0)))


def no_copy(w: Whole) -> None:
    w.run(delete(replicas).where(replicas.c.file_id == w.did["a"]))


def forgotten_stuck(w: Whole) -> None:
    w.run(delete(evaluations).where(evaluations.c.rule_id == w.rule))


def forgotten_new(w: Whole) -> None:
    w.run(w.of_rule().values(state=RuleState.INJECT), delete(evaluations))


def forgotten_item(w: Whole) -> None:
    w.run(
        insert(evaluation_items).values(rule_id=w.of_file, kind=EvaluationItem.FILE, did_id=w.did["a"]),
    )


def rule_without_reason(w: Whole) -> None:
    w.run(w.of_rule().values(reason=None))


def lock_without_reason(w: Whole) -> None:
    w.run(w.lock("c").values(code=None))


def request_without_reason(w: Whole) -> None:
    w.run(update(requests).values(state=RequestState.FAILED))


def arrival_without_reason(w: Whole) -> None:
    w.run(update(arrivals).values(state=ArrivalState.PARKED))


def wrong_but_verified(w: Whole) -> None:
    seen = {"times": 1, "first_seen_at": after(-HOUR), "last_seen_at": after(-HOUR)}
    found = {"kind": FindingKind.WRONG_CHECKSUM, "state": FindingState.SEEN, **seen}
    w.run(
        w.replica("a", "SLAC").values(verified_at=after(-2 * HOUR)),
        insert(storage_findings).values(file_id=w.did["a"], rse_id=w.rse["SLAC"], **found),
    )


def unwanted_request(w: Whole) -> None:
    w.run(update(requests).values(destination_id=w.rse["SLAC"]))


def copy_without_request(w: Whole) -> None:
    w.run(delete(requests))


def replica_gone_under_a_butler(w: Whole) -> None:
    w.run(
        delete(replicas).where(replicas.c.file_id == w.did["a"], replicas.c.rse_id == w.rse["IN2P3"]),
    )


def missing_arrival(w: Whole) -> None:
    w.run(delete(arrivals))


LONG_AGO = {"lease_owner": "worker", "lease_until": after(-HOUR)}


def outlived_request(w: Whole) -> None:
    w.run(update(requests).values(state=RequestState.SUBMITTED, **LONG_AGO))


def outlived_evaluation(w: Whole) -> None:
    w.run(w.of_rule(evaluations).values(**LONG_AGO))


def outlived_arrival(w: Whole) -> None:
    w.run(update(arrivals).values(state=ArrivalState.LEASED, **LONG_AGO))


def late_evaluation(w: Whole) -> None:
    w.run(w.of_rule(evaluations).values(not_before=after(-HOUR)))


def held_request(w: Whole) -> None:
    w.run(update(requests).values(state=RequestState.SUBMITTED))


def held_evaluation(w: Whole) -> None:
    w.run(w.of_rule(evaluations).values(lease_owner="worker"))


def held_arrival(w: Whole) -> None:
    w.run(update(arrivals).values(state=ArrivalState.LEASED))


def lock_of_no_rule(w: Whole) -> None:
    w.run(update(locks).where(locks.c.rule_id == w.of_file).values(rule_id=NOBODY))


def lock_of_no_file(w: Whole) -> None:
    w.run(w.lock("c").values(file_id=NOBODY))


def lock_at_no_rse(w: Whole) -> None:
    w.run(w.lock("c").values(rse_id=NOBODY))


def replica_of_no_file(w: Whole) -> None:
    w.run(w.replica("c", "SLAC").values(file_id=w.did["night"]))


def replica_at_no_rse(w: Whole) -> None:
    w.run(w.replica("c", "SLAC").values(rse_id=NOBODY))


def request_for_no_file(w: Whole) -> None:
    w.run(update(requests).values(file_id=NOBODY))


def request_at_no_rse(w: Whole) -> None:
    w.run(update(requests).values(destination_id=NOBODY))


def request_of_no_replica(w: Whole) -> None:
    w.run(delete(replicas).where(replicas.c.file_id == w.did["b"], replicas.c.rse_id == w.rse["IN2P3"]))


def content_of_nothing(w: Whole) -> None:
    w.run(insert(contents).values(parent_id=w.did["night"], child_id=NOBODY))


def content_in_nothing(w: Whole) -> None:
    w.run(insert(contents).values(parent_id=NOBODY, child_id=w.did["night"]))


def file_in_container(w: Whole) -> None:
    w.run(insert(contents).values(parent_id=w.did["all"], child_id=w.did["a"]))


def work_of_no_rule(w: Whole) -> None:
    w.run(insert(evaluation_items).values(rule_id=NOBODY, kind=EvaluationItem.STUCK))


def arrival_of_no_file(w: Whole) -> None:
    w.run(update(arrivals).values(file_id=NOBODY))


def did_of_no_scope(w: Whole) -> None:
    w.run(update(dids).where(dids.c.name == "empty").values(scope_id=NOBODY))


def did_of_no_account(w: Whole) -> None:
    w.run(update(dids).where(dids.c.name == "empty").values(account_id=NOBODY))


CASES: list[tuple[str, Break, dict[str, str]]] = [
    ("no_copy", no_copy, {"did": "raw:a", "rse": "IN2P3", "detail": "lock OK"}),
    ("missing_locks", missing_lock, {"did": "raw:a", "detail": "0 of 1 locks"}),
    ("surplus_locks", surplus_lock, {"did": "raw:a", "detail": "2 locks, 1 asked for"}),
    ("surplus_locks", uncovered_lock, {"did": "raw:c", "detail": "1 locks, and the rule does not cover it"}),
    ("misplaced_locks", misplaced_lock, {"did": "raw:a", "rse": "SLAC"}),
    ("foreign_groups", place_of_another_group, {"did": "raw:apart", "detail": "has a place"}),
    ("foreign_groups", no_place_of_another_group, {"did": "raw:apart", "detail": "has no place"}),
    (
        "counts",
        wrong_counts,
        {"detail": "says OK 7, REPLICATING 1, STUCK 1; has 1, 1, 1"},
    ),
    (
        "rule_state",
        wrong_rule_state,
        {"detail": "OK with 1 REPLICATING, 1 STUCK, 0 groups without a place"},
    ),
    ("rule_state", stuck_without_cause, {}),
    ("lock_state", ok_lock_without_replica, {"did": "raw:a", "detail": "lock OK, replica UNAVAILABLE"}),
    (
        "lock_state",
        replicating_lock_without_copy,
        {"did": "raw:b", "detail": "lock REPLICATING, replica AVAILABLE"},
    ),
    ("held_tombstones", tombstone, {"did": "raw:a", "rse": "IN2P3"}),
    ("forgotten_rules", forgotten_stuck, {"did": "raw:all", "detail": "rule STUCK"}),
    ("forgotten_rules", forgotten_new, {"did": "raw:all", "detail": "rule INJECT"}),
    ("forgotten_rules", forgotten_item, {"did": "raw:a", "detail": "rule OK"}),
    ("rules_without_reason", rule_without_reason, {"did": "raw:all", "detail": "rule STUCK"}),
    ("rules_without_reason", lock_without_reason, {"did": "raw:c", "detail": "lock STUCK"}),
    ("waits_without_reason", request_without_reason, {"did": "raw:b", "detail": "request FAILED"}),
    ("waits_without_reason", arrival_without_reason, {"did": "raw:a", "detail": "arrival parked"}),
    ("wrong_at_storage", wrong_but_verified, {"did": "raw:a", "rse": "SLAC", "detail": "WRONG_CHECKSUM"}),
    ("unwanted_requests", unwanted_request, {"did": "raw:b", "rse": "SLAC"}),
    ("copies_without_request", copy_without_request, {"did": "raw:b", "rse": "IN2P3"}),
    (
        "ingested_without_replica",
        replica_gone_under_a_butler,
        {"did": "raw:a", "rse": "IN2P3", "detail": "in Butler embargo, replica none"},
    ),
    ("missing_arrivals", missing_arrival, {"did": "raw:a", "rse": "IN2P3"}),
    ("outlived_leases", outlived_request, {"did": "raw:b", "detail": "request of worker"}),
    ("outlived_leases", outlived_evaluation, {"detail": "evaluation of worker"}),
    ("outlived_leases", outlived_arrival, {"did": "raw:a", "detail": "arrival of worker"}),
    ("late_evaluations", late_evaluation, {"detail": "attempt 0"}),
    ("held_without_lease", held_request, {"did": "raw:b"}),
    ("held_without_lease", held_evaluation, {"detail": "evaluation"}),
    ("held_without_lease", held_arrival, {"did": "raw:a"}),
    ("locks_without_rule", lock_of_no_rule, {"rule_id": f"#{NOBODY}", "did": "raw:a", "rse": "SLAC"}),
    ("locks_of_nothing", lock_of_no_file, {"did": f"#{NOBODY}", "detail": "no such file"}),
    ("locks_of_nothing", lock_at_no_rse, {"did": "raw:c", "rse": f"#{NOBODY}", "detail": "no such RSE"}),
    ("replicas_of_nothing", replica_of_no_file, {"did": "raw:night", "detail": "no such file"}),
    ("replicas_of_nothing", replica_at_no_rse, {"did": "raw:c", "detail": "no such RSE"}),
    ("requests_of_nothing", request_for_no_file, {"did": f"#{NOBODY}", "detail": "no such file"}),
    ("requests_of_nothing", request_at_no_rse, {"did": "raw:b", "detail": "no such RSE"}),
    ("requests_of_nothing", request_of_no_replica, {"did": "raw:b", "detail": "no replica to come"}),
    ("contents_of_nothing", content_of_nothing, {"did": "raw:night", "detail": f"holds #{NOBODY}"}),
    ("contents_of_nothing", content_in_nothing, {"did": f"#{NOBODY}"}),
    ("contents_of_nothing", file_in_container, {"did": "raw:all"}),
    ("work_of_nothing", work_of_no_rule, {"rule_id": f"#{NOBODY}", "detail": "item STUCK"}),
    ("arrivals_of_nothing", arrival_of_no_file, {"did": f"#{NOBODY}", "rse": "IN2P3"}),
    ("dids_of_nobody", did_of_no_scope, {"did": "?:empty", "detail": "no such scope"}),
    ("dids_of_nobody", did_of_no_account, {"did": "raw:empty", "detail": "no such account"}),
    *broken_deletions.CASES,
]
