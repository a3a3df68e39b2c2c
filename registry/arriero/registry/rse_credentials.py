"""Where the credentials of RSEs are: a file that names them, read by whoever moves bytes, in the centre and at sites."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from arriero.registry.errors import InvalidInput
from arriero.rse.types import Endpoint


class RseCredentials(BaseModel):
    """Where the credentials for an RSE are read from; as in `Endpoint`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_bundle: str | None = None
    token_file: str | None = None
    finds_token: bool = False
    password_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    gives_macaroons: bool = False

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Self:
        if sum((self.token_file is not None, self.finds_token, self.password_file is not None)) > 1:
            raise ValueError("token_file, finds_token and password_file exclude each other")
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file is the key of a certificate_file")
        return self

    def of(self, endpoint: Endpoint) -> Endpoint:
        """Give an endpoint of that RSE with these."""
        return replace(endpoint, **self.model_dump())


Credentials = Mapping[str, RseCredentials]

# what somebody has written there by mistake may be the credential itself
_FILE = TypeAdapter(dict[str, RseCredentials], config=ConfigDict(hide_input_in_errors=True))


def read_credentials(path: Path | None) -> Credentials:
    """Read the file that says where each RSE's credentials are.

    Parameters
    ----------
    path
        YAML: for each RSE name the fields of `RseCredentials`; None for no credentials at all.

    Raises
    ------
    InvalidInput
        It cannot be read, or holds something else.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text()) or {}
        return _FILE.validate_python(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise InvalidInput(
            f"credentials file {path}: {error}; it holds {', '.join(RseCredentials.model_fields)} for each RSE name"
        ) from error
