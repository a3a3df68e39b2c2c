"""What a storage can do beyond what every one must: data, learnt from it, kept by whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Abilities:
    """What one storage can do, and how that is known.

    It survives `as_dict` and `from_dict`, so that a database can keep what one process has learnt for the others
    (`StorageProtocol.remember`).
    """

    third_party_pull: bool
    """It fetches from another storage by itself."""
    third_party_push: bool
    """It sends to another storage by itself."""
    digest_algorithms: frozenset[str]
    """Checksums that it gives without the bytes being read by us (`adler32`)."""
    move: bool
    """It renames; where it cannot, a copy is written under its final name."""
    move_refuses: bool
    """A move onto a name that is taken is refused by the storage; where it is not, the name is looked at first."""
    ranges: bool
    """It gives a part of a file."""
    list_directory: bool
    """It lists folders."""
    fragile_digests: bool = False
    """Asking for a checksum that is not stored yet may bring the server down: small files are read instead."""
    pull_reason: str = ""
    """Why it does or does not pull, for `CopyResult.mode_reason`."""
    push_reason: str = ""
    """The same of pushing."""
    server: str = ""
    """What the server calls itself."""
    is_proved: bool = False
    """Found out by trial, with files of our own; otherwise from what the server says of itself."""

    def as_dict(self) -> dict[str, Any]:
        """Give plain values that JSON holds."""
        return {**asdict(self), "digest_algorithms": sorted(self.digest_algorithms)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make it of what `as_dict` has given, by this version or another: what is not known is left out.

        Raises
        ------
        TypeError
            If something that is needed is missing.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**{**known, "digest_algorithms": frozenset(known.get("digest_algorithms", ()))})
