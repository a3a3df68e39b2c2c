"""Files and addresses that cannot be meant: each error names the thing and the next step, and is no surprise."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import cli as support_cli

cli = support_cli.cli

BINARY = b"\x82\xff\x00"
BROKEN = b"a: [\n"
DEEP = b"[" * 20_000
LIST = b"- a\n"


@pytest.fixture
def hostile(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A YAML file with the content that the test is parametrised with; missing where there is none."""
    path = tmp_path / "hostile.yaml"
    if request.param is not None:
        path.write_bytes(request.param)
    return str(path)


def told(cli, *words: str, expect: int = 2) -> str:
    ended = cli(*words, expect=expect)
    assert "-v to see" not in ended.err, "a surprise"
    return " ".join(ended.err.split())


every_content = pytest.mark.parametrize("hostile", [BINARY, BROKEN, DEEP, LIST], indirect=True)
every_bad_text = pytest.mark.parametrize("hostile", [None, BINARY], indirect=True)


@every_content
@pytest.mark.parametrize("words", [["ping"], ["config", "show"], ["admin", "db", "check"]])
def test_settings_files(cli, hostile, words):
    assert f"settings file {hostile}" in told(cli, "--config", hostile, *words)


@every_bad_text
def test_lists_of_names(cli, hostile):
    words = ("replica", "add", "--rse", "DISK", "--scope", "raw", "--from-file", hostile)
    assert hostile in told(cli, *words)
    assert hostile in told(cli, "did", "content", "add", "-f", "--to", "raw:x", hostile)


@every_bad_text
def test_password_files(cli, hostile):
    words = ("--url", "http://127.0.0.1:1", "--username", "root", "--password-file", hostile, "whoami")
    assert hostile in told(cli, *words)


@pytest.mark.parametrize("hostile", [BINARY, BROKEN, DEEP, LIST, None], indirect=True)
def test_instrument_maps(cli, hostile, tmp_path):
    words = ("butler", "create", str(tmp_path / "repo"), "--instrument", hostile)
    assert f"Instrument map {hostile}" in told(cli, *words)
    assert not (tmp_path / "repo").exists()


def test_addresses_of_databases(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("ARRIERO_DATABASE_URL", "hunter2")
    said = told(cli, "admin", "db", "check")
    assert "ARRIERO_DATABASE_URL" in said
    assert "hunter2" not in said, "it may hold a password"
    monkeypatch.setenv("ARRIERO_DATABASE_URL", "postgresql://arriero:hunter2@127.0.0.1:1/x")
    said = told(cli, "admin", "db", "upgrade", expect=5)
    assert "Connection refused" in said
    assert "ARRIERO_DATABASE_URL" in said
    assert "hunter2" not in said
    monkeypatch.setenv("ARRIERO_DATABASE_URL", f"sqlite:///{tmp_path}/no/such/folder.db")
    assert "ARRIERO_DATABASE_URL" in told(cli, "admin", "db", "upgrade", expect=5)


def test_folders_that_cannot_be_made(cli):
    assert "/proc/nowhere" in told(cli, "up", "--dir", "/proc/nowhere")
