"""What every service is made of, and on whose behalf it acts."""

from dataclasses import dataclass

from arriero.registry.database import Database
from arriero.registry.ports import Doorbell, RuleEngine, TransferDesk
from arriero.registry.settings import Settings
from arriero.registry.states import Role


@dataclass(frozen=True, slots=True)
class Context:
    """The process's database, settings, doorbell, rule engine and transfer desk; handed to every service."""

    database: Database
    settings: Settings
    doorbell: Doorbell
    engine: RuleEngine | None = None
    """None: nothing that needs it can be asked for."""
    desk: TransferDesk | None = None
    """None: no mover of a site can work."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an authenticated account, and what its token is bound to."""

    account_id: int
    account: str
    role: Role
    token_id: int | None = None
    rses: frozenset[str] = frozenset()
    butlers: frozenset[str] = frozenset()
    request_id: str | None = None
