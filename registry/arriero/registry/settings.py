"""Settings of the central processes and of clients: environment over file over default.

Every setting is ``ARRIERO_<NAME>`` in the environment, or ``<name>`` in the YAML file that ``ARRIERO_CONFIG`` names.
Keys that nobody knows are refused, in both; one file may hold what a server and what a client reads.
"""

import os
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from typing_extensions import override

from arriero.registry.errors import InvalidInput

PREFIX = "ARRIERO_"
_NOT_SETTINGS = frozenset({"ARRIERO_CONFIG"})
_FOREIGN_PREFIXES = ("ARRIERO_TEST_", "ARRIERO_DEMO_")


class UnknownSettings(InvalidInput, ValueError):
    """A key of the file or a variable of the environment names no setting."""

    code = "unknown_settings"


class OidcIssuer(BaseModel):
    """An issuer of bearer tokens that is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    """Its URL, exactly as its tokens name it in ``iss``."""
    audience: tuple[str, ...] = Field(min_length=1)
    """What a token may name in ``aud`` to be meant for this service; one is enough."""
    wlcg: bool = False
    """Whether its tokens have to follow the WLCG profile, that is, carry ``wlcg.ver``."""
    ca_bundle: Path | None = None
    """Certificate authorities to trust for it, PEM; the system's when missing."""
    allow_http: bool = False
    """Whether its URL may be ``http`` on this machine; for tests."""

    @field_validator("audience", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sound(self) -> "OidcIssuer":
        # it stands between commas in the name of an identity
        if any(c in self.issuer for c in ", \t\r\n") or urlsplit(self.issuer).query:
            raise ValueError("an issuer is a URL without commas, spaces and query")
        self.require_safe(self.issuer)
        return self

    def require_safe(self, url: str) -> None:
        """Refuse a URL that keys must not be fetched from.

        Raises
        ------
        ValueError
            It is not ``https``, nor ``http`` on this machine where that is allowed.
        """
        parts = urlsplit(url)
        if parts.username is not None or not parts.hostname or parts.fragment:
            raise ValueError("a URL of an issuer has a host, and no user or fragment")
        if parts.scheme == "https" or (
            parts.scheme == "http" and self.allow_http and _is_loopback(parts.hostname)
        ):
            return
        raise ValueError("an issuer is reached by https (by http on this machine only, with allow_http)")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _FromEnvironmentAndFile(BaseSettings):
    # what the other class reads is passed over; what neither knows is refused by `refuse_unknown_keys`
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = [init_settings, env_settings]
        if path := os.environ.get("ARRIERO_CONFIG"):
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=Path(path)))
        return tuple(sources)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, values: dict[str, object]) -> dict[str, object]:
        refuse_unknown_keys(values)
        return values


