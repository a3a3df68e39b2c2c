"""Collections as an export tells them: registered, chained, tagged and certified, as often as one likes.

Why it exists: the Butler's own import certifies again what is certified, and fails. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from lsst.daf.butler import Butler, CollectionType, DatasetRef

from arriero.agent.ingest.drafts import Collections


def register_collections(butler: Butler, collections: Collections) -> None:
    """Register what an export names; a chain gets the members that it says, in their order."""
    for name, kind in sorted(collections.flat.items()):
        butler.collections.register(name, CollectionType.from_name(kind))
    for name in collections.chains:
        butler.collections.register(name, CollectionType.CHAINED)
    for name, members in collections.chains.items():
        if tuple(butler.collections.get_info(name).children) != tuple(members):
            butler.collections.redefine_chain(name, list(members))


def associate(butler: Butler, collections: Collections, refs: Iterable[DatasetRef]) -> None:
    """Tag and certify datasets that are in the repository; what is so already is left.

    Raises
    ------
    LookupError
        If the export names a dataset that the repository does not have.
    """
    known = {ref.id: ref for ref in refs}

    def reference(id_: UUID) -> DatasetRef:
        ref = known.get(id_) or butler.get_dataset(id_)
        if ref is None:
            raise LookupError(f"there is no dataset {id_}, which the export puts into a collection")
        known[id_] = ref
        return ref

    for name, ids in collections.tagged.items():
        butler.registry.associate(name, [reference(id_) for id_ in ids])
    for name, spans in collections.certified.items():
        types = {reference(id_).datasetType for _, ids in spans for id_ in ids}
        has = {
            (association.timespan, association.ref.id)
            for dataset_type in types
            for association in butler.registry.queryDatasetAssociations(dataset_type, collections=[name])
        }
        for span, ids in spans:
            if new := [reference(id_) for id_ in ids if (span, id_) not in has]:
                butler.registry.certify(name, new, span)
