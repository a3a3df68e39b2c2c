from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from astropy.io import fits
from lsst.resources.http import HttpResourcePath

from arriero.agent.ingest import butler_resources
from arriero.agent.ingest.errors import (
    FileVanished,
    IngestError,
    MalformedFits,
    SizeDiffers,
    StorageUnavailable,
    UnreadableUri,
)
from arriero.agent.ingest.instrument import load_instrument
from arriero.agent.ingest.metadata import BLOCK, HeaderRequest, MetadataReader
from support.exposures import write_exposure

COMCAM = load_instrument("LSSTComCam")


def requests(paths: list[Path]) -> list[HeaderRequest]:
    return [HeaderRequest(path.as_uri(), path.stat().st_size, COMCAM.header_keys) for path in paths]


@pytest.fixture
def reader() -> Iterator[MetadataReader]:
    reader = MetadataReader(index_ttl_s=0)
    yield reader
    reader.close()


@pytest.fixture
def exposure(tmp_path) -> list[Path]:
    return write_exposure(tmp_path, 20241108, 266)


def test_index_sidecar_and_file_say_the_same(exposure, reader):
    by_index = reader.read(requests(exposure))
    (exposure[0].parent / "_index.json").unlink()
    by_file = reader.read(requests(exposure))
    for path in exposure:
        header = {k: v for k, v in fits.getheader(path).items() if k}
        path.with_suffix(".json").write_text(json.dumps({"__CONTENT__": "metadata", **header}))
    by_sidecar = reader.read(requests(exposure))
    assert by_index == by_file == by_sidecar
    assert {COMCAM.describe(header).data_id["detector"] for header in by_index} == set(range(9))


def test_the_index_is_what_is_read(exposure, reader):
    index = exposure[0].parent / "_index.json"
    index.write_text(index.read_text().replace("ECDFS", "INDEXED"))
    assert {header["OBJECT"] for header in reader.read(requests(exposure))} == {"INDEXED"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"__CONTENT__": "translated", "__COMMON__": {}}',
        "[" * 100_000,
        '{"__CONTENT__": "metadata", "__COMMON__": []}',
    ],
)
def test_an_index_that_cannot_be_used_is_no_failure(exposure, reader, text):
    (exposure[0].parent / "_index.json").write_text(text)
    assert {header["OBJECT"] for header in reader.read(requests(exposure))} == {"ECDFS"}


def test_a_file_that_the_index_lacks_is_read_itself(exposure, reader):
    index = exposure[0].parent / "_index.json"
    content = json.loads(index.read_text())
    content["__COMMON__"]["OBJECT"] = "INDEXED"
    del content[exposure[3].name]
    index.write_text(json.dumps(content))
    objects = [header["OBJECT"] for header in reader.read(requests(exposure))]
    assert objects == ["INDEXED"] * 3 + ["ECDFS"] + ["INDEXED"] * 5


def spoil_text(path: Path) -> None:
    path.write_bytes(b"not a FITS file\n" * 1000)


def spoil_end(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"END     ", b"FIN     "))


def spoil_card(path: Path) -> None:
    path.write_bytes(
        path.read_bytes().replace(b"SEQNUM  =                  266", b"SEQNUM  =      \xff\xfe          266")
    )


def spoil_value(path: Path) -> None:
    path.write_bytes(
        path.read_bytes().replace(b"SEQNUM  =                  266", b"SEQNUM  =              'a 26 6")
    )


def spoil_cut(path: Path) -> None:
    os.truncate(path, 1000)


def spoil_empty(path: Path) -> None:
    os.truncate(path, 0)


def spoil_data(path: Path) -> None:
    fits.PrimaryHDU(data=[[1] * 5000]).writeto(path, overwrite=True)
    os.truncate(path, 2 * BLOCK)


def spoil_axes(path: Path) -> None:
    content = path.read_bytes()
    at = content.index(b"NAXIS   =")
    path.write_bytes(content[:at] + b"NAXIS   =                1E999".ljust(80) + content[at + 80 :])


SPOILS = [spoil_text, spoil_end, spoil_card, spoil_value, spoil_cut, spoil_empty, spoil_data, spoil_axes]


@pytest.mark.parametrize("spoil", SPOILS)
def test_malformed_fits_is_one_files_error(tmp_path, reader, spoil):
    paths = write_exposure(tmp_path, 20241108, 266, index=False)
    spoil(paths[4])
    headers = reader.read(requests(paths))
    assert isinstance(headers[4], MalformedFits)
    assert paths[4].name in str(headers[4])
    assert not any(isinstance(header, IngestError) for header in headers[:4] + headers[5:])


@pytest.mark.parametrize("spoil", [spoil_text, spoil_empty])
def test_malformed_fits_is_noticed_although_indexed(exposure, reader, spoil):
    spoil(exposure[4])
    headers = reader.read(requests(exposure))
    assert [isinstance(header, MalformedFits) for header in headers] == [i == 4 for i in range(9)]


