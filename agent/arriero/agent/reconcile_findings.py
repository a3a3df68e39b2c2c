"""What can be wrong between a Butler, its ledger and its files, and what mends it (`arriero.agent.reconcile`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Kind(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    DANGLING = "dangling"
    STRAY = "stray"
    UNREPORTED = "unreported"
    OTHER_ID = "other_id"
    OTHER_PLACE = "other_place"
    WRONG_SIZE = "wrong_size"
    NOT_IN_PLACE = "not_in_place"
    FILE_MISSING = "file_missing"
    FILE_WRONG = "file_wrong"
    DARK = "dark"


SAYS: Mapping[Kind, str] = {
    Kind.MISSING: "the ledger says that it is in the Butler, which does not have it",
    Kind.DANGLING: "the Butler refers to a file whose replica is not there",
    Kind.STRAY: "the Butler refers to a file at its RSE that is not in its ledger",
    Kind.UNREPORTED: "the Butler has it, and the ledger does not know",
    Kind.OTHER_ID: "the Butler has it under another id than the ledger says",
    Kind.OTHER_PLACE: "the Butler has the dataset at another place",
    Kind.WRONG_SIZE: "the Butler has another size of it: the file was replaced",
    Kind.NOT_IN_PLACE: "the Butler takes the replica for a file of its own, and would delete it",
    Kind.FILE_MISSING: "the file is not at the storage",
    Kind.FILE_WRONG: "the file at the storage has another size or checksum",
    Kind.DARK: "a file at the storage that the catalogue does not know",
}

REPAIRS: Mapping[Kind, str] = {
    Kind.MISSING: "ingest it again",
    Kind.DANGLING: "have the Butler forget the file, and ingest it again when it is there",
    Kind.STRAY: "none: register the file (arriero replica add) or take the dataset out (butler prune-datasets)",
    Kind.UNREPORTED: "write it down in the ledger",
    Kind.OTHER_ID: "write down the Butler's id",
    Kind.OTHER_PLACE: "have the Butler forget the place, and ingest it again",
    Kind.WRONG_SIZE: "have the Butler forget the file, and ingest it again",
    Kind.NOT_IN_PLACE: "none: ingest it anew with transfer direct",
    Kind.FILE_MISSING: "have the Butler forget it until it is there; audits have it copied again (arriero audit)",
    Kind.FILE_WRONG: "have the Butler forget it until it is right; audits have it copied again (arriero audit)",
    Kind.DARK: "none here: arriero audit quarantine, or arriero replica add",
}

FORGET = frozenset({Kind.DANGLING, Kind.OTHER_PLACE, Kind.WRONG_SIZE, Kind.FILE_MISSING, Kind.FILE_WRONG})
"""What the Butler is to forget, so that the file can be ingested anew."""

ADOPT = frozenset({Kind.UNREPORTED, Kind.OTHER_ID})
"""What the ledger is to learn from the Butler."""

MENDED = FORGET | ADOPT | {Kind.MISSING}
"""What `mend` sees to, of files that are in the ledger."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    scope: str | None
    name: str | None
    rse: str | None
    uri: str | None
    detail: str
    state: str | None = None
    arrival: int | None = None
    fence: int | None = None
    ledger_id: UUID | None = None
    """Dataset that the ledger names."""
    dataset_id: UUID | None = None
    """Dataset that the Butler has."""
