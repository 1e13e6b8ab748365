"""Before the gateway: nothing is answered without a key but what docs/gateway.md lists."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from support.fake_triton_http import FakeTriton
from support.gateway_in_process import eventually
from support.gateway_process import Running, gateway
from support.gateway_wire import ENSEMBLE, Answer, Wire, get, post, wait_for
from support.key_files import KeyFile
from support.paths import ROOT
from trellis.gateway.access.key_file import KeyEntry, digest, new_key, write_keys
from trellis.gateway.access.keys import CALLER, OPEN_PATHS, Keyring, sent_keys
from trellis.gateway.app import make_app
from trellis.gateway.generate import owner_of
from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal
from trellis.gateway.server import Server, listening_sockets
from trellis.gateway.state import State
from trellis.server.access_settings import AccessSettings
from trellis.server.gateway_settings import GatewaySettings

ASKED = {"text_input": "x"}
PARAMETERS = {"name": "ensemble", "version": "1", "region": "mine", "verb": "load"}


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.yaml")


@pytest.fixture(scope="module")
def key(file: KeyFile) -> str:
    return file.add("alice")


@pytest.fixture(scope="module")
def front(triton: FakeTriton, file: KeyFile, key: str) -> Iterator[Running]:
    access = AccessSettings(api_keys=str(file.path))
    with gateway(triton.port, os.getpid(), access=access, expose_inner_models=True) as running:
        yield running


def ask(front: Running, request: bytes) -> Answer:
    with Wire(front.port) as wire:
        return wire.send(request).answer()


def paths() -> list[tuple[str, str]]:
    """Every method and path of the application."""

    async def routes() -> list[tuple[str, str]]:
        settings = GatewaySettings("127.0.0.1", 1, 1, 1, 1.0, allow_admin_endpoints=True)
        state = State(settings, Limits())
        made = make_app(state).routes
        await state.close()
        found = []
        for route in made:
            assert isinstance(route, Route), f"{route}: how is it asked?"
            path = re.sub(r"\{(\w+)(:\w+)?\}", lambda part: PARAMETERS[part[1]], route.path)
            methods = sorted((route.methods or set()) - {"HEAD"})
            found += [(method, path) for method in methods]
        return found

    return asyncio.run(routes())


WRONG_KEYS = [
    (),
    ("Authorization: Bearer",),
    ("Authorization: Bearer wrong",),
    ("Authorization: Basic YTpi",),
    ("X-API-Key: wrong",),
    ("X-API-Key:",),
    ("Cookie: key=1",),
    ("Authorization: Bearer " + "a" * 4000,),
]


@pytest.mark.parametrize("headers", WRONG_KEYS)
def test_no_path_is_answered_without_a_key_but_those_that_are_listed(
    front: Running, triton: FakeTriton, headers: tuple[str, ...]
) -> None:
    every = paths()
    assert len(every) > 30
    triton.requests.clear()
    for method, path in [*every, ("GET", "/nothing"), ("POST", "/metrics"), ("OPTIONS", "/v1/x")]:
        request = post(ASKED, *headers, target=path) if method == "POST" else get(path, *headers)
        answer = ask(front, request.replace(b"GET ", method.encode() + b" ", 1))
        if path in OPEN_PATHS:
            assert answer.status != 401
        else:
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            said = json.loads(answer.body)["error"]
            if path.startswith("/v1/"):
                assert said["code"] == "invalid_api_key"
                assert said["type"] == "invalid_request_error"
            else:
                assert "API key" in (said["message"] if isinstance(said, dict) else said)
    health = {"/v2/health/live", "/v2/health/ready"}
    assert {asked.path for asked in triton.requests} <= health


def test_the_documentation_lists_what_is_open() -> None:
    text = (ROOT / "docs" / "gateway.md").read_text()
    listed = text[text.index("## API keys") :].partition("Open without a key: ")[2]
    assert set(re.findall(r"`(/[^`]*)`", listed.partition(".\n")[0])) == OPEN_PATHS


@pytest.mark.parametrize(
    "header", ["Authorization: Bearer ", "authorization: bearer  ", "X-API-Key: "]
)
def test_a_key_opens(front: Running, key: str, header: str) -> None:
    answer = ask(front, get(ENSEMBLE, header + key))
    assert answer.status == 200


def test_a_wrong_key_beside_the_right_one_opens(front: Running, key: str) -> None:
    headers = ("Authorization: Bearer none", f"X-API-Key: {key}")
    assert ask(front, get(ENSEMBLE, *headers)).status == 200


def test_the_body_is_not_read_before_the_key(front: Running) -> None:
    with Wire(front.port) as wire:
        head = f"POST {ENSEMBLE}/generate HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Length: 900000\r\n\r\n"
        answer = wire.send(head.encode()).answer()
    assert answer.status == 401
    assert answer.headers["connection"] == "close"


def test_keys_are_read_anew_on_sighup_and_a_bad_file_changes_nothing(
    triton: FakeTriton, tmp_path: Path
) -> None:
    file = KeyFile(tmp_path / "keys.yaml")
    first = file.add("first")
    access = AccessSettings(api_keys=str(file.path))
    with gateway(triton.port, os.getpid(), access=access) as front:

        def status(key: str) -> int:
            return ask(front, get(ENSEMBLE, f"X-API-Key: {key}")).status

        assert status(first) == 200
        second = file.add("second")
        assert (status(first), status(second)) == (200, 401)
        front.process.send_signal(signal.SIGHUP)
        wait_for(lambda: status(second) == 200)
        file.path.write_text("keys: {first: {sha256: oops}}")
        front.process.send_signal(signal.SIGHUP)
        assert front.process.stderr is not None
        lines = [front.process.stderr.readline().decode() for _ in range(2)]
        assert "API keys: read again" in lines[0]
        assert "keys.first.sha256: no SHA-256 of a key" in lines[1]
        assert "what was read before stays" in lines[1]
        assert (status(first), status(second)) == (200, 200)
        file.remove("first")
        front.process.send_signal(signal.SIGHUP)
        wait_for(lambda: status(first) == 401)
        assert status(second) == 200


def test_a_file_that_changes_while_the_gateway_starts_is_read_again(tmp_path: Path) -> None:
    """Its SIGHUP may have come before anybody listened: one of several workers kept old keys."""
    file = KeyFile(tmp_path / "keys.yaml")
    first = file.add("first")
    access = AccessSettings(api_keys=str(file.path))
    server = Server(GatewaySettings("127.0.0.1", 0, 1, os.getpid(), 0.2, access=access))
    second = file.add("second")
    file.remove("first")

    async def go() -> list[bool]:
        serving = asyncio.create_task(server.serve(listening_sockets("127.0.0.1", 0)))
        await eventually(lambda: server.started)
        assert server.state is not None
        keyring = server.state.keyring
        assert keyring is not None
        known = [keyring.account(key) is not None for key in (first, second)]
        server.should_exit = True
        await serving
        return known

    assert asyncio.run(go()) == [False, True]


def test_a_limit_is_429_in_the_form_of_each_api(triton: FakeTriton, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.yaml")
    few, other = file.add("few", requests_per_minute=1), file.add("other")
    with gateway(triton.port, access=AccessSettings(api_keys=str(file.path))) as front:
        assert ask(front, get(ENSEMBLE, f"X-API-Key: {few}")).status == 200
        triton_form = ask(front, post(ASKED, f"X-API-Key: {few}"))
        assert triton_form.status == 429
        assert 1 < int(triton_form.headers["retry-after"]) <= 60
        assert "1 requests a minute" in json.loads(triton_form.body)["error"]
        openai_form = ask(front, post(ASKED, f"X-API-Key: {few}", target="/v1/chat/completions"))
        error = json.loads(openai_form.body)["error"]
        assert (openai_form.status, error["code"]) == (429, "rate_limit_exceeded")
        assert error["type"] == "rate_limit_error"
        assert ask(front, get(ENSEMBLE, f"X-API-Key: {other}")).status == 200


def test_tokens_of_a_request_count(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.yaml")
    key = file.add("few", tokens_per_minute=100)
    access = AccessSettings(api_keys=str(file.path))
    with FakeTriton() as triton, gateway(triton.port, access=access) as front:
        triton.error = "no"  # the quickest answer
        asked = post({"text_input": "x" * 240}, f"X-API-Key: {key}")
        assert json.loads(ask(front, asked).body) == {"error": "no"}
        assert ask(front, asked).status == 429
        more = ask(front, post({"text_input": "x" * 600}, f"X-API-Key: {key}"))
        assert more.status == 400
        assert "at most 100 (tokens_per_minute)" in json.loads(more.body)["error"]


def test_no_key_is_on_the_command_line_or_in_the_log(
    front: Running, file: KeyFile, key: str
) -> None:
    line = Path(f"/proc/{front.process.pid}/cmdline").read_bytes().decode()
    assert str(file.path) in line
    assert key not in line
    assert digest(key) not in line


def test_two_keys_of_one_stop_key_do_not_stop_each_other() -> None:
    headers = [(b"trellis-stop-key", b"k" * 20)]
    owners = {
        owner_of({"headers": headers, "client": ("h", 1), CALLER: name}) for name in ("a", "b")
    }
    assert len(owners) == 2


@given(st.text(max_size=60))
def test_no_other_text_is_a_key(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("k") / "keys.yaml"
    key = new_key()
    write_keys(path, {"a": KeyEntry(sha256=digest(key))})
    keyring = Keyring(path)
    assert keyring.account(key) is not None
    assert keyring.account(text) is None
    with pytest.raises(Refusal):
        keyring.find([(b"authorization", b"Bearer " + text.encode())])


def test_only_two_keys_of_a_request_are_looked_at() -> None:
    assert sent_keys([(b"x-api-key", b"%d" % n) for n in range(9)]) == ["0", "1"]
