"""The table of the official client's methods and verbs: complete, true, and the same as the page in the docs."""

from __future__ import annotations

import os
import re

import pytest
from rucio.common import exception

from conformance.not_yet import EXCEPT, EXCEPTIONS, METHODS, REASONS, VERBS
from support.official_surface import PAGE, claims, methods, page, verbs

WRITE = "ARRIERO_WRITE_REFERENCE"


def test_each_method_and_verb_is_proven_or_excused():
    surface, claimed, excused = {*methods(), *verbs()}, set(claims()), set(REASONS)
    assert surface - claimed - excused == set(), "no test claims these and not_yet.py has no reason"
    assert claimed & excused == set(), "a test claims what not_yet.py says does not work"
    assert (claimed | excused) - surface == set(), "the official client has no such method or verb"
    assert set(EXCEPT) <= claimed


def test_what_is_missing_says_so_and_why(client):
    """By calling it."""
    asked = {**METHODS, **{f"{name} (partly)": refused for name, refused in EXCEPT.items()}}
    wrong = {}
    for name, missing in asked.items():
        if missing.call is None:
            continue
        try:
            missing.call(client)
            wrong[name] = "worked"
        except exception.UnsupportedOperation as error:
            if missing.reason not in str(error):
                wrong[name] = str(error)
        except Exception as error:  # noqa: BLE001 - each is reported
            wrong[name] = f"{type(error).__name__}: {error}"
    assert wrong == {}


def test_the_command_line_passes_the_reason_on(official):
    said = official.cli("opendata", "did", "list", expect=1)
    assert re.sub(r"\s+", " ", REASONS["opendata did list"]) in re.sub(r"\s+", " ", said)
    assert set(VERBS) <= set(verbs())


def test_the_page_says_what_passed(proven):
    """Last of all: what a test claims counts if it passed in this run; one that did not run is believed."""
    claimed = set(claims())
    failed = {name for name, passed in proven.items() if not passed}
    made = page(claimed - failed, REASONS, EXCEPTIONS)
    if os.environ.get(WRITE):
        assert claimed <= set(proven), "only a run of all of tests/conformance may write the page"
        PAGE.write_text(made)
    assert PAGE.exists(), f"{PAGE.name} is missing: run `make docs-conformance`"
    if PAGE.read_text() != made:
        pytest.fail(f"{PAGE.name} is not current: run `make docs-conformance`")
