"""Turns arrivals of any kind into drafts, each kind by its module.

Why it exists: the writer knows drafts only. Headers are read here for all raws of a batch at once; a file that
cannot be used gets the reason in its place, and costs its neighbours nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from arriero.agent.ingest.butler_archives import export_draft, zip_draft
from arriero.agent.ingest.butler_catalogues import catalogue_draft
from arriero.agent.ingest.butler_session import Session
from arriero.agent.ingest.butler_translators import Translator, installed_translators
from arriero.agent.ingest.drafts import Artifact, Columns, Dataset, Draft, Order, TypeOfDataset
from arriero.agent.ingest.errors import IngestError, UnreadableUri
from arriero.agent.ingest.file_map import Description, FileMap
from arriero.agent.ingest.instrument import InstrumentMap
from arriero.agent.ingest.kinds import Kind, Recognised, recognise
from arriero.agent.ingest.metadata import Header, HeaderRequest, MetadataReader
from arriero.agent.ingest.models import ArrivalFile
from arriero.agent.ingest.sidecars import product_draft


class DraftReader:
    """Reads what files say.

    Parameters
    ----------
    instruments
        Whose files may come.
    threads
        Headers that are read at once.
    """

    def __init__(self, instruments: Sequence[InstrumentMap], *, threads: int) -> None:
        self._instruments = tuple(instruments)
        self._headers = MetadataReader(threads=threads)
        self._translators = installed_translators(self._instruments)
        self._types = {
            id(files): TypeOfDataset(
                files.dataset_type.name, files.dataset_type.dimensions, files.dataset_type.storage_class
            )
            for instrument in self._instruments
            for files in instrument.kinds
        }
        # Records of an exposure as lists: one for all its files, so that what is made of them is made once.
        self._records: dict[int, tuple[Description, dict[str, list[Columns]]]] = {}

    def close(self) -> None:
        """Stop the threads."""
        self._headers.close()

    def read(self, session: Session, files: Sequence[ArrivalFile]) -> list[Draft | IngestError]:
        """Return, for each file and in its order, its draft or the reason why there is none.

        Raises
        ------
        UnsuitableRepository
            If the repository is for other instruments.
        """
        self._records = {}
        found: list[Draft | IngestError | None] = [None] * len(files)
        raws: list[tuple[int, Recognised]] = []
        for place, file in enumerate(files):
            try:
                recognised = recognise(file, self._instruments)
                if recognised.files is None:
                    found[place] = _described(session, file, recognised.kind)
                else:
                    raws.append((place, recognised))
            except IngestError as error:
                found[place] = error
        requests = [self._request(files[place], recognised) for place, recognised in raws]
        for (place, recognised), header in zip(raws, self._headers.read(requests), strict=True):
            found[place] = self._raw(session, files[place], recognised, header)
        return [item for item in found if item is not None]

    def _raw(
        self, session: Session, file: ArrivalFile, recognised: Recognised, header: Header | IngestError
    ) -> Draft | IngestError:
        instrument, files = recognised.instrument, recognised.files
        if isinstance(header, IngestError) or instrument is None or files is None:
            return header if isinstance(header, IngestError) else UnreadableUri(file.uri, "no declaration")
        session.require(instrument, files)
        try:
            if (translator := self._translator(recognised)) is not None:
                description = translator.describe(header, file.name)
            else:
                named = files.name_values(file.name)
                description = instrument.describe({**header, **named} if named else header, files)
        except IngestError as error:
            return error
        records = self._records.get(id(description.records))
        if records is None:
            records = description, {element: [record] for element, record in description.records.items()}
            self._records[id(description.records)] = records
        run, dataset_type = files.dataset_type.run, self._types[id(files)]
        datasets = tuple(Dataset(dataset_type, run, data_id) for data_id in description.data_ids)
        artifact = Artifact(file.uri, file.bytes, datasets, files.dataset_type.formatters)
        return Draft(file, _order(instrument, files), (artifact,), records[1])

    def _translator(self, recognised: Recognised) -> Translator | None:
        """Return what an installed package has for a raw."""
        instrument = recognised.instrument
        if instrument is None or recognised.files is not instrument:
            return None
        return self._translators.get(instrument.name)

    def _request(self, file: ArrivalFile, recognised: Recognised) -> HeaderRequest:
        files = recognised.files
        assert files is not None
        keys = files.header_keys if self._translator(recognised) is None else None
        return HeaderRequest(file.uri, file.bytes, keys, files.detector_extensions)


def _order(instrument: InstrumentMap, files: FileMap) -> Order:
    return Order.RAW if files is instrument else Order.COMPANION


def _described(session: Session, file: ArrivalFile, kind: Kind) -> Draft:
    """Return the draft of a file that says by itself, or by its metadata, what it holds."""
    match kind:
        case Kind.PRODUCT | Kind.RAW:
            return product_draft(file)
        case Kind.ZIP:
            return zip_draft(file, session.butler)
        case Kind.DIMENSIONS:
            return export_draft(file, session.butler, Order.RECORDS)
        case Kind.EXPORT:
            return export_draft(file, session.butler, Order.EXPORT)
        case Kind.CATALOGUE:
            return catalogue_draft(file)
