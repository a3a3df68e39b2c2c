"""Who may do what: one function, one table, and no by default.

A new action is a member of `Action` and a line of `_POLICIES`; without the line everybody but an administrator is
refused. What it protects is described by a `Target`. A denial carries what it needs to be audited, and is written
down where the error leaves the service (`arriero.registry.services.audit.record_denial`).
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from arriero.registry.errors import NotAllowed
from arriero.registry.services.context import Actor
from arriero.registry.states import Role


class Action(StrEnum):
    """What can be asked for, as the audit names it."""

    READ = "read"
    ACCOUNT_ADD = "account_add"
    ACCOUNT_UPDATE = "account_update"
    ACCOUNT_REMOVE = "account_remove"
    ACCOUNT_LIMIT_SET = "account_limit_set"
    IDENTITY_ADD = "identity_add"
    IDENTITY_REMOVE = "identity_remove"
    IDENTITY_LIST = "identity_list"
    SCOPE_ADD = "scope_add"
    SCOPE_UPDATE = "scope_update"
    DID_ADD = "did_add"
    DID_ATTACH = "did_attach"
    DID_DETACH = "did_detach"
    DID_CLOSE = "did_close"
    DID_REOPEN = "did_reopen"
    DID_META_SET = "did_meta_set"
    DID_ERASE = "did_erase"
    DID_RESURRECT = "did_resurrect"
    DID_ACCEPT_LOSS = "did_accept_loss"
    RSE_ADD = "rse_add"
    RSE_UPDATE = "rse_update"
    RSE_DELETE = "rse_delete"
    RSE_USAGE_SET = "rse_usage_set"
    RSE_IMPORT = "rse_import"
    REPLICA_ADD = "replica_add"
    REPLICA_UPDATE = "replica_update"
    REPLICA_DECLARE = "replica_declare"
    REPLICA_DELETE = "replica_delete"
    REPLICA_QUARANTINE = "replica_quarantine"
    AUDIT_RUN = "audit_run"
    AUDIT_OVERRIDE = "audit_override"
    RULE_ADD = "rule_add"
    RULE_IGNORE_LIMIT = "rule_ignore_limit"
    RULE_UPDATE = "rule_update"
    RULE_APPROVE = "rule_approve"
    RULE_REMOVE = "rule_remove"
    RULE_MOVE = "rule_move"
    RULE_REDUCE = "rule_reduce"
    SUBSCRIPTION_ADD = "subscription_add"
    SUBSCRIPTION_UPDATE = "subscription_update"
    TRANSFER_LIMIT_SET = "transfer_limit_set"
    TRANSFER_RETRY = "transfer_retry"
    TRANSFER_CANCEL = "transfer_cancel"
    BUTLER_ADD = "butler_add"
    REQUEST_CLAIM = "request_claim"
    REQUEST_REPORT = "request_report"
    ARRIVAL_CLAIM = "arrival_claim"
    ARRIVAL_REPORT = "arrival_report"
    ARRIVAL_RELEASE = "arrival_release"
    ARRIVAL_CHANGE = "arrival_change"
    DELETION_STOP = "deletion_stop"
    DELETION_GO = "deletion_go"
    DOCTOR_EXAMINE = "doctor_examine"
    DOCTOR_REPAIR = "doctor_repair"
    TOKEN_ADD = "token_add"  # noqa: S105 - the name of an action
    TOKEN_BIND = "token_bind"  # noqa: S105 - the name of an action
    TOKEN_REVOKE = "token_revoke"  # noqa: S105 - the name of an action


@dataclass(frozen=True, slots=True)
class Target:
    """What an action is done to."""

    name: str
    """As the audit writes it: ``scope:name``, an RSE, a rule's id."""
    owner: str | None = None
    """Account that it belongs to: of the scope, of the rule."""
    rse: str | None = None
    butler: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Roles that are allowed, beside administrators, who always are."""

    anywhere: frozenset[Role] = frozenset()
    owner: frozenset[Role] = frozenset()
    """Roles that are allowed on what belongs to their own account."""
    bound: frozenset[Role] = frozenset()
    """Roles that are allowed where their token is bound to the target's RSE or Butler."""


_EVERYONE = frozenset(Role)
_MANAGER = frozenset({Role.DATA_MANAGER})
_AGENT = frozenset({Role.SITE_AGENT})

_ADMIN_ONLY = Policy()
_OWNER = Policy(owner=_MANAGER | _AGENT)
_OWNER_OR_SITE = Policy(owner=_MANAGER, bound=_AGENT)
_OWN_RULE = Policy(owner=_MANAGER)

