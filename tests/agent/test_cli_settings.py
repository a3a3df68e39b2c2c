"""Where settings come from: flag over environment over file over default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import cli as support_cli

cli = support_cli.cli


def shown(ended):
    return {row["setting"]: (row["value"], row["origin"]) for row in ended.json}


def test_each_setting_tells_where_it_comes_from(cli, tmp_path, monkeypatch):
    config = tmp_path / "arriero.yaml"
    config.write_text("url: http://file:1\naccount: from-file\nusername: from-file\npassword: hidden\n")
    monkeypatch.setenv("ARRIERO_CONFIG", str(config))
    monkeypatch.setenv("ARRIERO_ACCOUNT", "from-environment")
    monkeypatch.setenv("ARRIERO_USERNAME", "from-environment")
    told = cli("-o", "json", "--username", "from-flag", "config", "show", "--origin")
    settings = shown(told)
    assert settings["username"] == ("from-flag", "flag")
    assert settings["account"] == ("from-environment", "environment ARRIERO_ACCOUNT")
    assert settings["url"] == ("http://file:1", f"file {config}")
    assert settings["timeout_s"] == ("60.0", "default")
    assert settings["password"] == ("**********", f"file {config}")
    assert "hidden" not in told.out + told.err


def test_the_file_may_be_named_by_a_flag(cli, tmp_path):
    config = tmp_path / "arriero.yaml"
    config.write_text("url: http://file:1\n")
    assert (
        shown(cli("-o", "json", "--config", str(config), "config", "show", "--origin"))["url"][0]
        == "http://file:1"
    )


def test_options_of_commands_come_from_the_environment_too(cli, monkeypatch):
    monkeypatch.setenv("ARRIERO_RSE_PROTOCOL_ADD_PREFIX", "/raw")
    monkeypatch.setenv("ARRIERO_RSE_PROTOCOL_ADD_SCHEME", "davs")
    told = cli("-o", "json", "rse", "protocol", "add", "DISK", "--dry-run")
    assert (told.json["prefix"], told.json["scheme"]) == ("/raw", "davs")


def test_a_wrong_value_is_refused_and_a_secret_not_repeated(cli, tmp_path, monkeypatch):
    config = tmp_path / "arriero.yaml"
    config.write_text("password: [hidden]\ntimeout_s: soon\n")
    told = cli("--config", str(config), "config", "show", expect=2)
    assert "timeout_s" in told.err
    assert "password" in told.err
    assert "hidden" not in told.err
    monkeypatch.setenv("ARRIERO_TIMEOUT_S", "soon")
    assert "--timeout" in cli("config", "show", expect=2).err


def test_output_may_be_a_setting(cli, monkeypatch):
    monkeypatch.setenv("ARRIERO_OUTPUT", "csv")
    assert cli("config", "show").lines[0] == "setting,value"
    monkeypatch.setenv("ARRIERO_OUTPUT", "xml")
    cli("config", "show", expect=2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli, shell):
    assert "_ARRIERO_COMPLETE" in cli("completion", shell).out


def test_completion_completes():
    done = subprocess.run(
        [Path(sys.executable).parent / "arriero"],
        env={
            "PATH": os.environ["PATH"],
            "_ARRIERO_COMPLETE": "bash_complete",
            "COMP_WORDS": "arriero rule a",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "add" in done.stdout


def test_every_command_has_help(cli):
    from arriero.agent.cli.main import COMMANDS

    for name in COMMANDS:
        told = cli(name, "-h")
        assert told.out.startswith(f"Usage: arriero {name}")
    assert "arriero 0." in cli("--version").out


def test_json_objects_are_asked_for_as_such(cli):
    words = ("rse", "protocol", "add", "DISK", "--scheme", "davs", "--prefix", "/", "-n", "--domain-json")
    assert "not JSON" in cli(*words, "{", expect=2).err
    assert "not a JSON object" in cli(*words, "[]", expect=2).err
    domains = {"wan": {"read": 2}}
    assert cli("-o", "json", *words, json.dumps(domains)).json["domains"] == domains