class Settings(_FromEnvironmentAndFile):
    """Settings of ``arriero serve``, ``arriero up``, ``arriero admin`` and the Celery workers and beat."""

    database_url: SecretStr = SecretStr("sqlite:///arriero.db")
    """SQLAlchemy URL of the catalogue: ``postgresql://...`` or ``sqlite:///PATH``."""
    broker_url: SecretStr = SecretStr("memory://")
    """Celery's broker: ``redis://...``, or ``memory://`` within one process."""
    database_pool_size: int = Field(default=10, ge=1)
    """Connections that one process keeps; as many again may be opened under load."""
    session_token_lifetime_s: int = Field(default=3600, ge=60)
    """How long the token of a login holds, seconds."""
    x509_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses or networks of the proxies that may say whose certificate they have verified; none by default."""
    x509_subject_header: str = "X-SSL-Client-S-DN"
    """Header in which they pass the certificate's subject."""
    x509_verify_header: str = "X-SSL-Client-Verify"
    """Header that has to be ``SUCCESS``: a proxy may ask for a certificate without verifying it."""
    x509_issuer_header: str = "X-SSL-Client-I-DN"
    """Header with the certificate's issuer; without it a grid proxy certificate is not its owner's."""
    oidc_issuers: tuple[OidcIssuer, ...] = ()
    """Issuers of bearer tokens: JSON list of ``issuer``, ``audience``, and if need be ``wlcg``, ``ca_bundle``."""
    oidc_leeway_s: int = Field(default=60, ge=0, le=300)
    """How far an issuer's clock may be off, seconds."""
    oidc_keys_refresh_s: float = Field(default=300, gt=0)
    """How old the keys of an issuer may be before they are fetched again, seconds."""
    oidc_keys_max_age_s: float = Field(default=3600, gt=0)
    """How old they may be while the issuer cannot be reached, seconds."""
    oidc_refetch_s: float = Field(default=30, ge=0)
    """Shortest time between two attempts to fetch them: tokens with unknown keys cause no flood, seconds."""
    oidc_timeout_s: float = Field(default=5, gt=0)
    """How long an issuer may take to answer, seconds."""
    account_usage_interval_s: float = Field(default=3600, gt=0)
    """How often the usage of the accounts is written into its history, seconds."""
    account_usage_keep_days: int = Field(default=400, ge=1)
    """How long that history is kept, days."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Largest body of a call that is read, bytes."""
    body_timeout_s: float = Field(default=30, gt=0)
    """How long the body of a call may take to come, seconds; with a second more for each 64 KiB that have come."""
    max_bulk_items: int = Field(default=10_000, ge=1)
    """Most items in one bulk call."""
    evaluation_chunk_files: int = Field(default=20_000, ge=1)
    """Most files that one transaction of an evaluation looks at; other rules pass between two."""
    evaluation_lease_s: float = Field(default=300, gt=0)
    """How long a claimed evaluation is held without finishing a chunk, seconds."""
    transfer_threads: int = Field(default=8, ge=1)
    """Copies that one worker process has under way at once."""
    transfer_batch: int = Field(default=1000, ge=1)
    """Requests that one worker process holds, and settles together, at most; as many as it copies in four seconds or so."""
    activity_shares: dict[str, float] = Field(default_factory=dict)
    """Shares of activities in what is copied to one RSE, of one priority; 1 for those not named: ``{"Express": 3}``."""
    transfer_lease_s: float = Field(default=30, gt=0)
    """How long a claimed request is held without a heartbeat, seconds."""
    transfer_max_attempts: int = Field(default=6, ge=1)
    """Attempts of one request before its lock is STUCK."""
    transfer_backoff_s: float = Field(default=2, gt=0)
    """Wait before the second attempt, seconds; doubles with each, with jitter."""
    transfer_backoff_max_s: float = Field(default=900, gt=0)
    """Longest wait between two attempts, seconds."""
    deletion_threads: int = Field(default=16, ge=1)
    """Deletions that one worker process asks of one RSE at once."""
    deletion_batch: int = Field(default=1000, ge=1)
    """Deletions that one claim takes and one settlement reports at most, and how many of an RSE may wait after failures."""
    deletion_lease_s: float = Field(default=60, gt=0)
    """How long a claimed deletion is held without a heartbeat, seconds."""
    deletion_grave_s: float = Field(default=180, ge=0)
    """How long the path of a deletion is kept free after an attempt that nobody saw end, seconds: longer than any request takes."""
    deletion_backoff_s: float = Field(default=30, gt=0)
    """Wait before a deletion that failed, or an RSE that did not answer, is tried again, seconds; doubles, with jitter."""
    deletion_backoff_max_s: float = Field(default=21600, gt=0)
    """Longest wait between two attempts of a deletion, seconds (6 h)."""
    stuck_retry_s: float = Field(default=7200, gt=0)
    """When a stuck rule is looked at again if nothing else wakes it, seconds (DESIGN section 5: 2 h at first)."""
    stuck_suspend_days: float = Field(default=14, gt=0)
    """A stuck rule of which nothing has succeeded for so long is suspended, days."""
    announced_deadline_s: float = Field(default=86400, gt=0)
    """How long a replica may be COPYING that a client has announced and nobody copies, seconds (24 h)."""
    audit_confirm_s: float = Field(default=86400, ge=0)
    """How far apart two audits have to be that find the same, before anything is done about it, seconds (24 h)."""
    audit_margin_s: float = Field(default=3600, ge=0)
    """What has changed in the catalogue so long before the moment of a dump, or since, is not judged by it, seconds."""
    audit_brake_share: float = Field(default=0.05, ge=0, le=1)
    """An audit that finds more than this part of the replicas missing or wrong, or of its lines dark, counts for nothing."""
    audit_brake_files: int = Field(default=10, ge=0)
    """So many missing, wrong or dark files are always believed."""
    scrub_bytes_per_s: float = Field(default=0, ge=0)
    """Pace at which replicas are read again, at each RSE, bytes a second; 0 reads only those that are doubted."""
    scrub_files: int = Field(default=100, ge=1)
    """Replicas that one round reads at one RSE at most."""
    scrub_threads: int = Field(default=4, ge=1)
    """Replicas that one worker process reads at once."""
    scrub_age_days: float = Field(default=90, ge=0)
    """A replica is read again when it was verified longer ago, days; the longest first."""
    scrub_confirm_s: float = Field(default=600, ge=0)
    """How far apart two looks at a replica have to be that find it missing or wrong, seconds (10 min)."""
    suspicious_count: int = Field(default=5, ge=1)
    """A replica that was declared suspicious so often is bad, if another one was verified."""
    suspicious_days: float = Field(default=5, gt=0)
    """Within which time it has to be declared suspicious so often, days."""
    suspicious_brake_files: int = Field(default=100, ge=1)
    """Where more replicas than this would become bad at one RSE, the RSE itself is at fault, and none does."""
    sweep_s: float = Field(default=5, gt=0)
    """How often each queue is swept for what is due, seconds."""
    arrival_max_attempts: int = Field(default=10, ge=1)
    """Attempts to ingest one arrival before it is failed; an outage of the Butler does not count."""
    history_months: int = Field(default=13, ge=1, le=1200)
    """Whole months before this one of which audit, events and the histories of rules and requests are kept."""
    credentials_file: Path | None = None
    """YAML: for each RSE name, where its credentials lie (``docs/operations/README.md``). The database holds none."""
    fts_url: str | None = Field(default=None, pattern="^https?://[^/?#@]+/?$")
    """REST interface of an FTS that has storages copy which speak HTTP; without it the workers have them copy."""
    fts_token_file: Path | None = None
    """Holds the bearer token that opens the FTS; read for each call."""
    fts_ca_bundle: Path | None = None
    """Authorities by which the FTS is trusted; the system's by default."""
    log_level: str = "INFO"
    """Lowest level that is logged."""

    @field_validator("oidc_issuers")
    @classmethod
    def _each_issuer_once(cls, issuers: tuple[OidcIssuer, ...]) -> tuple[OidcIssuer, ...]:
        if len({one.issuer for one in issuers}) < len(issuers):
            raise ValueError("an issuer is named twice: give all its audiences in one entry")
        return issuers


