"""What appears at a site without a rule, to `butler.get`: a folder, a store's notifications, a tar of STARS2; each a process."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from arriero.agent.ingest.butler_repository import create_repository
from arriero.registry.models import ButlerRse, ButlerSelection, NewButler, NewToken
from support.butler import DAY
from support.exposures import write_exposure
from support.headers import PFS, write_fits
from support.installation import ARRIERO, Process, wait_until
from support.laptop import Laptop, laptop
from support.mover_sites import DOMAINS

RSE = "SUMMIT_DISK"

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


class Summit:
    """A site with a folder, two Butlers with their agents, and a token to register files with."""

    def __init__(self, running: Laptop, directory: Path) -> None:
        self.running = running
        self.directory = directory
        self.root = directory / "storage"
        self.root.mkdir()
        client = running.client
        client.add_rse(RSE)
        client.add_rse_attribute(RSE, "lfn2pfn_algorithm", "lsst_butler")
        protocol = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(self.root)}
        client.add_protocol(RSE, {**protocol, "domains": DOMAINS})
        self.comcam = self._butler("comcam", "LSSTComCam", "LSSTComCam/*.fits")
        self.pfs = self._butler("pfs", "PFS", "raw/*")
        token = client.create_token(NewToken(label="watch", lifetime_s=3600, rses=[RSE])).token
        self.environment = {"ARRIERO_URL": running.arriero.client["ARRIERO_URL"], "ARRIERO_TOKEN": token}

    def _butler(self, name: str, instrument: str, pattern: str) -> str:
        repository = create_repository(str(self.directory / name), instrument)
        self.running.client.add_butler(
            NewButler(
                name=name,
                uri=repository,
                instruments=(instrument,),
                rses=(ButlerRse(rse=RSE, uri_prefix=self.root.as_uri()),),
                selections=(ButlerSelection(scope="raw", pattern=pattern),),
            )
        )
        self.running.start_agent(name)
        return repository

    def start(self, name: str, *command: str) -> Process:
        """Start `arriero watch` as the site does."""
        where = ("--rse", RSE, "--scope", "raw")
        return self.running.arriero.start(
            name, ARRIERO, "watch", *command, *where, environment=self.environment
        )

    def states(self, butler: str) -> dict[str, str]:
        return {one.name: one.state for one in self.running.client.list_arrivals(butler=butler)}

    def wait_for(self, butler: str, names: set[str]) -> None:
        """Wait until files are in a Butler, and see that nothing else arrived."""
        wanted = dict.fromkeys(names, "ingested")
        wait_until(lambda: self.states(butler) == wanted, "they are in", instead=lambda: self.states(butler))


@pytest.fixture(scope="module")
def summit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Summit]:
    directory = tmp_path_factory.mktemp("summit")
    with laptop(directory, {}) as running:
        yield Summit(running, directory)


def in_comcam(summit: Summit, paths: list[Path]) -> None:
    """Read files back by `butler.get`."""
    with Butler.from_config(summit.comcam, collections="LSSTComCam/raw/all") as butler:
        for path in paths:
            with fits.open(path) as written:
                number = DAY * 100_000 + written[0].header["SEQNUM"]
                slot = written[0].header["CCDSLOT"]
                detector = 3 * int(slot[1]) + int(slot[2])
                got = butler.get("raw", instrument="LSSTComCam", exposure=number, detector=detector)
                assert np.array_equal(got[1].data, written[1].data)


def test_a_folder_and_what_a_store_says(summit: Summit, tmp_path: Path) -> None:
    written = write_exposure(tmp_path, DAY, 266, shape=(4, 4))
    night = summit.root / "LSSTComCam" / str(DAY) / written[0].parent.name
    options = ("--every", "0.2", "--settle", "0.5", "--memory", str(tmp_path / "memory.db"))
    watching = summit.start("watch", "LSSTComCam", *options)
    night.mkdir(parents=True)
    shutil.copy(written[0].parent / "_index.json", night)
    for path in written[:8]:
        shutil.copy(path, night / f"{path.name}.part")
        (night / f"{path.name}.part").rename(night / path.name)
    # the last one is still being written: half of it, under a name that says so
    part = night / f".{written[8].name}"
    part.write_bytes(written[8].read_bytes()[:3000])
    names = {(night / path.name).relative_to(summit.root).as_posix() for path in written}
    last = (night / written[8].name).relative_to(summit.root).as_posix()
    summit.wait_for("comcam", names - {last})
    part.write_bytes(written[8].read_bytes())
    part.rename(night / written[8].name)
    summit.wait_for("comcam", names)
    assert watching.stop() == 0

    told = write_exposure(summit.root / "LSSTComCam" / str(DAY), DAY, 267, shape=(4, 4))
    records = [
        {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "summit"}, "object": {"key": path.relative_to(summit.root).as_posix()}},
        }
        for path in told
    ]
    notifications = tmp_path / "notifications.jsonl"
    notifications.write_text("".join(json.dumps({"Records": [one, one]}) + "\n" for one in records))
    ended = summit.start("notified", "s3-notifications", str(notifications), "--bucket", "summit")
    wait_until(lambda: not ended.is_running, "all of them are read")
    summit.wait_for("comcam", names | {path.relative_to(summit.root).as_posix() for path in told})
    in_comcam(summit, [*written, *told])


def test_a_tar_of_stars2(summit: Summit, tmp_path: Path) -> None:
    files = {
        f"PFSA000001{spectrograph}{arm}.fits": PFS | {"W_VISIT": 1, "DATE-OBS": "2024-10-17"}
        for spectrograph, arm in ((1, 1), (1, 2))
    }
    config = "pfsConfig-0xad349fe21234abcd-000001.fits"
    paths = [
        write_fits(tmp_path / name, header) for name, header in {**files, config: {"W_VISIT": 1}}.items()
    ]
    drop = tmp_path / "drop"
    drop.mkdir()
    watching = summit.start("drop", "stars2-drop", str(drop), "--every", "0.2", "--settle", "0.5")
    with tarfile.open(drop / "S2Query.tar.part", "w") as archive:
        manifest = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)
        for path in paths:
            archive.add(path, path.name)
        info = tarfile.TarInfo("zadmin/manifest.txt")
        info.size = len(manifest)
        archive.addfile(info, io.BytesIO(manifest.encode()))
    (drop / "S2Query.tar.part").rename(drop / "S2Query.tar")
    day = "raw/2024-10-17"
    summit.wait_for("pfs", {*(f"{day}/sps/{name}" for name in files), f"{day}/pfsConfig/{config}"})
    assert watching.stop() == 0
    assert (drop / "S2Query.tar.done").is_file()
    with Butler.from_config(summit.pfs, collections=["PFS/raw/all", "PFS/raw/pfsConfig"]) as butler:
        raw = butler.get("raw", instrument="PFS", visit=1, arm="r", spectrograph=1)
        assert raw[0].header["OBJECT"] == "cosmos"
        assert butler.get("pfsConfig", instrument="PFS", visit=1)[0].header["W_VISIT"] == 1
