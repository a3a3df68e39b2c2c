"""The mark that deletion leaves on a storage: whose it is, and how far the catalogue was that wrote it.

It tells of what no catalogue can know of itself: that another Arriero, or another RSE, deletes at the same place, that the
catalogue was restored from a backup or copied, or that the storage is not mounted.
"""

import json
from dataclasses import dataclass

FOREIGN = "foreign_mark"
SHARED = "shared_storage"
REWOUND = "catalogue_rewound"
GONE = "mark_gone"
UNREADABLE = "mark_unreadable"

MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says."""

    installation: str
    rse: str
    epoch: int
    """Raised each time that it is written."""

    def written(self) -> bytes:
        """As it lies on the storage."""
        said = {
            "what": "Arriero deletes files below this folder; see arriero deletion status",
            "installation": self.installation,
            "rse": self.rse,
            "epoch": self.epoch,
        }
        return json.dumps(said).encode() + b"\n"


class Unreadable(ValueError):
    """It is no mark."""


def read_mark(content: bytes) -> Mark:
    """Read a mark.

    Raises
    ------
    Unreadable
        It is something else, or a part of one.
    """
    try:
        said = json.loads(content)
        mark = Mark(said["installation"], said["rse"], said["epoch"])
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable("not a mark of deletion") from error
    if not (isinstance(mark.installation, str) and isinstance(mark.rse, str) and isinstance(mark.epoch, int)):
        raise Unreadable("not a mark of deletion")
    return mark


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is deleted at a storage."""

    code: str
    reason: str


def judge(
    found: Mark | Refusal | None, *, installation: str, rse: str, epoch: int, has_mark: bool
) -> Refusal | None:
    """Judge what was found at a storage; None when deletion may begin.

    Parameters
    ----------
    found
        The mark, None when there is none, or why it could not be read.
    installation, rse, epoch
        Of this catalogue; the epoch was read after the mark.
    has_mark
        Whether this catalogue has left one there.
    """
    fault = _fault(found, installation=installation, rse=rse, epoch=epoch, has_mark=has_mark)
    if fault is None:
        return None
    step = f"when that is as it should be: arriero deletion go --rse {rse} --take-over"
    return Refusal(fault.code, f"{fault.reason}; {step}")


def _fault(
    found: Mark | Refusal | None, *, installation: str, rse: str, epoch: int, has_mark: bool
) -> Refusal | None:
    if isinstance(found, Refusal):
        return found
    if found is None:
        gone = f"the mark that Arriero left at {rse} is not there: is its storage mounted?"
        return Refusal(GONE, gone) if has_mark else None
    if found.installation != installation:
        return Refusal(FOREIGN, f"another Arriero ({found.installation}) deletes at the storage of {rse}")
    if found.rse != rse:
        same = f"the storage of {rse} is that of {found.rse}: a copy at one is no copy beside the other"
        return Refusal(SHARED, same)
    if found.epoch > epoch:
        return Refusal(
            REWOUND,
            f"the storage of {rse} knows a newer catalogue ({found.epoch}, this one is at {epoch}): it was restored from "
            "a backup or copied, and may believe in copies that were deleted since; audit its RSEs first",
        )
    return None
