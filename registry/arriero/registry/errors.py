"""What can go wrong in the registry, as callers see it.

::

    RegistryError
    ├── NotFound            the thing that was named is not there
    ├── Conflict            it is there already, or is not in a state for this
    ├── InvalidInput        what was sent cannot be meant
    ├── NotAuthenticated    who are you?
    │   └── NoCredential    nothing was said about it
    ├── NotAllowed          not with these rights
    ├── TooLarge            more than one call may carry
    │   ├── UriTooLong      in its path or query
    │   └── HeadersTooLarge in its headers
    ├── TooSlow             the body did not come in time
    ├── Unsupported         Rucio has it, Arriero not yet
    └── Busy                try again later

``rucio_class`` is the class that the official Rucio client raises for it (headers ``ExceptionClass`` and
``ExceptionMessage``); ``code`` is ours and stable.
"""

from typing import ClassVar


class RegistryError(Exception):
    """The registry could not do what was asked."""

    code: ClassVar[str] = "registry_error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, rucio_class: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.rucio_class = rucio_class or self.default_rucio_class
        self.stable_code = code or self.code

    default_rucio_class: ClassVar[str] = "RucioException"


class NotFound(RegistryError):
    """The thing that was named is not there."""

    code = "not_found"
    http_status = 404
    exit_code = 3
    default_rucio_class = "RucioException"


class Conflict(RegistryError):
    """It is there already, or is not in a state in which this can be done."""

    code = "conflict"
    http_status = 409
    exit_code = 4
    default_rucio_class = "Duplicate"


class InvalidInput(RegistryError):
    """What was sent cannot be meant."""

    code = "invalid_input"
    http_status = 400
    exit_code = 2
    default_rucio_class = "InputValidationError"


class NotAuthenticated(RegistryError):
    """Nobody, or nobody known, is asking."""

    code = "not_authenticated"
    http_status = 401
    exit_code = 6
    default_rucio_class = "CannotAuthenticate"


class NoCredential(NotAuthenticated):
    """The caller said nothing of who is asking."""


class NotAllowed(RegistryError):
    """The caller is known and has not the right."""

    code = "not_allowed"
    http_status = 403
    exit_code = 6
    default_rucio_class = "AccessDenied"


class Busy(RegistryError):
    """Not now; the same call may succeed later."""

    code = "busy"
    http_status = 503
    exit_code = 5
    retryable = True
    default_rucio_class = "DatabaseException"


class TooLarge(RegistryError):
    """More was sent than one call may carry."""

    code = "too_large"
    http_status = 413
    exit_code = 2
    default_rucio_class = "InputValidationError"


class UriTooLong(TooLarge):
    """The path or the query is longer than any that means something."""

    code = "uri_too_long"
    http_status = 414


class HeadersTooLarge(TooLarge):
    """The headers hold more than any that mean something."""

    code = "headers_too_large"
    http_status = 431


class TooSlow(RegistryError):
    """The body did not come in the time that it has."""

    code = "too_slow"
    http_status = 408
    exit_code = 5
    retryable = True


class Unsupported(RegistryError):
    """Rucio has it and this version of Arriero has not."""

    code = "unsupported"
    http_status = 501
    exit_code = 7
    default_rucio_class = "UnsupportedOperation"
