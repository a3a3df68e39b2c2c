"""What can go wrong at the command line and at the sites, before or beside the registry.

::

    AgentError
    ├── AddressInUse          something listens there already
    └── DirectoryInUse        another `arriero up` has this directory
"""

from typing import ClassVar


class AgentError(Exception):
    """A command could not do what was asked."""

    code: ClassVar[str] = "agent_error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class AddressInUse(AgentError):
    """Something listens there already, or the address is not this machine's."""

    code = "address_in_use"
    exit_code = 4


class DirectoryInUse(AgentError):
    """Another `arriero up` has this directory."""

    code = "directory_in_use"
    exit_code = 4
