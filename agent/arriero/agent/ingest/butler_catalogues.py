"""Reference catalogues: an ECSV table that says which file has which pixel, or other dimensions.

Why it exists: `butler ingest-files` needs somebody to type type, run and prefix, and gives every site other ids.
What is typed there stands in the table's own metadata, or with the file in the catalogue; ids are made of type,
data ID and run, so that sites agree.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from astropy.table import Table
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arriero.agent.ingest.butler_archives import LARGEST, sizes_of
from arriero.agent.ingest.butler_resources import read_start
from arriero.agent.ingest.drafts import Artifact, Dataset, Draft, Order, TypeOfDataset
from arriero.agent.ingest.errors import BadDescription
from arriero.agent.ingest.kinds import SIDECAR_KEY
from arriero.agent.ingest.models import ArrivalFile


class _Catalogue(BaseModel):
    """What `butler register-dataset-type` and `butler ingest-files` are told."""

    model_config = ConfigDict(extra="ignore")

    dataset_type: str = Field(min_length=1)
    run: str = Field(min_length=1)
    storage_class: str = "SimpleCatalog"
    dimensions: tuple[str, ...] | None = None
    prefix: str | None = None


def catalogue_draft(file: ArrivalFile) -> Draft:
    """Return the datasets of a table: first column the files, the others their data IDs.

    `dataset_type` and `run`, and where they differ from the usual `storage_class`, `dimensions` (the other columns)
    and `prefix` (where the files are; the table's own directory), are the table's metadata or the file's
    `rubin_sidecar`, which counts first.

    Raises
    ------
    BadDescription
        If it is no such table.
    WaitsFor
        If one of its files is not there yet.
    """
    content = read_start(file.uri, LARGEST)[0]
    try:
        table = Table.read(io.BytesIO(content), format="ascii.ecsv")
        meta = table.meta if isinstance(table.meta, Mapping) else {}
        told = _Catalogue.model_validate({**meta, **_sidecar(file)})
    except ValidationError as error:
        lacks = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise BadDescription(
            file.name, f"neither its metadata nor its {SIDECAR_KEY} tells its {lacks}"
        ) from error
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise BadDescription(file.name, f"it is no ECSV table ({error})") from error
    names = list(table.colnames)
    if len(names) < 2:
        raise BadDescription(file.name, "it has no columns for a data ID")
    dimensions = told.dimensions or tuple(names[1:])
    if missing := set(dimensions) - set(names[1:]):
        raise BadDescription(file.name, f"it has no column {', '.join(sorted(missing))}")
    dataset_type = TypeOfDataset(told.dataset_type, dimensions, told.storage_class)
    prefix = (told.prefix or file.uri.rpartition("/")[0]).rstrip("/")
    uris = [_uri(prefix, str(name)) for name in table[names[0]]]
    columns = {name: table[name].tolist() for name in dimensions}
    return Draft(
        file,
        Order.PRODUCT,
        tuple(
            Artifact(
                uri,
                size,
                (Dataset(dataset_type, told.run, {name: columns[name][row] for name in dimensions}),),
            )
            for row, (uri, size) in enumerate(sizes_of(file, uris))
        ),
        {},
    )


def _uri(prefix: str, name: str) -> str:
    if "://" in name:
        return name
    return f"file://{name}" if name.startswith("/") else f"{prefix}/{name}"


def _sidecar(file: ArrivalFile) -> Mapping[str, Any]:
    sidecar = file.meta.get(SIDECAR_KEY) or {}
    content = json.loads(sidecar) if isinstance(sidecar, str) else sidecar
    if not isinstance(content, Mapping):
        raise TypeError(f"{SIDECAR_KEY} is no object")
    return content