class ClientSettings(_FromEnvironmentAndFile):
    """How a client (CLI, site agent) reaches the catalogue and who it is."""

    url: str = "http://127.0.0.1:8080"
    """Base URL of the registry service."""
    token: SecretStr | None = None
    """Token to send; that of a site agent comes from `arriero token create`."""
    token_file: Path | None = None
    """File that holds the token; read again when it changes."""
    account: str | None = None
    """Account to act for when logging in with a user name."""
    username: str | None = None
    """User name to log in with."""
    password: SecretStr | None = None
    """Password to log in with; `password_file` keeps it out of the environment."""
    password_file: Path | None = None
    """File with the password on its first line."""
    ca_bundle: Path | None = None
    """Certificate authorities to trust, PEM."""
    timeout_s: float = Field(default=60, gt=0)
    """Longest silence of the registry, seconds."""
    output: str | None = None
    """How commands write results: table, json, jsonl or csv."""
    progress: bool | None = None
    """Whether long commands show their progress; by default on a terminal."""


def refuse_unknown_keys(values: Mapping[str, object]) -> None:
    """Refuse keys that name no setting: a typing error must not pass for a default.

    Parameters
    ----------
    values
        What a file and the caller gave, by name of the setting.

    Raises
    ------
    UnknownSettings
        Names the keys.
    """
    known = {name for model in (Settings, ClientSettings) for name in model.model_fields}
    _refuse(sorted(key for key in values if key not in known))


def refuse_unknown_environment(commands: Collection[str] = ()) -> None:
    """Refuse variables ``ARRIERO_*`` that name no setting. Every process calls this once, at its start.

    Parameters
    ----------
    commands
        Names of commands, whose options may come from ``ARRIERO_<COMMAND>_<OPTION>``.

    Raises
    ------
    UnknownSettings
        Names the variables.
    """
    known = {PREFIX + name.upper() for model in (Settings, ClientSettings) for name in model.model_fields}
    prefixes = (*_FOREIGN_PREFIXES, *(f"{PREFIX}{command.upper()}_" for command in commands))
    _refuse(
        sorted(
            name
            for name in os.environ
            if name.startswith(PREFIX) and name not in known | _NOT_SETTINGS and not name.startswith(prefixes)
        )
    )


def _refuse(unknown: list[str]) -> None:
    if unknown:
        raise UnknownSettings(
            f"unknown settings: {', '.join(unknown)}; docs/reference/settings.md lists those that there are"
        )