_POLICIES = MappingProxyType(
    {
        Action.READ: Policy(anywhere=_EVERYONE),
        Action.ACCOUNT_ADD: _ADMIN_ONLY,
        Action.ACCOUNT_UPDATE: _ADMIN_ONLY,
        Action.ACCOUNT_REMOVE: _ADMIN_ONLY,
        Action.ACCOUNT_LIMIT_SET: _ADMIN_ONLY,
        Action.IDENTITY_ADD: _ADMIN_ONLY,
        Action.IDENTITY_REMOVE: _ADMIN_ONLY,
        Action.IDENTITY_LIST: Policy(owner=_EVERYONE),
        Action.SCOPE_ADD: _ADMIN_ONLY,
        Action.SCOPE_UPDATE: _ADMIN_ONLY,
        Action.DID_ADD: _OWNER,
        Action.DID_ATTACH: _OWNER,
        Action.DID_DETACH: _OWNER,
        Action.DID_CLOSE: _OWNER,
        Action.DID_REOPEN: _ADMIN_ONLY,
        Action.DID_META_SET: _OWNER,
        # of what has expired; nobody else erases than the sweep
        Action.DID_ERASE: _ADMIN_ONLY,
        Action.DID_RESURRECT: _ADMIN_ONLY,
        Action.DID_ACCEPT_LOSS: Policy(owner=_MANAGER),
        Action.RSE_ADD: _ADMIN_ONLY,
        Action.RSE_UPDATE: _ADMIN_ONLY,
        Action.RSE_DELETE: _ADMIN_ONLY,
        # measured by whoever stands beside the storage
        Action.RSE_USAGE_SET: Policy(bound=_AGENT),
        Action.RSE_IMPORT: _ADMIN_ONLY,
        Action.REPLICA_ADD: _OWNER_OR_SITE,
        Action.REPLICA_UPDATE: _OWNER_OR_SITE,
        Action.REPLICA_DECLARE: _OWNER_OR_SITE,
        Action.REPLICA_DELETE: Policy(owner=_MANAGER),
        Action.REPLICA_QUARANTINE: Policy(bound=_AGENT),
        # by whoever stands beside the storage
        Action.AUDIT_RUN: Policy(bound=_AGENT),
        # to believe an audit that finds more than can be true
        Action.AUDIT_OVERRIDE: _ADMIN_ONLY,
        Action.RULE_ADD: _OWN_RULE,
        Action.RULE_IGNORE_LIMIT: _ADMIN_ONLY,
        Action.RULE_UPDATE: _OWN_RULE,
        # a rule that waits for approval belongs to who looks after all of its RSEs
        Action.RULE_APPROVE: _OWN_RULE,
        Action.RULE_REMOVE: _OWN_RULE,
        Action.RULE_MOVE: _OWN_RULE,
        Action.RULE_REDUCE: _OWN_RULE,
        Action.SUBSCRIPTION_ADD: _OWN_RULE,
        Action.SUBSCRIPTION_UPDATE: _OWN_RULE,
        Action.TRANSFER_LIMIT_SET: _ADMIN_ONLY,
        Action.TRANSFER_RETRY: _OWN_RULE,
        Action.TRANSFER_CANCEL: _OWN_RULE,
        Action.BUTLER_ADD: _ADMIN_ONLY,
        Action.REQUEST_CLAIM: Policy(bound=_AGENT),
        Action.REQUEST_REPORT: Policy(bound=_AGENT),
        Action.ARRIVAL_CLAIM: Policy(bound=_AGENT),
        Action.ARRIVAL_REPORT: Policy(bound=_AGENT),
        # by whoever stands beside the Butler and has taken the datasets out of it
        Action.ARRIVAL_RELEASE: Policy(bound=_AGENT),
        Action.ARRIVAL_CHANGE: Policy(bound=_AGENT),
        # a stop hurts nothing; that deletions go on is for those who know why they were stopped
        Action.DELETION_STOP: Policy(anywhere=_MANAGER),
        Action.DELETION_GO: _ADMIN_ONLY,
        Action.DOCTOR_EXAMINE: _ADMIN_ONLY,
        Action.DOCTOR_REPAIR: _ADMIN_ONLY,
        Action.TOKEN_ADD: Policy(owner=_MANAGER),
        # what it is bound to gives rights that its account may not have
        Action.TOKEN_BIND: _ADMIN_ONLY,
        Action.TOKEN_REVOKE: Policy(owner=_MANAGER),
    }
)


class Denied(NotAllowed):
    """The account has not the right to do this."""

    def __init__(self, actor: Actor, action: Action, target: Target) -> None:
        super().__init__(
            f"account {actor.account} ({actor.role}) may not {action.replace('_', ' ')}: {target.name}; "
            "ask its owner or an administrator"
        )
        self.actor = actor
        self.action = action
        self.target = target


def authorize(actor: Actor, action: Action, target: Target) -> None:
    """Let the call go on, or refuse it.

    Parameters
    ----------
    actor
        Who asks.
    action
        What for.
    target
        On what.

    Raises
    ------
    Denied
        Nothing in the table allows it.
    """
    if actor.role is Role.ADMIN:
        return
    policy = _POLICIES.get(action, _ADMIN_ONLY)
    if actor.role in policy.anywhere:
        return
    if actor.role in policy.owner and target.owner is not None and target.owner == actor.account:
        return
    if actor.role in policy.bound and (
        (target.rse is not None and target.rse in actor.rses)
        or (target.butler is not None and target.butler in actor.butlers)
    ):
        return
    raise Denied(actor, action, target)
