"""Data products: what `rubin_sidecar` says of a file, which is a `DatasetRef` as JSON with or without records.

Why it exists: the producer has told id, type, data ID and run; nothing of the file need be read. Records in it may
be of an older universe than the repository's. Plain values, no Butler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arriero.agent.ingest.drafts import Artifact, Columns, Dataset, Draft, Order, TypeOfDataset
from arriero.agent.ingest.errors import BadDescription
from arriero.agent.ingest.kinds import SIDECAR_KEY
from arriero.agent.ingest.models import ArrivalFile


class _Sidecar(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Type(_Sidecar):
    name: str = Field(min_length=1, max_length=128)
    storage_class: str = Field(alias="storageClass", min_length=1)
    dimensions: tuple[str, ...] = ()
    is_calibration: bool = Field(default=False, alias="isCalibration")


class _Record(_Sidecar):
    definition: str
    record: dict[str, Any]


class _DataId(_Sidecar):
    data_id: dict[str, str | int] = Field(alias="dataId")
    records: dict[str, _Record] | None = None


class _Reference(_Sidecar):
    id: UUID
    type: _Type = Field(alias="datasetType")
    data_id: _DataId = Field(alias="dataId")
    run: str = Field(min_length=1)


def product_draft(file: ArrivalFile) -> Draft:
    """Return what a data product's sidecar says.

    Raises
    ------
    BadDescription
        If there is none, or it is no `DatasetRef`.
    """
    sidecar = file.meta.get(SIDECAR_KEY)
    if not sidecar:
        raise BadDescription(file.name, f"it has no {SIDECAR_KEY}, so nothing says which dataset it is")
    try:
        content = json.loads(sidecar) if isinstance(sidecar, str | bytes) else sidecar
        reference = _Reference.model_validate(content)
    except (ValueError, RecursionError) as error:
        places = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise BadDescription(file.name, f"{SIDECAR_KEY} is no dataset ({places})") from error
    dataset_type = TypeOfDataset(
        reference.type.name,
        reference.type.dimensions,
        reference.type.storage_class,
        reference.type.is_calibration,
    )
    dataset = Dataset(dataset_type, reference.run, reference.data_id.data_id, reference.id)
    return Draft(
        file,
        Order.PRODUCT,
        (Artifact(file.uri, file.bytes, (dataset,)),),
        _records(reference.data_id.records or {}),
        strict=False,
    )


def _records(given: Mapping[str, _Record]) -> dict[str, list[Columns]]:
    """Return records by element, those of universes before 6 as later ones have them: groups have records."""
    records: dict[str, list[Columns]] = {}
    for item in given.values():
        columns = dict(item.record)
        if item.definition == "exposure" and "group_name" in columns:
            group = columns.pop("group_name")
            columns.pop("group_id", None)
            columns["group"] = group
            records.setdefault("group", []).append({"instrument": columns.get("instrument"), "name": group})
        records.setdefault(item.definition, []).append(columns)
    return records
