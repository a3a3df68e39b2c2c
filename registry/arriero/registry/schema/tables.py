"""Every table, in one place: importing this module makes the metadata complete."""

from arriero.registry.schema.accounts import (
    accounts,
    audit_log,
    identities,
    scopes,
    token_butlers,
    token_rses,
    tokens,
)
from arriero.registry.schema.base import metadata
from arriero.registry.schema.butlers import arrivals, butler_rses, butler_selections, butlers
from arriero.registry.schema.dids import contents, did_meta, dids
from arriero.registry.schema.events import events
from arriero.registry.schema.replicas import replicas
from arriero.registry.schema.requests import request_history, requests
from arriero.registry.schema.rses import (
    rse_attributes,
    rse_distances,
    rse_limits,
    rse_protocols,
    rse_usage,
    rses,
)
from arriero.registry.schema.rules import dataset_locks, evaluations, locks, rule_history, rules

__all__ = [
    "accounts",
    "arrivals",
    "audit_log",
    "butler_rses",
    "butler_selections",
    "butlers",
    "contents",
    "dataset_locks",
    "did_meta",
    "dids",
    "evaluations",
    "events",
    "identities",
    "locks",
    "metadata",
    "replicas",
    "request_history",
    "requests",
    "rse_attributes",
    "rse_distances",
    "rse_limits",
    "rse_protocols",
    "rse_usage",
    "rses",
    "rule_history",
    "rules",
    "scopes",
    "token_butlers",
    "token_rses",
    "tokens",
]
