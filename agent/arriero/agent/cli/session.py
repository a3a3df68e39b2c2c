"""What the commands share: settings, the client, and where results go. Made when first asked for."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.files import first_line, read_settings
from arriero.agent.cli.output import Format, Output

if TYPE_CHECKING:
    from arriero.registry.client import RegistryClient
    from arriero.registry.settings import ClientSettings, Settings

SECRET = "**********"  # noqa: S105 - what is shown in its place


class Session:
    """One invocation of ``arriero``.

    Parameters
    ----------
    flags
        Client settings that were given as options; the others come from the environment, the file, the defaults.
    commands
        Names of the commands, whose options have environment variables too.
    error_on_nothing
        Whether finding nothing is an error.
    """

    def __init__(
        self,
        flags: Mapping[str, Any],
        *,
        commands: frozenset[str] = frozenset(),
        error_on_nothing: bool = False,
    ) -> None:
        self.flags = {key: value for key, value in flags.items() if value is not None}
        self._commands = commands
        self._error_on_nothing = error_on_nothing

    @cached_property
    def settings(self) -> "ClientSettings":
        """Settings of the client: flags over environment over file over defaults."""
        from arriero.registry.settings import ClientSettings, refuse_unknown_environment

        refuse_unknown_environment(self._commands)
        _file_settings()
        return ClientSettings(**self.flags)

    @cached_property
    def central_settings(self) -> "Settings":
        """Settings of the central processes: environment over file over defaults."""
        from arriero.registry.settings import Settings, refuse_unknown_environment

        refuse_unknown_environment(self._commands)
        _file_settings()
        return Settings()

    @cached_property
    def output(self) -> Output:
        """Where results go."""
        chosen = self.settings.output
        if chosen is not None and chosen not in set(Format):
            raise click.UsageError(f"output: {chosen!r} is not one of {', '.join(Format)}")
        return Output(
            Format(chosen) if chosen else None,
            progress=self.settings.progress,
            error_on_nothing=self._error_on_nothing,
        )

    @cached_property
    def client(self) -> "RegistryClient":
        """The registry; connects at the first call."""
        from arriero.registry.client import RegistryClient

        settings = self.settings
        password = settings.password.get_secret_value() if settings.password else None
        if password is None and settings.password_file is not None:
            password = first_line(settings.password_file, "password file")
        client = RegistryClient(
            settings.url,
            token=settings.token.get_secret_value() if settings.token else None,
            token_file=settings.token_file,
            account=settings.account,
            username=settings.username,
            password=password,
            ca_bundle=settings.ca_bundle,
            timeout=settings.timeout_s,
        )
        context = click.get_current_context(silent=True)
        if context is not None:
            context.find_root().call_on_close(client.close)
        return client

    def effective(self) -> list[dict[str, str]]:
        """Every client setting with its value, secrets masked, and where it came from."""
        from arriero.registry.settings import PREFIX, ClientSettings

        values = self.settings
        in_file = _file_settings()
        rows = []
        for name, field in ClientSettings.model_fields.items():
            value = getattr(values, name)
            if name in self.flags:
                origin = "flag"
            elif PREFIX + name.upper() in os.environ:
                origin = f"environment {PREFIX}{name.upper()}"
            elif name in in_file:
                origin = f"file {os.environ['ARRIERO_CONFIG']}"
            else:
                origin = "default"
            secret = value is not None and "SecretStr" in str(field.annotation)
            shown = "" if value is None else SECRET if secret else str(value)
            rows.append({"setting": name, "value": shown, "origin": origin})
        return rows


pass_session = click.make_pass_decorator(Session)


def _file_settings() -> dict[str, Any]:
    """What the settings file says; read before pydantic does, whose errors name no file."""
    path = os.environ.get("ARRIERO_CONFIG")
    return read_settings(Path(path)) if path else {}
