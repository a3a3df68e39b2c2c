"""A site with everything but a network: registry on a real port, an RSE of files, a real Butler, an agent's token."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.ingest.models import Outcome
from arriero.registry.client import RegistryClient
from arriero.registry.models import MOVE, Arrival, NewButler, NewToken
from support.mover_sites import DOMAINS
from support.server import RunningRegistry

BUTLER, RSE, OTHER = "in2p3", "IN2P3_RAW_DISK", "SLAC_RAW_DISK"


class LedgerSite:
    """What a test does with a site and its Butler."""

    def __init__(
        self,
        registry: RunningRegistry,
        repository: str,
        root: Path,
        *,
        transfer: str = "direct",
        instrument: str = "LSSTComCam",
    ) -> None:
        self.registry = registry
        self.repository = repository
        self.root = root
        self.client = registry.client()
        self.client.add_scope("root", "raw")
        for name, prefix in ((RSE, root), (OTHER, root.parent / "elsewhere")):
            self.client.add_rse(name)
            self.client.add_rse_attribute(name, "lfn2pfn_algorithm", "lsst_butler")
            protocol = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(prefix)}
            self.client.add_protocol(name, {**protocol, "domains": DOMAINS})
        if transfer == MOVE:
            self.client.update_rse(RSE, {"staging_area": True})
        self.transfer = transfer
        self.butler = NewButler(
            name=BUTLER,
            uri=repository,
            transfer=transfer,
            instruments=[instrument],
            rses=[{"rse": RSE, "uri_prefix": root.as_uri()}],
            selections=[{"scope": "raw"}],
        )
        self.client.add_butler(self.butler)
        self.token = self.client.create_token(NewToken(label="agent", lifetime_s=600, butlers=[BUTLER])).token
        self.agent: RegistryClient = registry.client(token=self.token)

    def described(self, paths: Sequence[Path]) -> list[dict[str, object]]:
        """What a truthful registration of files says."""
        return [
            {
                "scope": "raw",
                "name": path.relative_to(self.root).as_posix(),
                "bytes": path.stat().st_size,
                "adler32": f"{zlib.adler32(path.read_bytes()):08x}",
            }
            for path in paths
        ]

    def land(self, paths: Sequence[Path]) -> list[str]:
        """Have files be AVAILABLE here and elsewhere; give their names."""
        files = self.described(paths)
        self.client.add_replicas(OTHER, files)
        self.client.add_replicas(RSE, files)
        return [str(file["name"]) for file in files]

    def delete(self, names: Sequence[str]) -> None:
        """Take replicas here out of the catalogue, as Rucio's client does."""
        files = [{"scope": "raw", "name": name} for name in names]
        self.client._call("DELETE", "/replicas", body={"rse": RSE, "files": files})

    def ingest(self) -> list[Outcome]:
        """One turn of the site's agent."""
        writer = ButlerWriter(self.repository, self.butler.instruments, transfer=self.transfer)
        try:
            files = self.agent.claim_arrivals(BUTLER, "agent", 500, 0, 60)
            outcomes = writer.ingest(files)
        finally:
            writer.close()
        assert self.agent.report_arrivals(outcomes) == []
        return outcomes

    def ledger(self) -> dict[str, Arrival]:
        """The ledger by the file's name."""
        return {arrival.name: arrival for arrival in self.client.list_arrivals()}

    def in_butler(self) -> set[UUID]:
        """Ids of the datasets of the repository."""
        with open_repository(self.repository) as butler:
            return {
                ref.id
                for ref in butler.query_datasets(
                    "raw", collections="LSSTComCam/raw/all", limit=None, explain=False
                )
            }
