"""The words of `GET /rules/{id}/explain`, shared by the API, the client and the command line.

Data only, as `arriero.registry.models`: a site without ``arriero[registry]`` can import it.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from arriero.registry.states import DidType, LockState, RequestState, RuleGrouping, RuleState


class _Answer(BaseModel):
    """What the registry sends; a newer registry may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DidPlace(_Answer):
    """A DID by its name."""

    scope: str
    name: str


class ExplainedRule(_Answer):
    """The rule in one line."""

    id: str
    account: str
    scope: str
    name: str
    did_type: DidType
    rse_expression: str
    copies: int
    grouping: RuleGrouping
    weight: str | None = None
    activity: str
    priority: int
    state: RuleState
    code: str | None = None
    reason: str | None = None
    since: datetime
    """When it came into this state."""
    created_at: datetime
    expires_at: datetime | None = None
    child_rule_id: str | None = None
    locks_ok: int
    locks_replicating: int
    locks_stuck: int
    bytes_left: int
    """Of the locks that are not OK."""


class NextLook(_Answer):
    """When the rule is looked at again."""

    state: Literal["none", "now", "due", "later"]
    """``none``: nothing about it is due. ``now``: a worker has it."""
    at: datetime | None = None
    """When it is due; with ``now``, when the worker's lease ends."""
    retry_at: datetime | None = None
    """When what is STUCK is tried again, if it has a time of its own."""
    attempt: int = 0
    """Evaluations that have failed in a row."""
    code: str | None = None
    reason: str | None = None
    """What the last evaluation ended with; why it failed, where ``attempt`` is above 0."""
    items_left: dict[str, int]
    """What has not been looked at, by kind."""


class ExplainedRse(_Answer):
    """One RSE that the rule's expression names, or where the rule has something."""

    rse: str
    chosen: bool
    code: str | None = None
    """Why nothing more can be placed there now; None when it can be chosen."""
    reason: str
    """Why it was chosen, or dropped."""
    trouble: str | None = None
    """What is wrong with one that was chosen."""
    groups: int = 0
    """Datasets that were placed there as a whole; with grouping ALL, one."""
    files: int = 0
    """Locks there; those that follow are parts of them."""
    bytes: int = 0
    ok_files: int = 0
    replicating_files: int = 0
    stuck_files: int = 0


class UnplacedGroups(_Answer):
    """Groups of files that have no place, for one reason."""

    code: str
    groups: int
    since: datetime
    """Of the oldest."""
    reason: str
    """Of the example."""
    example: DidPlace | None = None


class WaitExample(_Answer):
    """One of the files that wait."""

    scope: str
    name: str
    bytes: int
    attempt: int = 0
    next_attempt_at: datetime | None = None
    """When its copy is tried next; None when it is under way, or nothing happens by itself."""
    lease_until: datetime | None = None
    """A worker has it until then, or longer if it goes on."""
    last_error: str | None = None
    last_source: str | None = None
    last_at: datetime | None = None
    """When the last attempt began or ended."""


class Wait(_Answer):
    """Files that wait at one RSE for the same thing."""

    rse: str
    state: LockState
    code: str
    sentence: str
    """What they wait for."""
    files: int
    bytes: int
    since: datetime
    """Of the oldest lock."""
    request_state: RequestState | None = None
    """None: there is no request for a copy."""
    source: str | None = None
    """From where the copy comes, or came when it was tried last."""
    attempts: int = 0
    """Of the file that was tried most."""
    next_attempt_at: datetime | None = None
    """Of the first to be tried next."""
    last_attempt_at: datetime | None = None
    """Of the last of them to be tried next."""
    example: WaitExample | None = None


class Link(_Answer):
    """What is left to copy from one RSE, or from any, to another."""

    source: str | None = None
    destination: str
    files: int
    bytes: int
    running: int
    """Copies of this rule that are under way."""
    rate: float | None = None
    """Bytes a second of one copy; None when nothing has been copied lately."""
    basis: Literal["link", "destination", "unknown"]
    """Whether the rate is that of this link, or of all copies to the destination."""
    window_s: int | None = None
    """How far back the copies were that it was measured on, seconds."""
    copies_measured: int = 0
    eta_s: float | None = None


class Ending(_Answer):
    """When everything that can be copied will have been."""

    eta_s: float | None = None
    """Seconds from now; None when it cannot be said."""
    at: datetime | None = None
    reason: str
    """On what it rests, or why it cannot be said."""
    links: list[Link]


class Advice(_Answer):
    """What an operator can do."""

    code: str
    about: str
    """What it is about: an RSE, a group, the rule."""
    sentence: str
    commands: list[str]


class RuleExplanation(_Answer):
    """Why a rule is as it is."""

    now: datetime
    """The database's clock, from which all ages are seen."""
    rule: ExplainedRule
    next_look: NextLook
    fault: str | None = None
    """Why no RSE can be chosen at all."""
    rses: list[ExplainedRse]
    """Those that were chosen first."""
    unplaced: list[UnplacedGroups]
    waits: list[Wait]
    """The largest first."""
    waits_left_out: int = 0
    """Reasons that are not listed, because there are too many."""
    files_left_out: int = 0
    """Locks that wait for those."""
    ending: Ending
    advice: list[Advice]
