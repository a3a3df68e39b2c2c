"""Bearer tokens: found where they are said to be, renewed without a word, known to have run out."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from arriero.rse.copy import copy_file
from arriero.rse.errors import AccessDenied, TokenExpired
from arriero.rse.pool import ProtocolPool
from arriero.rse.tokens import DiscoveredToken, TokenFile, expiry_of
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from servicelib.xrootd_tokens import XRootDWithTokens
from support.rse_badserver import BadServer
from support.rse_copies import CONTENT, left_behind, order
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


def token_of(seconds: float, **claims: object) -> str:
    """A token that runs out so many seconds from now, signed by nobody."""
    parts = [{"alg": "none"}, {"exp": time.time() + seconds, **claims}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "signature"])


class TestTokenFile:
    def test_it_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(" first\n")
        token = TokenFile(str(file), rse="X")
        assert token.read() == "first"
        (tmp_path / "new").write_text("other")
        (tmp_path / "new").rename(file)
        assert token.read() == "other"

    def test_one_that_has_run_out_is_told_before_anything_is_sent(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text(token_of(-3600))
        protocol = pool.get(bad.endpoint(token_file=str(file)))
        with pytest.raises(TokenExpired, match=r"ran out at \d{4}-.*renew it there") as caught:
            protocol.stat("f")
        assert (caught.value.code, caught.value.retryable) == ("token_expired", True)
        assert bad.requests == []
        file.write_text(token_of(3600))
        bad.files["f"] = b"abc"
        assert protocol.stat("f").bytes == 3

    def test_clocks_may_differ_by_a_minute(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(token_of(-50))
        assert TokenFile(str(file), rse="X").read()
        file.write_text(token_of(-70))
        with pytest.raises(TokenExpired):
            TokenFile(str(file), rse="X").read()

    @pytest.mark.parametrize(
        "text",
        [
            "opaque",
            "a.b.c",
            "a.!!!.c",
            "a." + base64.urlsafe_b64encode(b"[1]").decode() + ".c",
            "a." + base64.urlsafe_b64encode(b'{"exp": "soon"}').decode() + ".c",
            "a." + base64.urlsafe_b64encode(b'{"exp": true}').decode() + ".c",
            "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c",
        ],
    )
    def test_one_that_does_not_say_is_believed(self, text: str) -> None:
        assert expiry_of(text) is None

    def test_its_expiry_is_read(self) -> None:
        assert expiry_of(token_of(100)) == pytest.approx(time.time() + 100, abs=5)


class TestDiscovery:
    @pytest.fixture
    def found(self, tmp_path: Path) -> Callable[..., str]:
        """Look with some variables set, of which `{0}` stands for a folder of this test."""

        def find(**environment: str) -> str:
            filled = {name: text.format(tmp_path) for name, text in environment.items()}
            return DiscoveredToken(rse="X", environment=filled).read()

        return find

    def test_the_order_is_that_of_the_wlcg(self, tmp_path: Path, found: Callable[..., str]) -> None:
        name = f"bt_u{os.geteuid()}"
        (tmp_path / "named").write_text("named")
        (tmp_path / name).write_text("of-the-session")
        everywhere = {
            "BEARER_TOKEN": "of-the-environment",
            "BEARER_TOKEN_FILE": "{0}/named",
            "XDG_RUNTIME_DIR": "{0}",
        }
        assert found(**everywhere) == "of-the-environment"
        del everywhere["BEARER_TOKEN"]
        assert found(**everywhere) == "named"
        del everywhere["BEARER_TOKEN_FILE"]
        assert found(**everywhere) == "of-the-session"

    def test_the_last_place_is_tmp(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("arriero.rse.tokens.SHARED_FOLDER", tmp_path)
        (tmp_path / f"bt_u{os.geteuid()}").write_text("of-tmp")
        assert DiscoveredToken(rse="X", environment={}).read() == "of-tmp"
        assert DiscoveredToken(rse="X", environment={"XDG_RUNTIME_DIR": "/nowhere"}).read() == "of-tmp"

    def test_a_file_that_somebody_else_has_put_there_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("arriero.rse.tokens.SHARED_FOLDER", tmp_path)
        path = tmp_path / f"bt_u{os.geteuid()}"
        path.write_text("of-a-thief")
        mine = os.geteuid()
        looks = iter([mine, mine + 1])  # for its name, then for its owner
        monkeypatch.setattr(os, "geteuid", lambda: next(looks))
        with pytest.raises(AccessDenied, match="is not ours"):
            DiscoveredToken(rse="X", environment={}).read()

    def test_none_says_where_one_is_looked_for(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Callable[..., str]
    ) -> None:
        monkeypatch.setattr("arriero.rse.tokens.SHARED_FOLDER", tmp_path)
        with pytest.raises(AccessDenied, match="BEARER_TOKEN or BEARER_TOKEN_FILE"):
            found(XDG_RUNTIME_DIR="{0}")

    def test_one_in_the_environment_may_run_out(self, found: Callable[..., str]) -> None:
        with pytest.raises(TokenExpired, match="BEARER_TOKEN"):
            found(BEARER_TOKEN=token_of(-1000))
        with pytest.raises(AccessDenied, match="one bearer token"):
            found(BEARER_TOKEN="two words")

    def test_it_opens_a_storage(
        self, services: Services, pool: ProtocolPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = services.xrootd_tokens
        server.write_file("discovered/f", b"abc")
        monkeypatch.setenv("BEARER_TOKEN", server.token_for("storage.read:/"))
        protocol = pool.get(replace(endpoint_of(server), finds_token=True))
        assert protocol.stat("discovered/f").bytes == 3


class TestTokens:
    """XRootD with tokens of the WLCG's kind."""

    @pytest.fixture
    def server(self, services: Services) -> XRootDWithTokens:
        return services.xrootd_tokens

    def opened(self, server: XRootDWithTokens, tmp_path: Path, scope: str, **options: float) -> Endpoint:
        file = tmp_path / f"token-{abs(hash(scope))}"
        file.write_text(server.token_for(scope, **options))
        return https_endpoint_of(server, token_file=str(file))

    def test_scopes_are_what_a_token_may_do(
        self, server: XRootDWithTokens, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        writer = pool.get(self.opened(server, tmp_path, f"storage.modify:/{folder} storage.read:/{folder}"))
        writer.make_parents(f"{folder}/f")
        writer.write(f"{folder}/f", [b"abc"], 3)
        reader = pool.get(self.opened(server, tmp_path, f"storage.read:/{folder}"))
        assert b"".join(reader.read(f"{folder}/f")) == b"abc"
        for attempt in (
            lambda: reader.delete(f"{folder}/f"),
            lambda: reader.write(f"{folder}/g", [b"x"], 1),
            lambda: writer.write("elsewhere", [b"x"], 1),
            lambda: pool.get(endpoint_of(server)).stat(f"{folder}/f"),
        ):
            with pytest.raises(AccessDenied) as caught:
                attempt()
            assert caught.value.retryable is False
        assert left_behind(server, folder) == [f"{folder}/f"]

    def test_one_that_the_storage_finds_expired_is_looked_for_again_once(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        """Its file may have been renewed between our reading it and the storage's looking at it."""
        file = tmp_path / "token"
        file.write_text("old")
        bad.files["f"] = b"abc"

        def opens(_verb: str, _path: str, authorization: str) -> bool:
            file.write_text("new")
            return authorization == "Bearer new"

        bad.opens = opens
        assert pool.get(bad.endpoint(token_file=str(file))).stat("f").bytes == 3
        bad.opens = lambda *_: False
        bad.requests.clear()
        with pytest.raises(AccessDenied):
            pool.get(bad.endpoint(token_file=str(file))).stat("f")
        assert len(bad.requests) == 1

    def test_a_copy_between_two_storages_with_tokens(
        self, server: XRootDWithTokens, services: Services, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        """Pull: the destination gets its own token, and for the source a token of the source."""
        other = XRootDWithTokens(services.directory, "tokens-too", authority=server.authority)
        other.start()
        try:
            server.write_file(f"{folder}/f", CONTENT)
            source = self.opened(server, tmp_path, f"storage.read:/{folder}")
            destination = self.opened(other, tmp_path, f"storage.modify:/ storage.read:/{folder}/..")
            result = copy_file(order(source, destination, f"{folder}/f"), pool)
            assert result.mode == "third_party_pull"
            assert (other.data_dir / folder / "f").read_bytes() == CONTENT
            no_token = order(https_endpoint_of(server), destination, f"{folder}/f", attempt="r1-2")
            with pytest.raises(AccessDenied) as caught:
                copy_file(replace(no_token, destination_path=f"{folder}/g"), pool)
            assert caught.value.rse == "TOKENS_DISK"
            assert left_behind(other, folder) == [f"{folder}/f"]
        finally:
            other.stop()

    def test_a_token_that_may_only_create_suffices(
        self, server: XRootDWithTokens, slac: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        """The WLCG profile: create includes all that a copy needs that goes well."""
        for name in "fg":
            slac.write_file(f"{folder}/{name}", CONTENT)
        server.write_file(f"{folder}/deeper/x", b"")
        scope = f"storage.create:/{folder}/deeper storage.read:/{folder}/deeper"
        destination = replace(self.opened(server, tmp_path, scope), prefix=f"/rucio/{folder}/deeper")
        for name in "fg":
            task = replace(order(endpoint_of(slac), destination, f"{folder}/{name}"), destination_path=name)
            assert copy_file(task, pool).mode == "third_party_pull"
        assert pool.get(destination).abilities.is_proved is False, "a trial would leave its files there"
        [_trial, *copied] = left_behind(server, folder)
        assert copied == [f"{folder}/deeper/{name}" for name in "fgx"]
