"""The events of transfers, in Rucio's shape with Rubin's keys.

Rubin's ingest reads ``transfer-done`` messages as Rucio's Hermes sends them; the keys are those that it was seen to
send (ctrl_ingestd's own tests), with ``rubin_butler`` and ``rubin_sidecar`` from the file's metadata.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from arriero.registry.arrival_words import BUTLER_KEY, SIDECAR_KEY
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import accounts, did_meta, dids, requests, rses, rules, scopes
from arriero.registry.store import events
from arriero.scheduler.reports import Outcome, Report
from arriero.scheduler.temporary import settled

TOOL_ID = "arriero"

RUBIN_KEYS = (BUTLER_KEY, SIDECAR_KEY)
"""Metadata that Rubin's ingest wants in the message."""


_dataset, _dataset_scope = dids.alias("dataset"), scopes.alias("dataset_scope")

_COPIES = (
    select(
        requests.c.id,
        settled.c.outcome,
        requests.c.activity,
        requests.c.bytes,
        requests.c.created_at,
        requests.c.started_at,
        now().label("transferred_at"),
        scopes.c.name.label("scope"),
        dids.c.name,
        dids.c.adler32,
        dids.c.md5,
        rses.c.name.label("destination"),
        rses.c.type.label("destination_type"),
        did_meta.c.meta,
        _dataset.c.name.label("dataset"),
        _dataset_scope.c.name.label("dataset_scope"),
        accounts.c.name.label("account"),
    )
    .select_from(settled)
    .join(requests, requests.c.id == settled.c.request_id)
    .join(dids, dids.c.id == requests.c.file_id)
    .join(scopes, scopes.c.id == dids.c.scope_id)
    .join(rses, rses.c.id == requests.c.destination_id)
    .outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
    .outerjoin(rules, rules.c.id == requests.c.rule_id)
    .outerjoin(_dataset, _dataset.c.id == rules.c.did_id)
    .outerjoin(_dataset_scope, _dataset_scope.c.id == _dataset.c.scope_id)
    .outerjoin(accounts, accounts.c.id == rules.c.account_id)
    .order_by(requests.c.id)
)


def append_transfer_events(connection: Connection, reports: Mapping[int, Report]) -> None:
    """Write the events of the batch in ``settled``: ``transfer-done`` and ``transfer-failed``.

    Parameters
    ----------
    reports
        By request: what is known of the copies.
    """
    written: dict[str, list[tuple[str, dict[str, Any]]]] = {"transfer-done": [], "transfer-failed": []}
    for row in connection.execute(_COPIES).all():
        report = reports[row.id]
        if report.outcome is Outcome.RELEASED:
            continue
        payload = _payload(row, report)
        meta = row.meta or {}
        payload |= {key: meta[key] for key in RUBIN_KEYS if key in meta}
        # what a consumer needs in order is one file's events at one RSE
        key = f"{row.destination}:{row.scope}:{row.name}"
        if report.outcome is Outcome.DONE:
            written["transfer-done"].append((key, payload))
        else:
            final = {"code": report.code, "final": row.outcome != Outcome.RETRY}
            written["transfer-failed"].append((key, payload | final))
    for event_type, keyed in written.items():
        events.append(connection, event_type, keyed)


def _payload(row: Any, report: Report) -> dict[str, Any]:
    transfer = report.transfer
    link = f"{transfer.source_rse}-{row.destination}" if transfer.source_rse else None
    started_at = rucio_time(row.started_at)
    return {
        "activity": row.activity,
        "request-id": str(row.id),
        "duration": round(transfer.seconds or 0.0, 3),
        "checksum-adler": row.adler32,
        "checksum-md5": row.md5,
        "file-size": row.bytes,
        "bytes": row.bytes,
        "guid": None,
        "previous-request-id": None,
        "protocol": transfer.scheme,
        "scope": row.scope,
        "name": row.name,
        "dataset": row.dataset,
        "datasetScope": row.dataset_scope,
        "src-type": "DISK",
        "src-rse": transfer.source_rse,
        "src-url": transfer.source_url,
        "dst-type": str(row.destination_type),
        "dst-rse": row.destination,
        "dst-url": transfer.destination_url,
        "reason": report.reason or "",
        "transfer-endpoint": transfer.mode,
        "transfer-id": f"{report.request_id}-{report.fence}",
        "transfer-link": link,
        "created_at": rucio_time(row.created_at),
        "submitted_at": started_at,
        "started_at": started_at,
        "transferred_at": rucio_time(row.transferred_at),
        "tool-id": TOOL_ID,
        "account": row.account,
        "datatype": None,
        "transfer_link": link,
    }


def rucio_time(at: datetime | None) -> str | None:
    """Write an instant as Rucio does: UTC without a zone."""
    return None if at is None else str(at.astimezone(UTC).replace(tzinfo=None))
