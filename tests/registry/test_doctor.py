"""The doctor: what is whole is said to be, and each check names what was broken on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, insert, select

from arriero.registry.errors import InvalidInput
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dids, evaluation_items, evaluations, locks, requests, rules
from arriero.registry.services import doctor
from arriero.registry.services.authorisation import Denied
from arriero.registry.services.doctor import CHECKS, Step, chosen_checks, examine, repair, report
from arriero.registry.states import EvaluationItem, Role, RuleState
from arriero.registry.store import invariants as store
from arriero.registry.store.invariants import Finding
from support import broken
from support.database import counted_statements
from support.whole import Kept, Whole


@pytest.fixture(scope="module")
def kept(services, tmp_path_factory) -> Iterator[Kept]:
    made = Kept(services, tmp_path_factory.mktemp("doctor"))
    yield made
    made.close()


@pytest.fixture
def whole(kept, database_kind) -> Whole:
    return kept.get(database_kind)


def test_what_is_whole_is_said_to_be(whole):
    assert whole.findings() == {}


@pytest.mark.parametrize(
    ("name", "break_it", "example"), broken.CASES, ids=[case[1].__name__ for case in broken.CASES]
)
def test_what_is_broken_is_named(whole, name, break_it, example):
    break_it(whole)
    found = whole.findings()
    assert name in found, f"only {sorted(found)}"
    assert found[name].broken >= 1
    assert any(example.items() <= one.items() for one in found[name].examples), found[name].examples
    # alone as well as among the others
    assert whole.findings(name).keys() == {name}


def test_every_check_has_a_case():
    assert {case[0] for case in broken.CASES} == {check.name for check in CHECKS}


def test_names_and_next_steps_are_there_for_each():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert {check.invariant for check in CHECKS} == {"I1", "I2", "I3", "I4", "I5", "I6", "I7", "keys"}
    assert all(check.next_step and check.title for check in CHECKS)


@pytest.mark.parametrize("waits", ["due", "leased", "items"])
def test_a_rule_that_waits_for_evaluation_is_not_judged(whole, waits):
    # another rule is broken in the same way, and is named
    broken.missing_lock(whole)
    whole.run(delete(locks).where(locks.c.rule_id == whole.rule, locks.c.file_id == whole.did["c"]))
    whole.run(whole.of_rule().values(locks_stuck=0))
    assert whole.findings()["missing_locks"].broken == 2
    if waits == "due":
        whole.run(whole.of_rule(evaluations).values(not_before=after(-1)))
    elif waits == "leased":
        lease = {"lease_owner": "worker", "lease_until": after(60)}
        whole.run(whole.of_rule(evaluations).values(**lease))
    else:
        item = {"rule_id": whole.rule, "kind": EvaluationItem.DATASET, "did_id": whole.did["night"]}
        whole.run(insert(evaluation_items).values(**item))
    found = whole.findings()
    assert found["missing_locks"].broken == 1
    assert "rule_state" not in found


def test_counts_are_judged_whatever_a_rule_waits_for(whole):
    broken.wrong_counts(whole)
    whole.run(
        whole.of_rule(evaluations).values(not_before=after(-1)), whole.of_rule().values(state="SUSPENDED")
    )
    assert set(whole.findings()) == {"counts"}


def test_what_a_client_has_announced_is_no_copy_without_a_request(whole):
    whole.run(delete(requests), whole.replica("b").values(announced_at=after(0)))
    assert whole.findings() == {}


def test_only_first_cases_are_told_and_all_are_counted(whole):
    names = [f"x{number:02}" for number in range(20)]
    whole.catalogue.files("SLAC", names)
    whole.catalogue.dataset("many", names)
    whole.did["many"] = whole.catalogue.rows(select(dids.c.id).where(dids.c.name == "many"))[0]["id"]
    whole.add_rule("many", RuleState.OK, copies=1, counts=(0, 0, 0))
    found = whole.findings("missing_locks")["missing_locks"]
    assert found.broken == 20
    assert [example["did"] for example in found.examples] == [
        f"raw:{name}" for name in names[: store.EXAMPLES]
    ]


def test_rules_are_asked_range_by_range(whole, monkeypatch):
    monkeypatch.setattr(store, "RANGE_RULES", 2)
    monkeypatch.setattr(store, "RANGE_LOCKS", 2)
    with whole.catalogue.database.snapshot() as connection:
        ranges = list(store.rule_ranges(connection))
    assert ranges == [(0, whole.rule), (whole.rule, whole.unplaced)]
    assert whole.findings() == {}
    broken.missing_lock(whole)
    broken.wrong_counts(whole)
    found = whole.findings()
    assert found["missing_locks"].broken == 1
    # the rule on the file has lost its lock, and the other says too many
    assert found["counts"].broken == 2


def test_the_number_of_statements_does_not_grow_with_the_catalogue(whole):
    with counted_statements(whole.catalogue.database) as before:
        whole.findings()
    whole.catalogue.files("SLAC", [f"y{number}" for number in range(50)])
    whole.catalogue.dataset("more", [f"y{number}" for number in range(50)])
    with counted_statements(whole.catalogue.database) as afterwards:
        whole.findings()
    assert len(afterwards) == len(before)


def test_what_is_committed_meanwhile_is_not_seen(whole):
    lines = examine(whole.catalogue.database, CHECKS, sweep_s=5)
    first = next(lines)
    assert first == Step(1, len(CHECKS))
    # as an attach and its evaluation would, one half of it before a question and the other after
    broken.missing_lock(whole)
    broken.wrong_counts(whole)
    assert [one for one in lines if isinstance(one, Finding) and one.broken] == []
    assert set(whole.findings()) == {"missing_locks", "counts"}


def test_checks_are_chosen_by_name_or_invariant():
    assert {check.name for check in chosen_checks(["i3", "missing_locks"])} == {
        "missing_locks",
        "counts",
        "rule_state",
        "lock_state",
        "held_tombstones",
    }
    with pytest.raises(InvalidInput, match=r"there is no check 'i9'.*I1, I2.*missing_locks"):
        chosen_checks(["I9"])


def test_a_report_says_what_is_broken_and_what_to_do(whole):
    broken.late_evaluation(whole)
    broken.wrong_counts(whole)
    context, root = whole.catalogue.context, whole.catalogue.root
    lines = list(report(context, root, ["I3", "I7"]))
    steps = [line for line in lines if "step" in line]
    assert steps[-1] == {"step": len(steps), "of": len(steps)}
    told = {line["check"]: line for line in lines if "check" in line}
    (rule,) = whole.catalogue.rows(select(rules.c.uuid).where(rules.c.id == whole.rule))
    assert told["counts"] == {
        "check": "counts",
        "invariant": "I3",
        "what": "a rule's counts are not those of its locks",
        "broken": 1,
        "is_broken": True,
        "examples": [
            {"rule_id": rule["uuid"].hex, "detail": "says OK 7, REPLICATING 1, STUCK 1; has 1, 1, 1"}
        ],
        "next_step": "arriero doctor --repair counts them anew",
    }
    assert (told["rule_state"]["broken"], told["rule_state"]["next_step"]) == (0, None)
    # work that is late breaks nothing
    assert (told["late_evaluations"]["broken"], told["late_evaluations"]["is_broken"]) == (1, False)


def test_a_repair_counts_anew_and_has_rules_looked_at(whole):
    broken.wrong_counts(whole)
    broken.missing_lock(whole)
    context, root = whole.catalogue.context, whole.catalogue.root
    done = repair(context, root)
    assert done == {"recounted": 2, "looked_at": 2, "more": False}
    assert Bell.EVALUATIONS in whole.catalogue.doorbell.rung
    looked_at = whole.catalogue.rows(select(evaluation_items.c.rule_id, evaluation_items.c.kind))
    # what was named, and all of each
    assert sorted((row["rule_id"], row["kind"]) for row in looked_at) == [
        (whole.rule, EvaluationItem.CONTAINER),
        (whole.of_file, EvaluationItem.FILE),
        (whole.of_file, EvaluationItem.FILE),
    ]
    # both are due now, so neither is judged; their counts are, and hold
    assert whole.findings() == {}
    (audited,) = whole.catalogue.audited(action="doctor_repair")
    assert (audited["account"], audited["allowed"]) == ("root", True)
    assert audited["detail"] == {"rules": 2, "recounted": 2}


def test_a_repair_mends_only_what_it_is_asked_for(whole):
    broken.wrong_counts(whole)
    broken.missing_lock(whole)
    done = repair(whole.catalogue.context, whole.catalogue.root, ["missing_locks"])
    assert (done["recounted"], done["looked_at"]) == (1, 1)
    assert set(whole.findings()) == {"counts"}


def test_a_repair_of_nothing_changes_nothing(whole):
    before = whole.catalogue.snapshot_of(rules, evaluations, evaluation_items)
    done = repair(whole.catalogue.context, whole.catalogue.root)
    assert done == {"recounted": 0, "looked_at": 0, "more": False}
    assert whole.catalogue.snapshot_of(rules, evaluations, evaluation_items) == before
    assert whole.catalogue.audited(action="doctor_repair") == []


def test_a_rule_that_rests_is_counted_and_left_in_peace(whole):
    broken.wrong_counts(whole)
    gone = delete(evaluations).where(evaluations.c.rule_id == whole.rule)
    whole.run(whole.of_rule().values(state=RuleState.SUSPENDED), gone)
    done = repair(whole.catalogue.context, whole.catalogue.root)
    assert done == {"recounted": 1, "looked_at": 0, "more": False}
    assert whole.catalogue.count(evaluations, evaluations.c.rule_id == whole.rule) == 0
    assert "counts" not in whole.findings()


def test_a_repair_is_bounded_and_says_so(whole, monkeypatch):
    monkeypatch.setattr(doctor, "MAX_REPAIRED", 1)
    broken.wrong_counts(whole)
    broken.missing_lock(whole)
    assert repair(whole.catalogue.context, whole.catalogue.root)["more"] is True
    assert repair(whole.catalogue.context, whole.catalogue.root)["more"] is False
    assert whole.findings() == {}


def test_nobody_but_an_administrator_asks(whole):
    manager = whole.catalogue.account("manager", Role.DATA_MANAGER)
    with pytest.raises(Denied):
        list(report(whole.catalogue.context, manager))
    with pytest.raises(Denied):
        repair(whole.catalogue.context, manager)
