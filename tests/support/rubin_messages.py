"""Messages of Rucio as Rubin's ingest reads them."""

from __future__ import annotations

from typing import Any

RECORDED: dict[str, Any] = {
    "event_type": "transfer-done",
    "payload": {
        "activity": "User Subscriptions",
        "request-id": "c0f1cd3a4a1d4b2a8c7d",
        "duration": 4,
        "checksum-adler": "c8a1b2c3",
        "checksum-md5": "a3f2a0e1c2d3e4f5a6b7c8d9e0f1a2b3",
        "file-size": 1443,
        "bytes": 1443,
        "guid": None,
        "previous-request-id": None,
        "protocol": "root",
        "scope": "test",
        "name": "AT_O_20250113_000004_R00_S00.fits",
        "dataset": "Dataset/LATISS/raw",
        "datasetScope": "test",
        "src-type": "DISK",
        "src-rse": "XRD2",
        "src-url": "root://xrd2:1095//rucio/AT_O_20250113_000004_R00_S00.fits",
        "dst-type": "DISK",
        "dst-rse": "XRD1",
        "dst-url": "root://xrd1:1094//rucio/AT_O_20250113_000004_R00_S00.fits",
        "reason": "",
        "transfer-endpoint": "https://fts:8446",
        "transfer-id": "4f6e3f5c",
        "transfer-link": "https://fts:8449/fts3/ftsmon/#/job/4f6e3f5c",
        "created_at": "2025-01-14 20:58:08.9",
        "submitted_at": "2025-01-14 20:58:37.96",
        "started_at": "2025-01-14 20:58:42",
        "transferred_at": "2025-01-14 20:58:46",
        "tool-id": "rucio-conveyor",
        "account": "root",
        "datatype": None,
        "transfer_link": "https://fts:8449/fts3/ftsmon/#/job/4f6e3f5c",
        "rubin_butler": "raw_file",
        # JSON within a string: what DatasetRef.to_json() gave to rucio-register, and DatasetRef.from_json() wants
        "rubin_sidecar": (
            '{"id":"bad79e54-84a3-5d4b-a0c7-3a1bb8e0a3a1",'
            '"datasetType":{"name":"raw","storageClass":"Exposure","dimensions":["instrument","detector","exposure"]},'
            '"dataId":{"dataId":{"instrument":"LATISS","detector":0,"exposure":2025011300004,"band":"g",'
            '"day_obs":20250113,"group":"2025-01-13T19:57:30.535","physical_filter":"BG40_65mm_1~blue300lpmm_qn1"}},'
            '"run":"LATISS/raw/all"}'
        ),
    },
    "created_at": "2025-01-14 20:58:49.6",
}
"""As ctrl_ingestd's tests have it."""
