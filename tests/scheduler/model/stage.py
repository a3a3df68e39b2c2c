"""What the state machine plays with: few names, so that they meet."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

SITES = {
    "R0": {"tier": "1"},
    "R1": {"tier": "1", "fast": "true"},
    "R2": {"tier": "2", "fast": "true"},
    "R3": {"tier": "2"},
}
FILES = ("f0", "f1", "f2", "f3", "f4", "f5")
# neither the order of their names nor of their ids says anything about the other
DATASETS = ("dm", "db", "dx", "da")
CONTAINERS = ("cm", "cb", "cx")
EXPRESSIONS = ("*", "tier=1", "tier=2", "R0|R3", "*\\R1", "tier=1|R3", "fast", "tier=2&fast", "R2")
FAULTY = ("R9", "tier=7", "R0|", "tier=1&tier=2")
ROUNDS = 60

STAGE = (
    ("dm", "DATASET", ("f0", "f1", "f2")),
    ("db", "DATASET", ("f2", "f3")),
    ("cm", "CONTAINER", ("dm", "db")),
    ("cb", "CONTAINER", ("cm",)),
)

VALID = st.fixed_dictionaries(
    {
        "did": st.sampled_from(("cm", "cm", "cb", "dm", "db", "f2")),
        "expression": st.sampled_from(EXPRESSIONS),
        "copies": st.sampled_from((1, 1, 2)),
        "grouping": st.sampled_from(("DATASET", "NONE", "ALL")),
    }
)
number = st.integers(0, 11)
site = st.sampled_from(sorted(SITES))
file = st.sampled_from(FILES)


def pick(names: Sequence[str], which: int) -> str:
    return names[which % len(names)] if names else "nothing"
