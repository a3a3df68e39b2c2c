"""Where the credentials of storages are: names in a file, never the credentials."""

from __future__ import annotations

from dataclasses import fields

import pytest

from arriero.agent.storage_files import UnusableCredentials
from arriero.agent.storage_files import read_credentials as read_for_one
from arriero.registry.errors import InvalidInput
from arriero.registry.rse_credentials import RseCredentials, read_credentials
from arriero.rse.types import Endpoint

BARE = Endpoint("IN2P3", "davs", "se.example", 1094, "/raw")


def test_every_way_to_open_a_storage_can_be_named(tmp_path) -> None:
    own = {"rse", "scheme", "hostname", "port", "prefix"}
    assert {field.name for field in fields(Endpoint)} - own == set(RseCredentials.model_fields)
    path = tmp_path / "rses.yaml"
    path.write_text(
        "IN2P3: {ca_bundle: /ca.pem, certificate_file: /proxy.pem, gives_macaroons: true}\n"
        "SLAC: {finds_token: true}\n"
        "RAL: {password_file: /password}\n"
    )
    known = read_credentials(path)
    opened = known["IN2P3"].of(BARE)
    assert (opened.ca_bundle, opened.certificate_file, opened.gives_macaroons) == (
        "/ca.pem",
        "/proxy.pem",
        True,
    )
    assert known["SLAC"].of(BARE).finds_token
    assert known["RAL"].of(BARE).password_file == "/password"
    assert read_for_one(path, "NOBODY").of(BARE) == BARE
    assert read_for_one(None, "IN2P3").of(BARE) == BARE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("X: {token_file: /t, finds_token: true}", "exclude each other"),
        ("X: {token_file: /t, password_file: /p}", "exclude each other"),
        ("X: {key_file: /k}", "key of a certificate_file"),
        ("X: {token: secret}", "token_file, finds_token"),
        ("[", "credentials file"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, content: str, says: str) -> None:
    path = tmp_path / "rses.yaml"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=says) as caught:
        read_credentials(path)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(UnusableCredentials, match=says):
        read_for_one(path, "X")
