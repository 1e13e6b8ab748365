"""Requests with no key, or nearly one: whatever they are, nothing behind the gateway hears of them.

FUZZ_REQUESTS=10000 makes 10,000 of them.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import Running, gateway
from support.gateway_wire import ENSEMBLE, Wire
from support.key_files import KeyFile
from trellis.gateway.access.key_file import digest
from trellis.gateway.access.keys import OPEN_PATHS
from trellis.server.access_settings import AccessSettings

COUNT = int(os.environ.get("FUZZ_REQUESTS", "1000"))
SEED = 7
METHODS = ("GET", "POST", "POST", "OPTIONS", "HEAD", "PUT", "get", "TRACE")
PATHS = (
    "/", "/v2", "/health", "/v2/health/ready", "/v2/health/live", ENSEMBLE, f"{ENSEMBLE}/config",
    f"{ENSEMBLE}/generate", f"{ENSEMBLE}/generate_stream", f"{ENSEMBLE}/infer",
    "/v2/models/stats", "/v2/repository/index", "/v1/models", "/v1/chat/completions",
    "/v1/completions", "/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize", "/v2/logging",
    "/v2/repository/models/ensemble/load", "/status", "/metrics", "/nothing",
)  # fmt: skip
NAMES = (
    "Authorization", "authorization", "AUTHORIZATION", "X-API-Key", "x-api-key", "Api-Key",
    "Proxy-Authorization", "Cookie", "X-Api_Key", "Authorization2",
)  # fmt: skip
REFUSED = {400, 401, 404, 405, 408, 413, 414, 421, 431, 505}


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.yaml")


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


def nearly(rng: random.Random, key: str) -> str:
    """Something like the key that is not it."""
    at = rng.randrange(len(key))
    other = rng.choice([letter for letter in "abcXYZ019-_" if letter != key[at]])
    return rng.choice([
        "", "null", "None", "*", "Bearer", digest(key), key[:at], key + "=", key[1:],
        key[:at] + other + key[at + 1 :], key.swapcase(), f"{key},{key}", f"{key}\x0b", key * 3,
        f'"{key}"', f"{key[:at]} {key[at:]}", key.encode().hex(), "a" * rng.randrange(600),
    ])  # fmt: skip


def header(rng: random.Random, key: str) -> str:
    scheme = rng.choice(["", "Bearer ", "bearer ", "Basic ", "Bearer: ", "Token ", "Bearer  "])
    value = nearly(rng, key)
    if rng.random() < 0.1:  # the key itself, where no key is looked for
        return f"{rng.choice(['Api-Key', 'Cookie', 'Authorization2', 'X-Key'])}: {key}"
    return f"{rng.choice(NAMES)}: {scheme}{value}"


def request(rng: random.Random, key: str) -> tuple[str, bytes]:
    """A path, and a request to it."""
    path = rng.choice(PATHS)
    if rng.random() < 0.3:
        tail = rng.choice(["/", "?key=" + key, "/..", "//", "%2f", ";x", "#", "/versions/1", " "])
        path += tail
    lines = [f"{rng.choice(METHODS)} {path} HTTP/{rng.choice(['1.1', '1.1', '1.0'])}"]
    lines += ["Host: localhost", *(header(rng, key) for _ in range(rng.randrange(4)))]
    body = rng.choice([b"", b"{}", b'{"text_input":"x"}', b"\xff" * 50])
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    return path.partition("?")[0].rstrip(), "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status(front: Running, sent: bytes) -> int:
    """The status of an answer; 0 for none."""
    with Wire(front.port) as wire:
        first = wire.send(sent).rest().partition(b"\r\n")[0].split(b" ")
    return int(first[1]) if len(first) > 1 else 0


@pytest.mark.promise("made-up requests")
def test_nothing_is_answered_without_the_key(file: KeyFile, triton: FakeTriton) -> None:
    rng, key = random.Random(SEED), file.add("alice")
    access = AccessSettings(api_keys=str(file.path))
    statuses: dict[int, int] = {}
    options = {"expose_inner_models": True, "allow_admin_endpoints": True}
    with gateway(triton.port, os.getpid(), access=access, **options) as front:
        for _ in range(COUNT):
            path, sent = request(rng, key)
            found = status(front, sent)
            statuses[found] = statuses.get(found, 0) + 1
            if path not in OPEN_PATHS:
                assert found in REFUSED, (found, sent)
        assert front.process.poll() is None
        assert {asked.path for asked in triton.requests} <= OPEN_PATHS
        right = f"GET {ENSEMBLE} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
        assert status(front, f"{right}Connection: close\r\n\r\n".encode()) == 200
    assert statuses[401] > COUNT / 4
    print(f"{COUNT} requests without a key: {dict(sorted(statuses.items()))}")
