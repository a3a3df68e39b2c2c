"""What arrives without a rule: folders, notifications, Rucio's messages, and tars of STARS2."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib

import pytest
from astropy.io import fits

from arriero.agent.notifications import as_replica, created, in_bursts, messages, transferred
from arriero.agent.stars2 import UnsafeArchive, unpack
from arriero.registry.models import NewToken
from support.cli import cli
from support.mover_sites import DOMAINS
from support.server import registry

__all__ = ["cli", "registry"]

RSE = "SUBARU_RAW_DISK"


@pytest.fixture
def place(registry, tmp_path, monkeypatch):
    """An RSE of files on which a token of the site is bound."""
    root = tmp_path / "storage"
    root.mkdir()
    client = registry.client()
    client.add_scope("root", "raw")
    client.add_rse(RSE)
    client.add_rse_attribute(RSE, "lfn2pfn_algorithm", "lsst_butler")
    protocol = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(root)}
    client.add_protocol(RSE, {**protocol, "domains": DOMAINS})
    token = client.create_token(NewToken(label="watch", lifetime_s=600, rses=[RSE])).token
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", token)
    return root, client


def registered(client, scope="raw"):
    names = [{"scope": scope, "name": one["name"]} for one in client.list_dids(scope, did_type="file")]
    return {one["name"]: one for one in client.list_replicas(names)} if names else {}


def where(tmp_path):
    return ["--rse", RSE, "--scope", "raw", "--once", "--memory", str(tmp_path / "memory.db")]


def test_a_folder_is_watched_for_complete_files(place, cli, tmp_path):
    root, client = place
    (root / "night").mkdir()
    (root / "night" / "a.fits").write_bytes(b"abc")
    (root / "night" / "b.fits.part").write_bytes(b"not yet")
    look = ["watch", "night", *where(tmp_path)]
    assert json.loads(cli("-o", "json", *look, "--settle", "3600").out)["waiting"] == 1
    assert registered(client) == {}
    assert json.loads(cli("-o", "json", *look, "--settle", "0").out)["registered"] == 1
    [one] = registered(client).values()
    assert (one["name"], one["bytes"], one["adler32"]) == ("night/a.fits", 3, f"{zlib.adler32(b'abc'):08x}")
    # renamed into place by its writer
    (root / "night" / "b.fits.part").rename(root / "night" / "b.fits")
    assert json.loads(cli("-o", "json", *look, "--settle", "0").out)["registered"] == 1
    assert json.loads(cli("-o", "json", *look, "--settle", "0").out)["registered"] == 0, (
        "nothing is read again"
    )
    # another file under a name that is known is refused, and told
    (root / "night" / "a.fits").write_bytes(b"abcd")
    cli(*look, "--settle", "0", expect=8)
    assert registered(client)["night/a.fits"]["bytes"] == 3


def record(key, event="ObjectCreated:Put", bucket="rubin-raw"):
    return {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 3}}}


def test_notifications_of_s3_are_registered_once(place, cli, tmp_path):
    root, client = place
    (root / "LATISS").mkdir()
    (root / "LATISS" / "a b.fits").write_bytes(b"abc")
    lines = [
        json.dumps({"Records": [record("LATISS/a+b.fits"), record("LATISS/a%20b.fits"), record("x.json")]}),
        "no json",
        json.dumps(
            {"Records": [{"eventName": "ObjectCreated:Put"}, record("../x.fits"), record("LATISS/gone.fits")]}
        ),
        json.dumps({"Records": [record("LATISS/a+b.fits", "ObjectRemoved:Delete")]}),
        json.dumps({"Message": json.dumps({"Records": [record("other.fits", bucket="other")]})}),
    ]
    source = tmp_path / "notifications.jsonl"
    source.write_text("\n".join(lines))
    options = ["watch", "s3-notifications", str(source), *where(tmp_path), "--bucket", "rubin-raw"]
    ended = cli("-o", "json", *options)
    assert json.loads(ended.out)["registered"] == 1
    assert "gone.fits" in ended.err
    assert set(registered(client)) == {"LATISS/a b.fits"}


def test_messages_of_rucio_are_read():
    payload = {
        "scope": "test",
        "name": "AT_O_20250113_000004_R00_S00.fits",
        "dst-rse": "XRD5",
        "bytes": 1443,
        "checksum-adler": "0a1b2c3d",
        "checksum-md5": None,
        "dst-url": "root://xrd5:1098//rucio/AT_O_20250113_000004_R00_S00.fits",
        "rubin_butler": "raw_file",
        "rubin_sidecar": {"id": "bad79e54-0000-0000-0000-000000000000"},
    }
    one = transferred(
        {"event_type": "transfer-done", "payload": payload, "created_at": "2025-01-14 20:58:08.9"}
    )
    replica = as_replica(one, with_pfn=True)
    assert (replica["scope"], replica["bytes"], replica["adler32"]) == ("test", 1443, "0a1b2c3d")
    assert replica["meta"]["rubin_butler"] == "raw_file"
    assert "md5" not in replica
    assert "pfn" not in as_replica(one, with_pfn=False)
    for other in (
        {"event_type": "transfer-failed", "payload": payload},
        {"event_type": "transfer-done"},
        [],
        None,
    ):
        assert transferred(other) is None
    assert list(messages(["", "{", '{"a": 1}'])) == [{"a": 1}]
    assert list(created({"Records": "no"})) == []


def test_what_rucio_has_brought_is_registered_with_what_rubin_wrote_on_it(place, cli, tmp_path):
    _, client = place

    def message(name, rse=RSE, **more):
        payload = {"scope": "raw", "name": name, "dst-rse": rse, "file-size": 3, "bytes": 3, **more}
        return json.dumps({"event_type": "transfer-done", "payload": payload})

    sidecar = {"id": "bad79e54-0000-0000-0000-000000000000"}
    told = {"checksum-adler": "024d0127", "rubin_butler": "raw_file", "rubin_sidecar": sidecar}
    source = tmp_path / "messages.jsonl"
    source.write_text(
        "\n".join(
            [message("a.fits", **told), message("b.fits", "OTHER", **told), "{", message("a.fits", **told)]
        )
    )
    for _ in range(2):
        ended = cli("-o", "json", "watch", "rucio-messages", str(source), "--rse", RSE)
        assert json.loads(ended.out)["told"] in {1, 2}, "twice, when they do not come together"
    assert set(registered(client)) == {"a.fits"}
    meta = client.get_metadata("raw", "a.fits")
    assert (meta["rubin_butler"], meta["rubin_sidecar"]) == ("raw_file", sidecar)
    source.write_text("\n".join([message("a.fits", **told, bytes=4), message("c.fits", **told)]))
    ended = cli("-o", "json", "watch", "rucio-messages", str(source), "--rse", RSE, expect=8)
    assert json.loads(ended.out) == {"rse": RSE, "told": 1, "refused": 1}, "another size costs no other file"
    assert set(registered(client)) == {"a.fits", "c.fits"}


def test_a_quiet_pipe_holds_nothing_back():
    reading, writing = os.pipe()
    with os.fdopen(reading) as source, os.fdopen(writing, "w") as sink:
        sink.write("one\n")
        sink.flush()
        bursts = in_bursts(source, 2)
        assert next(bursts) == ["one\n"]
        sink.write("two\nthree\nfour\n")
        sink.close()
        rest = list(bursts)
        assert [line for burst in rest for line in burst] == ["two\n", "three\n", "four\n"]
        assert max(map(len, rest)) <= 2


def pfs(day="2024-10-05", **cards):
    header = fits.Header({"DATE-OBS": day, **cards} if day else cards)
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(header=header)]).writeto(written)
    return written.getvalue()


def tar(path, members, *, manifest="md5", mode="w", special=()):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if manifest:
            lines = "".join(
                f"{hashlib.new(manifest, content).hexdigest()}  {name}\n"
                for name, content in members.items()
                if not name.startswith("zadmin")
            )
            info = tarfile.TarInfo("zadmin/manifest.txt")
            info.size = len(lines)
            archive.addfile(info, io.BytesIO(lines.encode()))
        for info in special:
            archive.addfile(info)
    return path


NIGHT = {
    "data/PFSA00066611.fits": pfs("2024-10-05T10:00:00"),
    "data/PFSB00123423.fits": pfs("2024-10-06"),
    "data/pfsConfig-0xad349fe21234abcd-000666.fits": pfs(None),
    "zadmin/unpack.py": b"raise SystemExit('it must not be run')",
    "README.txt": b"read me",
}


def test_a_tar_of_stars2_is_laid_out_registered_and_put_aside(place, cli, tmp_path):
    root, client = place
    drop = tmp_path / "drop"
    drop.mkdir()
    listed = {name: content for name, content in NIGHT.items() if name != "README.txt"}
    tar(drop / "S2Query.tar", listed)
    tar(drop / "bad.tar", {"../PFSA00066612.fits": pfs()})
    options = ["watch", "stars2-drop", str(drop), *where(tmp_path), "--settle", "0"]
    assert json.loads(cli("-o", "json", *options, expect=8).out)["registered"] == 3
    names = {
        "raw/2024-10-05/sps/PFSA00066611.fits",
        "raw/2024-10-06/sps/PFSB00123423.fits",
        "raw/2024-10-05/pfsConfig/pfsConfig-0xad349fe21234abcd-000666.fits",
    }
    assert set(registered(client)) == names
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == names
    assert sorted(path.name for path in drop.iterdir()) == [
        "S2Query.tar.done",
        "bad.tar.refused",
        "bad.tar.refused.txt",
    ]
    assert "leads out" in (drop / "bad.tar.refused.txt").read_text()
    # sent again: everything is known
    tar(drop / "again.tar", listed)
    assert json.loads(cli("-o", "json", *options).out)["failed"] == 0


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_an_unsafe_tar_leaves_nothing_behind(tmp_path):
    root, path = tmp_path / "raw", tmp_path / "s2.tar"
    good = {"PFSA00066611.fits": pfs()}
    cases = [
        ({"/etc/PFSA00066611.fits": pfs()}, {}, "leads out"),
        ({"a/../../PFSA00066611.fits": pfs()}, {}, "leads out"),
        ({"a\\PFSA00066611.fits": pfs()}, {}, "no usable name"),
        ({"a\nPFSA00066611.fits": pfs()}, {}, "no usable name"),
        (good, {"special": [special("l", tarfile.SYMTYPE, "/etc/passwd")]}, "no plain file"),
        (good, {"special": [special("l", tarfile.LNKTYPE, "PFSA00066611.fits")]}, "no plain file"),
        (good, {"special": [special("d", tarfile.CHRTYPE)]}, "no plain file"),
        (good, {"special": [special("f", tarfile.FIFOTYPE)]}, "no plain file"),
        ({"a/PFSA00066611.fits": pfs(), "b/PFSA00066611.fits": pfs()}, {}, "same place"),
        ({"PFSA00066611.fits": pfs(None)}, {}, "DATE-OBS"),
        (good, {"manifest": None}, "no manifest"),
        ({"bomb.fits": bytes(20_000_000)}, {"mode": "w:gz"}, "bomb"),
    ]
    for members, options, said in cases:
        with pytest.raises(UnsafeArchive, match=said):
            unpack(tar(path, members, **options), root)
        assert list(root.rglob("*")) == [], said

    whole = tar(path, good).read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(UnsafeArchive, match=r"no whole tar|cut short"):
        unpack(path, root)
    path.write_bytes(whole.replace(b"SIMPLE", b"SIMPLY", 1))
    with pytest.raises(UnsafeArchive, match="not what its manifest says"):
        unpack(path, root)
    extra = tar(path, good)
    with tarfile.open(extra, "a") as archive:
        info = tarfile.TarInfo("PFSA00066612.fits")
        archive.addfile(info, io.BytesIO())
    with pytest.raises(UnsafeArchive, match="not in its manifest"):
        unpack(extra, root)
    assert list(root.rglob("*")) == []

    for kind in ("md5", "sha256"):
        assert unpack(tar(path, good, manifest=kind), root).checked == 1
    place = root / "2024-10-05" / "sps" / "PFSA00066611.fits"
    place.write_bytes(b"another")
    with pytest.raises(UnsafeArchive, match="another"):
        unpack(path, root)
    assert place.read_bytes() == b"another"
