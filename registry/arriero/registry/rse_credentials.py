"""Where the credentials of RSEs are: a file that names them, read by whoever moves bytes, in the centre and at sites."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from arriero.registry.errors import InvalidInput


class RseCredentials(BaseModel):
    """Where the credentials for an RSE are read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_bundle: str | None = None
    token_file: str | None = None


Credentials = Mapping[str, RseCredentials]


def read_credentials(path: Path | None) -> Credentials:
    """Read the file that says where each RSE's credentials are.

    Parameters
    ----------
    path
        YAML: for each RSE name, ``ca_bundle`` and ``token_file``; None for no credentials at all.

    Raises
    ------
    InvalidInput
        It cannot be read, or holds something else.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text()) or {}
        return TypeAdapter(dict[str, RseCredentials]).validate_python(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise InvalidInput(
            f"credentials file {path}: {error}; it holds ca_bundle and token_file for each RSE name"
        ) from error
