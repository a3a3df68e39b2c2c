"""The client against a real registry, and against servers that misbehave."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import update

from arriero.registry.calls.transport import segments
from arriero.registry.client import RegistryClient, UnexpectedAnswer, Unreachable
from arriero.registry.errors import (
    Busy,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RegistryError,
)
from arriero.registry.models import NewButler, NewToken
from arriero.registry.schema.tables import tokens
from support.catalogue import add_rse, add_scope

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every call with `answer`; yields its URL and the calls that came."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            calls.append(f"{self.command} {self.path} {body.decode()}".strip())
            answer(self)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", calls
        finally:
            running.shutdown()
            thread.join()


def reply(status: int, body: object = None, headers: dict[str, str] | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        given = {"Content-Type": "application/json", **(headers or {})}
        for name, value in given.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


_CLIENTS: list[RegistryClient] = []


def client(url: str, **options: object) -> RegistryClient:
    made = RegistryClient(url, **{"token": "secret", "timeout": 5, **options})
    _CLIENTS.append(made)
    return made


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while _CLIENTS:
        _CLIENTS.pop().close()


# -- a real registry ------------------------------------------------------------------------------


def test_it_logs_in_when_needed_and_again_when_its_session_has_ended(registry):
    root = registry.client()
    assert root.ping()["version"]
    assert root._token is None, "ping needs no credentials"
    assert root.whoami()["account"] == "root"
    with registry.database.transaction() as connection:
        connection.execute(update(tokens).values(revoked_at=tokens.c.created_at))
    assert root.whoami()["account"] == "root"


def test_many_threads_share_one_client_and_one_login(registry):
    root = registry.client()
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: root.whoami()["account"], range(40)))
    assert names == ["root"] * 40
    with registry.database.snapshot() as connection:
        assert len(connection.execute(tokens.select()).all()) == 1


def test_a_token_file_is_read_again_when_its_token_is_refused(registry, tmp_path):
    root = registry.client()
    first = root.create_token(NewToken(label="first", lifetime_s=600))
    file = tmp_path / "token"
    file.write_text(first.token + "\n")
    agent = registry.client(token_file=file)
    list(agent.list_butlers())
    root.revoke_token(first.id)
    with pytest.raises(NotAuthenticated):
        list(agent.list_butlers())
    file.write_text(root.create_token(NewToken(label="second", lifetime_s=600)).token)
    list(agent.list_butlers())


def test_wrong_and_missing_credentials(registry, tmp_path):
    with pytest.raises(NotAuthenticated):
        registry.client(username="root", password="wrong").whoami()
    with pytest.raises(NotAuthenticated, match="ARRIERO_TOKEN_FILE"):
        client(registry.url, token=None).whoami()
    with pytest.raises(NotAuthenticated, match="token create"):
        registry.client(token_file=tmp_path / "none").whoami()


def test_errors_come_back_as_what_they_are(registry):
    root = registry.client()
    with pytest.raises(NotFound) as missing:
        root.butler("no such butler")
    assert (missing.value.stable_code, missing.value.exit_code) == ("butler_not_found", 3)


def test_lists_are_streamed_with_names_that_break_lines(registry):
    add_scope(registry.database, "raw")
    add_rse(registry.database, "DISK")
    root = registry.client()
    uri = "/repo/\u2028\u0085 end"
    root.add_butler(NewButler(name="b", uri=uri, rses=[{"rse": "DISK"}], selections=[{"scope": "raw"}]))
    assert [butler.uri for butler in root.list_butlers()] == [uri]


# -- servers that misbehave -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInput),
        (401, NotAuthenticated),
        (403, NotAllowed),
        (404, NotFound),
        (409, Conflict),
        (413, RegistryError),
        (500, RegistryError),
        (503, Busy),
    ],
)
def test_a_rucio_error_without_a_code_is_told_by_its_status(status, error):
    headers = {"ExceptionClass": "SomeRucioError", "ExceptionMessage": "what went wrong"}
    with (
        server(reply(status, None, headers)) as (url, _),
        pytest.raises(error, match="what went wrong") as caught,
    ):
        client(url).add_rse("DISK")
    assert caught.value.rucio_class == "SomeRucioError"


def test_the_code_in_the_body_decides():
    body = {"code": "butler_not_found", "ExceptionMessage": "there is no such butler", "retryable": False}
    with server(reply(404, body)) as (url, _), pytest.raises(NotFound) as caught:
        client(url).butler("x")
    assert caught.value.stable_code == "butler_not_found"


def test_what_is_no_registry_is_told_as_such():
    with (
        server(reply(200, b"<html>welcome</html>", {"Content-Type": "text/html"})) as (url, _),
        pytest.raises(UnexpectedAnswer, match="ARRIERO_URL"),
    ):
        client(url).ping()


def test_reading_is_repeated_and_ends_with_what_to_do():
    answers = iter([hang_up, reply(503, {}), reply(200, {"version": "1"})])

    def next_answer(handler: BaseHTTPRequestHandler) -> None:
        next(answers)(handler)

    with server(next_answer) as (url, calls):
        assert client(url).ping() == {"version": "1"}
    assert len(calls) == 3
    with server(hang_up) as (url, calls), pytest.raises(Unreachable, match="try again") as caught:
        client(url).ping()
    assert len(calls) == 4
    assert (caught.value.exit_code, caught.value.retryable) == (5, True)


def test_a_call_that_may_have_happened_is_not_repeated():
    with server(hang_up) as (url, calls), pytest.raises(Unreachable):
        client(url).add_replication_rule([{"scope": "s", "name": "n"}], 1, "DISK")
    assert len(calls) == 1


def test_a_call_that_was_never_sent_is_repeated():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Unreachable, match="ConnectError"):
            client(url).add_rse("DISK")


def test_a_list_that_breaks_off_is_an_error_not_an_end():
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-json-stream")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"rse": "A"}\n{"rse"')
        handler.wfile.flush()
        hang_up(handler)

    with server(half) as (url, _):
        found = client(url).list_rses()
        assert next(found) == {"rse": "A"}
        with pytest.raises(Unreachable, match="broke off"):
            next(found)


def test_names_are_quoted_as_rucios_clients_do():
    assert segments("raw", "a/b c+d%e") == "/raw/a%2Fb+c%2Bd%25e"
    assert segments("..") == "/%2E%2E"
    with server(reply(200, {"id": "x"})) as (url, calls):
        client(url).get_did("raw", "LSSTComCam/ü /..")
        client(url).get_did("raw", "..")
    assert [call.split()[1] for call in calls] == ["/dids/raw/LSSTComCam%2F%C3%BC+%2F..", "/dids/raw/%2E%2E"]


def test_the_token_goes_to_no_other_server():
    with (
        server(reply(200, {"version": "stolen"})) as (other, seen),
        server(reply(302, {}, {"Location": f"{other}/ping"})) as (url, _),
        pytest.raises(RegistryError),
    ):
        client(url).whoami()
    assert seen == []


def test_a_url_that_is_none():
    with pytest.raises(InvalidInput, match="ARRIERO_URL"):
        client("ftp://example.org").ping()


def test_rule_ids_are_found_by_a_unique_beginning():
    rules = [{"id": "abcd" + "0" * 28}, {"id": "abce" + "0" * 28}, {"id": "abcd1" + "0" * 27}]
    with server(reply(200, rules)) as (url, _):
        found = client(url)
        assert found.resolve_rule_id("abce") == rules[1]["id"]
        assert found.resolve_rule_id("ABCD1") == rules[2]["id"]
        whole = "f" * 32
        assert found.resolve_rule_id(whole) == whole
        with pytest.raises(InvalidInput, match="2 rules"):
            found.resolve_rule_id("abcd")
        with pytest.raises(NotFound):
            found.resolve_rule_id("ffff")
        for wrong in ("abc", "xyz12", ""):
            with pytest.raises(InvalidInput):
                found.resolve_rule_id(wrong)


def test_a_site_needs_neither_the_database_nor_the_web_framework():
    """`pip install arriero` has no sqlalchemy and no fastapi; the client must import without them."""
    code = (
        "import sys\n"
        "for name in ('sqlalchemy', 'fastapi', 'starlette', 'uvicorn', 'orjson', 'psycopg', 'jinja2', 'celery'):\n"
        "    sys.modules[name] = None\n"
        "import arriero.registry.client, arriero.registry.models, arriero.agent.registration\n"
        "import arriero.agent.cli.main as m\n"
        "[m.cli.get_command(None, n) for n in m.COMMANDS if n not in ('up', 'serve', 'admin', 'agent')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
