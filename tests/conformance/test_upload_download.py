"""`rucio upload` and `rucio download`, unmodified: real bytes to and from real WebDAV storage, over TLS."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servicelib.apache import Apache
from servicelib.server import WebDavServer
from support.official import make_client
from support.official_storage import WEBDAV, add_storage, make_folder, protocol_of, proxy_certificate

# The client verifies no server's certificate, whatever it is configured to do, and is warned of it.
pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


def new_rse() -> str:
    """Give a name that no test has had: the client remembers an RSE by its name, across catalogues."""
    return f"SITE_{uuid.uuid4().hex[:12].upper()}_DISK"


def adler32(content: bytes) -> str:
    return f"{zlib.adler32(content):08x}"


@dataclass
class Storage:
    """An RSE on a real server, a scope, and a directory of files to send."""

    client: Any
    server: WebDavServer
    folder: str
    rse: str
    url: str
    scope: str
    here: Path

    def path(self, name: str) -> Path:
        """Where a file of this name lies on the server's disk."""
        return self.server.data_dir / self.folder / self.scope / name

    def on_disk(self) -> dict[str, bytes]:
        root = self.server.data_dir / self.folder / self.scope
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def write(self, name: str, content: bytes) -> Path:
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def item(self, path: Path, **more: Any) -> dict[str, Any]:
        return {"path": str(path), "rse": self.rse, "did_scope": self.scope, **more}

    def upload(self, *items: dict[str, Any], **more: Any) -> int:
        from rucio.client.uploadclient import UploadClient

        return UploadClient(self.client).upload(list(items), **more)

    def download(self, *dids: str, **more: Any) -> list[dict[str, Any]]:
        from rucio.client.downloadclient import DownloadClient

        items = [{"did": did, "base_dir": str(self.here / "down"), **more} for did in dids]
        return DownloadClient(self.client).download_dids(items)

    def states(self, name: str) -> dict[str, str]:
        found = self.client.list_replicas([{"scope": self.scope, "name": name}], all_states=True)
        return next(iter(found))["states"]