def test_vanished_and_resized_files_are_noticed_although_indexed(exposure, reader):
    wanted = requests(exposure)
    exposure[1].unlink()
    os.truncate(exposure[2], 4 * BLOCK)
    headers = reader.read(wanted)
    assert isinstance(headers[1], FileVanished)
    assert headers[1].retryable
    assert isinstance(headers[2], SizeDiffers)
    assert isinstance(headers[3], dict)


def test_long_headers_are_read_whole(tmp_path, reader):
    path = tmp_path / "long.fits"
    header = fits.Header([(f"KEY{n}", n) for n in range(3000)])
    header["SEQNUM"] = 7
    fits.PrimaryHDU(header=header).writeto(path)
    assert reader.read([HeaderRequest(path.as_uri(), path.stat().st_size, ("SEQNUM",))]) == [{"SEQNUM": 7}]


def test_names_that_a_uri_quotes(tmp_path, reader):
    folder = tmp_path / "a b%20#c?é"
    paths = write_exposure(folder, 20241108, 266)
    index = paths[0].parent / "_index.json"
    index.write_text(index.read_text().replace("ECDFS", "INDEXED"))
    assert {header["OBJECT"] for header in reader.read(requests(paths))} == {"INDEXED"}


def test_many_directories_at_once(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("arriero.agent.ingest.metadata.PATIENCE_S", -1.0)  # every storage counts as slow
    paths = [path for seq in range(1, 31) for path in write_exposure(tmp_path, 20241108, seq, shape=(2, 2))]
    headers = reader.read(requests(paths))
    assert [header["SEQNUM"] for header in headers] == [seq for seq in range(1, 31) for _ in range(9)]


def test_index_is_kept_for_a_while_and_its_absence_too(exposure):
    reader = MetadataReader(index_ttl_s=60)
    index = exposure[0].parent / "_index.json"
    index.rename(index.with_suffix(".later"))
    reader.read(requests(exposure))
    content = index.with_suffix(".later").read_text()
    index.write_text(content.replace("ECDFS", "INDEXED"))
    assert reader.read(requests(exposure))[0]["OBJECT"] == "ECDFS"
    reader.close()


@pytest.mark.parametrize("server", ["apache", "xrootd_in2p3", "wsgidav"])
def test_headers_over_webdav(services, server, exposure, reader, monkeypatch):
    webdav = services.webdav(server)
    name = f"headers_{server}"
    for path in [*exposure, exposure[0].parent / "_index.json"]:
        webdav.write_file(f"{name}/{path.name}", path.read_bytes())
    folder = webdav.data_dir / name
    expected = reader.read(requests(exposure))
    base = f"{webdav.url}/{name}"
    wanted = [
        HeaderRequest(f"{base}/{path.name}", path.stat().st_size, COMCAM.header_keys) for path in exposure
    ]
    try:
        assert reader.read(wanted) == expected
        (folder / "_index.json").unlink()
        (folder / exposure[5].name).unlink()
        headers = reader.read(wanted)
        assert isinstance(headers.pop(5), FileVanished)
        assert headers == expected[:5] + expected[6:]
        (longer,) = reader.read([replace(wanted[0], bytes=wanted[0].bytes + 1)])
        assert isinstance(longer, SizeDiffers), "the server tells the size with the first bytes"
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("uri", ["root://se.example.org//raw/a.fits", "s3://bucket/a.fits"])
def test_a_uri_that_nothing_here_can_read_is_that_files_error(exposure, reader, uri):
    headers = reader.read([HeaderRequest(uri, BLOCK, ("SEQNUM",)), *requests(exposure)])
    assert isinstance(headers[0], UnreadableUri)
    assert not headers[0].retryable
    assert uri in str(headers[0])
    assert not any(isinstance(header, IngestError) for header in headers[1:])


def test_storage_that_is_away_is_asked_once(reader, monkeypatch):
    asked = []

    def read_start(uri, size):
        asked.append(uri)
        return butler_resources.read_start(uri, size)

    monkeypatch.setattr("arriero.agent.ingest.metadata.read_start", read_start)
    for bound in ("_backoff_min", "_backoff_max"):  # of the retries of lsst.resources, seconds
        monkeypatch.setattr(HttpResourcePath._data_session_store, bound, 0.01)
    wanted = [HeaderRequest(f"http://127.0.0.1:9/a/{n}.fits", BLOCK, ("SEQNUM",)) for n in range(500)]
    errors = reader.read(wanted)
    assert {type(error) for error in errors} == {StorageUnavailable}
    assert all(error.retryable for error in errors)
    assert len(asked) == 1, "one time-out, not one per file"
