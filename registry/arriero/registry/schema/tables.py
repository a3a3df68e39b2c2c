"""Every table, in one place: importing this module makes the metadata complete."""

from arriero.registry.schema.accounts import (
    account_attributes,
    account_global_limits,
    account_limits,
    account_usage_history,
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
from arriero.registry.schema.dids import contents, contents_history, deleted_dids, did_meta, dids, lost_files
from arriero.registry.schema.events import complete_datasets, events
from arriero.registry.schema.replicas import bad_replicas, quarantined_replicas, replicas
from arriero.registry.schema.requests import request_history, requests, transfer_limits
from arriero.registry.schema.rses import (
    rse_attributes,
    rse_distances,
    rse_limits,
    rse_protocols,
    rse_qos_policies,
    rse_usage,
    rse_usage_history,
    rses,
)
from arriero.registry.schema.rules import (
    dataset_locks,
    evaluation_items,
    evaluations,
    locks,
    rule_history,
    rules,
    unplaced_groups,
)
from arriero.registry.schema.subscriptions import subscription_items, subscription_matches, subscriptions

__all__ = [
    "account_attributes",
    "account_global_limits",
    "account_limits",
    "account_usage_history",
    "accounts",
    "arrivals",
    "audit_log",
    "bad_replicas",
    "butler_rses",
    "butler_selections",
    "butlers",
    "complete_datasets",
    "contents",
    "contents_history",
    "dataset_locks",
    "deleted_dids",
    "did_meta",
    "dids",
    "evaluation_items",
    "evaluations",
    "events",
    "identities",
    "locks",
    "lost_files",
    "metadata",
    "quarantined_replicas",
    "replicas",
    "request_history",
    "requests",
    "rse_attributes",
    "rse_distances",
    "rse_limits",
    "rse_protocols",
    "rse_qos_policies",
    "rse_usage",
    "rse_usage_history",
    "rses",
    "rule_history",
    "rules",
    "scopes",
    "subscription_items",
    "subscription_matches",
    "subscriptions",
    "token_butlers",
    "token_rses",
    "tokens",
    "transfer_limits",
    "unplaced_groups",
]