@pytest.fixture
def storage(official, client, services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    server = services.xrootd_slac
    monkeypatch.setenv("X509_USER_PROXY", str(proxy_certificate(server, tmp_path)))
    folder = f"official-{uuid.uuid4().hex[:8]}"
    rse, scope = new_rse(), official.unique("scope")
    client.add_scope("root", scope)
    url = add_storage(client, rse, server, folder)
    return Storage(client, server, folder, rse, url, scope, tmp_path)


@pytest.mark.client_method("UploadClient.upload", "DownloadClient.download_dids")
def test_one_file_there_and_back(storage: Storage):
    content = bytes(range(256)) * 1000
    assert storage.upload(storage.item(storage.write("one.fits", content))) == 0
    assert storage.on_disk() == {"one.fits": content}, "and no name of an upload under way"
    did = storage.client.get_metadata(storage.scope, "one.fits")
    assert (did["bytes"], did["adler32"], did["account"]) == (len(content), adler32(content), "root")
    assert storage.states("one.fits") == {storage.rse: "AVAILABLE"}
    [rule] = storage.client.list_did_rules(storage.scope, "one.fits")
    assert (rule["rse_expression"], rule["copies"], rule["account"]) == (storage.rse, 1, "root")
    [down] = storage.download(f"{storage.scope}:one.fits")
    assert down["clientState"] == "DONE"
    assert (storage.here / "down" / storage.scope / "one.fits").read_bytes() == content
    [again] = storage.download(f"{storage.scope}:one.fits")
    assert again["clientState"] == "ALREADY_DONE"


@pytest.mark.rucio_command("upload", "download")
def test_a_dataset_by_the_command_line(official, storage: Storage):
    contents = {f"night/{i}.fits": bytes([i]) * 3000 for i in range(3)}
    for name, content in contents.items():
        storage.write(name, content)
    dataset = f"{storage.scope}:Dataset-20241108"
    official.cli(
        "upload", "--rse", storage.rse, "--scope", storage.scope, dataset, str(storage.here / "night")
    )
    assert storage.on_disk() == {Path(name).name: content for name, content in contents.items()}
    held = {file["name"]: file for file in storage.client.list_files(storage.scope, "Dataset-20241108")}
    assert {name: (file["bytes"], file["adler32"]) for name, file in held.items()} == {
        Path(name).name: (len(content), adler32(content)) for name, content in contents.items()
    }
    [rule] = storage.client.list_did_rules(storage.scope, "Dataset-20241108")
    assert (rule["rse_expression"], rule["grouping"]) == (storage.rse, "DATASET")
    [lying] = storage.client.list_dataset_replicas(storage.scope, "Dataset-20241108")
    assert (lying["rse"], lying["available_length"], lying["state"]) == (storage.rse, 3, "AVAILABLE")

    said = official.cli("download", "--dir", str(storage.here / "down"), dataset)
    assert "Downloaded files" in said
    for name, content in contents.items():
        assert (storage.here / "down/Dataset-20241108" / Path(name).name).read_bytes() == content
    flat = storage.here / "flat"
    official.cli(
        *("download", "--dir", str(flat), "--no-subdir", "--rses", storage.rse),
        f"{storage.scope}:*.fits",
    )
    assert sorted(path.name for path in flat.iterdir()) == ["0.fits", "1.fits", "2.fits"]


@pytest.mark.client_method("UploadClient.upload")
def test_folders_become_containers_and_datasets(storage: Storage):
    for name in ("run/a/1.fits", "run/a/2.fits", "run/b/3.fits"):
        storage.write(name, name.encode() * 100)
    storage.upload(storage.item(storage.here / "run", recursive=True))
    children = storage.client.list_content(storage.scope, "run")
    assert {(child["name"], child["type"]) for child in children} == {("a", "DATASET"), ("b", "DATASET")}
    files = [file["name"] for file in storage.client.list_files(storage.scope, "run")]
    assert sorted(files) == ["1.fits", "2.fits", "3.fits"]
    assert sorted(storage.on_disk()) == ["1.fits", "2.fits", "3.fits"]


@pytest.mark.client_method("UploadClient.upload")
def test_what_is_there_is_not_sent_again_and_another_content_is_refused(storage: Storage):
    from rucio.common.exception import DataIdentifierAlreadyExists, NoFilesUploaded, NotAllFilesUploaded

    first = storage.write("same.fits", b"first" * 1000)
    storage.upload(storage.item(first))
    with pytest.raises(NoFilesUploaded):
        storage.upload(storage.item(first))
    with pytest.raises(NotAllFilesUploaded):
        storage.upload(storage.item(first), storage.item(storage.write("new.fits", b"new")))
    with pytest.raises(DataIdentifierAlreadyExists):
        storage.upload(storage.item(storage.write("same.fits", b"other" * 1000)))
    assert storage.on_disk() == {"same.fits": b"first" * 1000, "new.fits": b"new"}
    assert storage.states("same.fits") == {storage.rse: "AVAILABLE"}
    assert len(list(storage.client.list_did_rules(storage.scope, "same.fits"))) == 1


@pytest.mark.client_method("UploadClient.upload")
def test_an_upload_that_fails_is_taken_up_again(storage: Storage):
    from rucio.common.exception import NoFilesUploaded, RucioException

    path = storage.write("late.fits", b"late" * 1000)
    blocker = storage.server.write_file(f"{storage.folder}/{storage.scope}", b"not a folder")
    with pytest.raises((NoFilesUploaded, RucioException)):
        storage.upload(storage.item(path))
    assert storage.states("late.fits") == {storage.rse: "COPYING"}, "announced, and not there"
    blocker.unlink()
    storage.upload(storage.item(path))
    assert storage.states("late.fits") == {storage.rse: "AVAILABLE"}
    assert storage.on_disk() == {"late.fits": b"late" * 1000}


@pytest.mark.client_method("UploadClient.upload")
def test_register_after_upload_and_not_at_all(storage: Storage):
    from rucio.common.exception import DataIdentifierNotFound

    after = storage.write("after.fits", b"after")
    summary = storage.here / "summary.json"
    storage.upload(storage.item(after, register_after_upload=True), summary_file_path=summary)
    assert storage.states("after.fits") == {storage.rse: "AVAILABLE"}
    said = json.loads(summary.read_text())[f"{storage.scope}:after.fits"]
    assert (said["pfn"], said["bytes"]) == (f"{storage.url}/{storage.scope}/after.fits", 5)
    storage.upload(storage.item(storage.write("dark.fits", b"dark"), no_register=True))
    assert storage.on_disk() == {"after.fits": b"after", "dark.fits": b"dark"}
    with pytest.raises(DataIdentifierNotFound):
        storage.client.get_did(storage.scope, "dark.fits")


@pytest.mark.client_method("UploadClient.upload")
def test_a_blocked_or_unknown_rse_is_said_so(storage: Storage):
    from rucio.common.exception import InvalidRSEExpression, RSEWriteBlocked

    path = storage.write("a.fits", b"a")
    with pytest.raises(InvalidRSEExpression):
        storage.upload(storage.item(path, rse="NOWHERE"))
    storage.client.update_rse(storage.rse, {"availability_write": False})
    with pytest.raises(RSEWriteBlocked):
        storage.upload(storage.item(path))
    assert storage.on_disk() == {}


@pytest.mark.client_method("DownloadClient.download_dids", "DownloadClient.download_from_metalink_file")
def test_what_is_damaged_or_missing_is_not_delivered(storage: Storage):
    from rucio.client.downloadclient import DownloadClient
    from rucio.common.exception import NoFilesDownloaded, NotAllFilesDownloaded

    storage.upload(storage.item(storage.write("good.fits", b"good" * 100)))
    with pytest.raises(NotAllFilesDownloaded):
        storage.download(f"{storage.scope}:missing.fits", f"{storage.scope}:good.fits")
    [down] = (storage.here / "down").rglob("*.fits*")
    assert down.read_bytes() == b"good" * 100
    down.unlink()
    metalink = storage.here / "good.meta4"
    metalink.write_text(
        storage.client.list_replicas([{"scope": storage.scope, "name": "good.fits"}], metalink=True)
    )
    [found] = DownloadClient(storage.client).download_from_metalink_file(
        {"base_dir": str(storage.here / "meta")}, str(metalink)
    )
    assert found["clientState"] == "DONE"
    assert (storage.here / "meta" / storage.scope / "good.fits").read_bytes() == b"good" * 100
    storage.path("good.fits").write_bytes(b"evil" * 100)
    with pytest.raises(NoFilesDownloaded):
        storage.download(f"{storage.scope}:good.fits")
    assert not list((storage.here / "down").rglob("*.fits*"))
    with pytest.raises(NoFilesDownloaded):
        storage.download(f"{storage.scope}:missing.fits")


@pytest.mark.client_method("DownloadClient.download_dids")
def test_selection(storage: Storage):
    names = [f"x{i}.fits" for i in range(3)]
    storage.upload(*(storage.item(storage.write(name, name.encode())) for name in names))
    got = storage.download(f"{storage.scope}:x*.fits", rse=storage.rse, force_scheme="https")
    assert sorted(item["name"] for item in got) == names
    assert {item["clientState"] for item in got} == {"DONE"}
    got = storage.download(f"{storage.scope}:x*.fits", nrandom=2, base_dir=str(storage.here / "some"))
    assert len({item["name"] for item in got} & set(names)) == 2


@pytest.mark.client_method("UploadClient.upload", "DownloadClient.download_dids")
@pytest.mark.parametrize(
    ("name", "impl"),
    [
        ("a b+c,d;e=f@g.fits", WEBDAV),
        ("deep/er/and & <more>.fits", WEBDAV),
        # A name that is not ASCII fits into no Destination header as the client writes it.
        ("été ☃.fits", WEBDAV.replace("Default", "NoRename")),
    ],
)
def test_names(official, storage: Storage, name: str, impl: str):
    rse = new_rse()
    add_storage(storage.client, rse, storage.server, storage.folder, impl=impl)
    # Servers write hrefs quoted, the client compares them unquoted: it works without its look after the upload.
    storage.client.add_rse_attribute(rse, "skip_upload_stat", "True")
    content = name.encode()
    storage.upload(storage.item(storage.write("local", content), did_name=name, rse=rse))
    assert storage.on_disk() == {name: content}
    assert storage.states(name) == {rse: "AVAILABLE"}
    local = storage.here / "down" / storage.scope / name
    local.parent.mkdir(parents=True)  # the client makes none for the slashes of a name
    [got] = storage.download(f"{storage.scope}:{name}")
    assert got["clientState"] == "DONE"
    assert local.read_bytes() == content


@pytest.mark.client_method("UploadClient.upload", "DownloadClient.download_pfns")
def test_a_path_of_ones_own_where_the_rse_has_no_algorithm(official, storage: Storage):
    from rucio.client.downloadclient import DownloadClient

    rse = new_rse()
    url = add_storage(storage.client, rse, storage.server, storage.folder, algorithm=None)
    path = storage.write("run.fits", b"by path")
    pfn = f"{url}/{storage.scope}/elsewhere.fits"
    storage.upload(storage.item(path, rse=rse, pfn=pfn))
    after = storage.item(storage.write("b.fits", b"b"), rse=rse, pfn=f"{url}/{storage.scope}/c.fits")
    storage.upload({**after, "register_after_upload": True})
    assert storage.on_disk() == {"elsewhere.fits": b"by path", "c.fits": b"b"}
    assert storage.states("run.fits") == storage.states("b.fits") == {rse: "AVAILABLE"}
    [row] = storage.client.list_replicas([{"scope": storage.scope, "name": "run.fits"}])
    assert row["rses"] == {rse: [pfn]}
    item = {"did": f"{storage.scope}:run.fits", "pfn": pfn, "rse": rse, "adler32": adler32(b"by path")}
    [got] = DownloadClient(storage.client).download_pfns([{**item, "base_dir": str(storage.here / "down")}])
    assert got["clientState"] == "DONE"


@pytest.mark.client_method("UploadClient.upload", "DownloadClient.download_dids")
def test_an_algorithm_that_the_client_does_not_know(storage: Storage):
    """Rubin's, in which the name is the path: the client asks the catalogue where a file is to lie."""
    rse = new_rse()
    add_storage(storage.client, rse, storage.server, storage.folder, algorithm="lsst_butler")
    make_folder(storage.server, f"{storage.folder}/u/run")
    storage.upload(storage.item(storage.write("x", b"product"), rse=rse, did_name="u/run/x.yaml"))
    assert (storage.server.data_dir / storage.folder / "u/run/x.yaml").read_bytes() == b"product"
    assert storage.states("u/run/x.yaml") == {rse: "AVAILABLE"}
    (storage.here / "down" / storage.scope / "u/run").mkdir(parents=True)
    [got] = storage.download(f"{storage.scope}:u/run/x.yaml")
    assert got["clientState"] == "DONE"


@pytest.mark.client_method("UploadClient.upload", "DownloadClient.download_dids")
def test_a_person_with_a_scope_of_their_own(official, storage: Storage, monkeypatch: pytest.MonkeyPatch):
    """Nothing is said but the RSE: the scope is `user.<account>`, its dot is a folder, and the rule is theirs."""
    account = official.unique("alice")
    storage.client.add_account(account, "USER", "alice@example.org")
    storage.client.add_identity(account, account, "USERPASS", "alice@example.org", password="wonderland")
    storage.client.add_scope(account, f"user.{account}")
    storage.client = make_client(official, monkeypatch, account, "wonderland")
    path = storage.write("mine.fits", b"mine")
    storage.upload({"path": str(path), "rse": storage.rse})
    lies = storage.server.data_dir / storage.folder / "user" / account / "mine.fits"
    assert lies.read_bytes() == b"mine"
    [rule] = storage.client.list_did_rules(f"user.{account}", "mine.fits")
    assert (rule["account"], rule["rse_expression"]) == (account, storage.rse)
    [got] = storage.download(f"user.{account}:mine.fits")
    assert got["clientState"] == "DONE"


@pytest.mark.client_method("UploadClient.upload", "DownloadClient.download_dids")
def test_apache(official, storage: Storage, services):
    """A storage element that makes no folders by itself: they have to be there, as has a listing of the prefix."""
    server = Apache(services.directory, "apache-listing", with_listing=True)
    server.start()
    try:
        storage.server, storage.rse = server, new_rse()
        storage.url = add_storage(storage.client, storage.rse, server, storage.folder)
        make_folder(server, f"{storage.folder}/{storage.scope}").joinpath(".here").unlink()
        storage.upload(storage.item(storage.write("a.fits", b"apache" * 1000)))
        assert storage.on_disk() == {"a.fits": b"apache" * 1000}
        left = server.write_file(f"{storage.folder}/{storage.scope}/b.fits.rucio.upload", b"of another day")
        storage.upload(storage.item(storage.write("b.fits", b"b")))
        assert not left.exists()
        assert storage.states("b.fits") == {storage.rse: "AVAILABLE"}
        [got] = storage.download(f"{storage.scope}:a.fits")
        assert got["clientState"] == "DONE"
    finally:
        server.stop()


@pytest.mark.client_method("UploadClient.preferred_impl", "DownloadClient.preferred_impl")
def test_which_implementation_is_preferred(official, storage: Storage, monkeypatch: pytest.MonkeyPatch):
    from rucio.client.downloadclient import DownloadClient
    from rucio.client.uploadclient import UploadClient
    from rucio.common import config
    from rucio.rse.rsemanager import get_rse_info

    storage.client.add_protocol(
        storage.rse, protocol_of(storage.server, storage.folder, scheme="davs", port=1, impl=None)
    )
    wanted = storage.here / "preferred.cfg"
    wanted.write_text(
        official.configuration().read_text()
        + "[upload]\npreferred_impl = webdav\n[download]\npreferred_impl = webdav\n"
    )
    monkeypatch.setenv("RUCIO_CONFIG", str(wanted))
    config.clean_cached_config()
    try:
        settings = get_rse_info(storage.rse)
        assert {p["impl"] for p in settings["protocols"]} == {WEBDAV, "rucio.rse.protocols.gfal.Default"}
        assert UploadClient(storage.client).preferred_impl(settings, "wan") == WEBDAV
        assert DownloadClient(storage.client).preferred_impl([{"rse": storage.rse}]) == WEBDAV
    finally:
        config.clean_cached_config()
