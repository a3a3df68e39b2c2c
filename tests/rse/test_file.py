"""What the file system can do to us, and must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arriero.rse.errors import AccessDenied, AlreadyExists, InvalidName, NoSpace, NotFound, Unavailable
from arriero.rse.file import FileProtocol
from arriero.rse.types import Endpoint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "d" / "f").write_text("content")
    return tmp_path / "root"


@pytest.fixture
def protocol(root: Path) -> FileProtocol:
    return FileProtocol(Endpoint("LOCAL", "file", "", 0, str(root)))


def test_link_to_a_file_is_not_followed(protocol: FileProtocol, root: Path) -> None:
    (root / "link").symlink_to("../outside/secret")
    (root / "within").symlink_to("d/f")
    for name in ("link", "within"):
        for method in (protocol.read, protocol.stat, protocol.digest):
            with pytest.raises(InvalidName, match="link"):
                method(name)
    with pytest.raises(InvalidName):
        protocol.move("link", "moved")
    protocol.write("link", [b"mine"], 4)
    assert (root / "link").read_bytes() == b"mine"
    assert (root.parent / "outside" / "secret").read_text() == "secret"


def test_link_to_a_folder_is_not_followed(protocol: FileProtocol, root: Path) -> None:
    (root / "away").symlink_to("../outside")
    for method in (protocol.read, protocol.stat, protocol.digest, protocol.list_directory):
        with pytest.raises((NotFound, InvalidName)):
            method("away/secret")
    with pytest.raises(NotFound):
        protocol.write("away/new", [b"x"], 1)
    with pytest.raises(AlreadyExists):
        protocol.make_parents("away/deeper/f")
    with pytest.raises(NotFound):
        protocol.move("d/f", "away/f")
    assert protocol.delete("away/secret") is False
    assert [path.name for path in (root.parent / "outside").iterdir()] == ["secret"]
    assert [entry.name for entry in protocol.list_directory("")] == ["d"]


def test_removing_a_link_leaves_what_it_points_at(protocol: FileProtocol, root: Path) -> None:
    (root / "link").symlink_to("../outside/secret")
    assert protocol.delete("link") is True
    assert (root.parent / "outside" / "secret").exists()


def test_pipes_do_not_hang(protocol: FileProtocol, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(InvalidName):
        protocol.read("pipe")
    with pytest.raises(InvalidName):
        protocol.stat("pipe")


def test_the_prefix_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "alias").symlink_to("root")
    aliased = FileProtocol(Endpoint("LOCAL", "file", "", 0, str(root.parent / "alias")))
    assert b"".join(aliased.read("d/f")) == b"content"


@pytest.mark.parametrize(
    ("number", "error"),
    [(28, NoSpace), (122, NoSpace), (13, AccessDenied), (30, AccessDenied), (36, InvalidName)],
)
def test_system_errors_are_told_apart(
    protocol: FileProtocol, root: Path, monkeypatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(error):
        protocol.write("d/new", [b"x"], 1)
    assert [path.name for path in (root / "d").iterdir()] == ["f"]


def test_move_where_there_are_no_hard_links(protocol: FileProtocol, root: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(1, "no hard links here")

    monkeypatch.setattr(os, "link", fail)
    protocol.write("d/g", [b"other"], 5)
    with pytest.raises(AlreadyExists):
        protocol.move("d/f", "d/g")
    assert (root / "d" / "g").read_bytes() == b"other"
    protocol.move("d/f", "d/h")
    assert (root / "d" / "h").read_text() == "content"
    assert not (root / "d" / "f").exists()


def test_a_prefix_that_is_not_there_is_no_proof_that_files_are_gone(tmp_path: Path) -> None:
    unmounted = FileProtocol(Endpoint("LOCAL", "file", "", 0, str(tmp_path / "unmounted")))
    calls = (
        lambda: unmounted.stat("d/f"),
        lambda: list(unmounted.read("d/f")),
        lambda: unmounted.delete("d/f"),
        lambda: unmounted.make_parents("d/f"),
        lambda: unmounted.write("d/f", [b"x"], 1),
    )
    for call in calls:
        with pytest.raises(Unavailable, match="unmounted is not there; mount or create it"):
            call()
    assert not (tmp_path / "unmounted").exists()
