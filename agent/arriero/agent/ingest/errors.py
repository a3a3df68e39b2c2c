"""What can go wrong between a file and the Butler, as words that a report can carry.

Why it exists: an outcome needs a stable code and whether trying again may help; the exception that was
raised deep down decides both, not the place where it is caught.
"""

from __future__ import annotations

from arriero.agent.errors import AgentError


class IngestError(AgentError):
    """Something about one file or one repository; `retryable` means: later, without anyone's help."""

    code = "ingest_error"


class InstrumentMapError(IngestError):
    """An instrument's YAML cannot be used."""

    code = "instrument_map"
    exit_code = 2

    def __init__(self, source: str, cause: str) -> None:
        super().__init__(f"Instrument map {source}: {cause}. Correct the file.")
        self.source = source


class HeaderError(IngestError):
    """A header lacks something, or holds something that the instrument's map cannot read."""

    code = "bad_header"

    def __init__(self, field: str, cause: str) -> None:
        super().__init__(f"Cannot make {field!r} from the header: {cause}")
        self.field = field


class MissingDimension(HeaderError):
    """A dimension value that must be registered before the file can be ingested."""

    code = "missing_dimension"

    def __init__(self, field: str, waits_for: str) -> None:
        super().__init__(field, f"{waits_for} is not registered. Register it; the file is then ingested.")
        self.waits_for = waits_for


class UnrecognisedFile(IngestError):
    """Nothing tells what a file is."""

    code = "unrecognised_file"

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name} {cause}. Narrow what this Butler takes, or declare what it is.")
        self.name = name


class BadDescription(IngestError):
    """What came with a file to describe it, or a file that describes others, cannot be used."""

    code = "bad_description"

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}. Correct it at its source, then: arriero arrival retry.")
        self.name = name


class WaitsFor(IngestError):
    """A file that needs something which is not there yet, by its name."""

    code = "missing_prerequisite"
    retryable = True

    def __init__(self, waits_for: str, cause: str) -> None:
        super().__init__(f"{cause}. It is ingested when that is there.")
        self.waits_for = waits_for


class MalformedFits(IngestError):
    """A file is not FITS, or is cut short."""

    code = "malformed_fits"

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(f"{uri} is not readable as FITS: {cause}. Replace it at its source.")
        self.uri = uri


class FileVanished(IngestError):
    """The storage does not have the file that the catalogue says it has."""

    code = "file_missing"
    retryable = True

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri} is not at the storage. Check the replica (arriero trace).")
        self.uri = uri


class SizeDiffers(IngestError):
    """The storage has another number of bytes than the catalogue has verified."""

    code = "size_differs"

    def __init__(self, uri: str, found: int, expected: int) -> None:
        super().__init__(
            f"{uri} has {found} bytes, the catalogue verified {expected}. Declare the replica bad."
        )
        self.uri = uri
        self.found = found
        self.expected = expected


class StorageUnavailable(IngestError):
    """The storage could not be asked; `away` when not even a connection was had."""

    code = "storage_unavailable"
    exit_code = 5
    retryable = True

    def __init__(self, uri: str, cause: str, *, away: bool = False) -> None:
        super().__init__(f"Cannot read {uri}: {cause}. It is tried again.")
        self.uri = uri
        self.cause = cause
        self.away = away


class UnreadableUri(IngestError):
    """Nothing that is installed at this site reads such a URI."""

    code = "unreadable_uri"

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(
            f"Cannot read {uri}: {cause}. Give the Butler a URI prefix for that RSE that readers here can open "
            "(arriero butler add --rse RSE=URI_PREFIX), or install what reads it."
        )
        self.uri = uri


class FirstFailure(IngestError):
    """The file at which an agent ends that was told to end at the first failure."""

    code = "first_failure"

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"Ended at the first failure, {name}: {cause}")
        self.name = name


class ButlerUnavailable(IngestError):
    """The Butler's repository or its database could not be reached: nothing is said about any file."""

    code = "butler_unavailable"
    exit_code = 5
    retryable = True

    def __init__(self, repository: str, cause: str) -> None:
        super().__init__(f"Butler {repository} cannot be reached: {cause}. It is tried again.")
        self.repository = repository


class ButlerRefusesAll(IngestError):
    """The Butler refuses files of many exposures and accepts none: the cause is not in a file."""

    code = "butler_refuses_all"
    retryable = True

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"The Butler refuses every file: {cause}. Look at the repository; it is tried again."
        )


class UnsuitableRepository(IngestError):
    """A repository that this code must not, or cannot, write into."""

    code = "unsuitable_repository"
    exit_code = 4

    def __init__(self, repository: str, cause: str) -> None:
        super().__init__(f"Butler {repository} cannot be written into: {cause}")
        self.repository = repository
