"""Which paths there are, and that Triton gets nothing that the gateway did not write."""

import gzip
import json
import os
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import Running, gateway
from support.gateway_wire import ENSEMBLE, Wire, get, post, stream, wait_for
from trellis.gateway.limits import MIN_BODY_BYTES, Limits
from trellis.server.ports import free_ports

ASKED = {"text_input": "x"}
INNER = "tensorrt_llm"


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(scope="module")
def front(triton: FakeTriton) -> Iterator[Running]:
    with gateway(triton.port, os.getpid()) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_asked(triton: FakeTriton) -> None:
    triton.requests.clear()
    triton.streams.clear()


def zipped(data: bytes) -> bytes:
    """Packed, and the same in every process of a run: no time in it."""
    return gzip.compress(data, mtime=0)


def asked(front: Running, request: bytes) -> tuple[int, str]:
    """Status and error of one request."""
    with Wire(front.port) as wire:
        answer = wire.send(request).answer()
    return answer.status, json.loads(answer.body)["error"]


NO_PATHS = [
    "/nothing", "/v2x", "/v1", "/metrics", "/v2/health", "/v2/health/ready/x",
    "/v2/models", "/v2/models/ensemble/infers", "/V2/Models/ensemble/generate",
    "/v2/models/ensemble/GENERATE", "/v2/models/ensemble/generate;x",
    "/v2/models/ensemble/versions/x/generate", "/v2/models/ensemble/versions/1/x/generate",
    "/v2/models/ensemble/versions/-1/generate", "/v2/models/ensemble/x/generate",
    "/v2/models/ensemble/generate_streams", "/v2/repository", "/v2/repository/models",
]  # fmt: skip


@pytest.mark.parametrize("path", NO_PATHS)
def test_what_is_not_in_the_table_is_no_path(front: Running, triton: FakeTriton, path: str) -> None:
    for request in (get(path), post(ASKED, target=path)):
        status, error = asked(front, request)
        hint = "there is no such path; ask /v2/models/ensemble/generate"
        assert (status, error) == (404, f"{path}: {hint}")
    assert triton.requests == []


@pytest.mark.parametrize(
    ("request_", "allow"),
    [
        (get(f"{ENSEMBLE}/generate"), "POST"),
        (get("/v2/repository/index"), "POST"),
        (post(ASKED, target="/v2/health/ready"), "GET"),
        (post(ASKED, target=ENSEMBLE), "GET"),
        (get(ENSEMBLE).replace(b"GET", b"OPTIONS"), "GET"),
        (get().replace(b"GET", b"DELETE"), "GET, POST"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_a_405_with_those_that_it_has(
    front: Running, triton: FakeTriton, request_: bytes, allow: str
) -> None:
    with Wire(front.port) as wire:
        answer = wire.send(request_).answer()
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert triton.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/mine/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("POST", "/v2/repository/models/ensemble/load"),
        ("POST", "/v2/repository/models/ensemble/unload"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/trace/setting"),
        ("POST", f"{ENSEMBLE}/trace/setting"),
    ],
)
def test_what_is_for_administrators_is_403(
    front: Running, triton: FakeTriton, method: str, path: str
) -> None:
    status, error = asked(front, post({}, target=path) if method == "POST" else get(path))
    assert (status, "--allow_admin_endpoints" in error) == (403, True)
    assert triton.requests == []


@pytest.mark.parametrize("what", ["", "/config", "/generate", "/generate_stream"])
def test_inner_models_are_not_outside(front: Running, triton: FakeTriton, what: str) -> None:
    for version in ("", "/versions/1"):
        path = f"/v2/models/{INNER}{version}{what}"
        request = post(ASKED, target=path) if "gen" in what else get(path)
        status, error = asked(front, request)
        if version:  # the stand-in has no versions
            assert status == 404
            continue
        assert (status, "--expose-inner-models" in error) == (404, True)
    assert triton.streams == []


def test_inner_models_are_asked_where_they_are_exposed(triton: FakeTriton) -> None:
    exposed = gateway(triton.port, os.getpid(), expose_inner_models=True)
    with exposed as front, Wire(front.port) as wire:
        assert wire.send(get(f"/v2/models/{INNER}/config")).answer().status == 200
        wire.send(post({**ASKED, "any": [[1]]}, target=f"/v2/models/{INNER}/generate"))
        wait_for(lambda: bool(triton.streams))
        assert triton.requests[-1].body["any"] == [[1]]
        status, error = asked(front, post(b"[" * 100, target=f"/v2/models/{INNER}/generate"))
        assert (status, error.startswith("the body is nested too deeply")) == (400, True)


def test_a_load_that_is_refused_drops_nothing_and_one_that_is_not_does(
    triton: FakeTriton,
) -> None:
    load = post({}, target="/v2/repository/models/ensemble/load")

    def looks() -> int:
        return sum(one.path.endswith("/config") for one in triton.requests)

    for allowed in (False, True):
        opened = gateway(triton.port, os.getpid(), allow_admin_endpoints=allowed)
        with opened as front, Wire(front.port) as wire:
            assert wire.send(get(f"{ENSEMBLE}/config")).answer().status == 200
            before = looks()
            for _ in range(20):
                assert asked_status(front, load) == (200 if allowed else 403)
            assert wire.send(get(f"{ENSEMBLE}/config")).answer().status == 200
            assert looks() - before == (1 + 3 if allowed else 1)


def asked_status(front: Running, request: bytes) -> int:
    with Wire(front.port) as wire:
        return wire.send(request).answer().status


def test_a_request_is_written_anew_header_by_header(front: Running, triton: FakeTriton) -> None:
    hostile = [
        "Content-Type: application/json; charset=utf-8", "X-Forwarded-For: 1.2.3.4",
        "trellis-admin: guess", "Authorization: Bearer x", "Inference-Header-Content-Length: 0",
        "Accept-Encoding: gzip", "triton_grpc_error: true", "Cookie: a=b", "Trailer: X",
    ]  # fmt: skip
    with Wire(front.port) as wire:
        request = stream({**ASKED, "id": "mine"}, *hostile)
        wire.send(request.replace(b"stream HTTP", b"stream?a=b HTTP"))
        wait_for(lambda: bool(triton.streams))
        (sent,) = (one for one in triton.requests if one.method == "POST")
        assert sent.path == f"{ENSEMBLE}/generate_stream"
        assert dict(sent.headers).keys() == {"Host", "Content-Type", "Content-Length"}
        assert dict(sent.headers)["Content-Type"] == "application/json"
        inner = sent.body["id"]
        assert len(inner) == 32
        ours = {"id": inner, "trellis_client": inner}
        assert sent.body == {"text_input": "x", "stream": True, **ours}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 0),
        (["Content-Type: application/json"], 0),
        (["Content-Type: Application/JSON ; charset=UTF-8"], 0),
        (["Content-Type: application/x-www-form-urlencoded"], 0),  # curl -d
        (["Content-Type: application/x-www-form-urlencoded", "Origin: http://localhost"], 415),
        (["Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Site: cross-site"], 415),
        (["Content-Type: text/plain"], 415),
        (["Content-Type: text/plain", "Origin: http://localhost"], 415),
        (["Content-Type: multipart/form-data; boundary=x"], 415),
        (["Content-Type: application/octet-stream"], 415),
        (["Content-Type: application/json", "Content-Type: text/plain"], 415),
    ],
)
def test_a_body_that_another_sites_page_can_send_is_refused(
    front: Running, triton: FakeTriton, headers: list[str], status: int
) -> None:
    with Wire(front.port) as wire:
        wire.send(stream(ASKED, *headers))
        if status:
            answer = wire.answer()
            assert (answer.status, answer.error.partition(":")[0]) == (status, "Content-Type")
            assert triton.streams == []
        else:
            wait_for(lambda: bool(triton.streams))


def packed(body: bytes, how: str) -> bytes:
    return gzip.compress(body) if "gzip" in how else zlib.compress(body)


@pytest.mark.parametrize("how", ["gzip", "x-gzip", "deflate", "GZip"])
def test_packed_bodies_are_unpacked(front: Running, triton: FakeTriton, how: str) -> None:
    body = packed(json.dumps({**ASKED, "stream": True}).encode(), how.lower())
    target = f"{ENSEMBLE}/generate_stream"
    with Wire(front.port) as wire:
        wire.send(post(body, f"Content-Encoding: {how}", target=target))
        wait_for(lambda: bool(triton.streams))
        assert triton.streams[0].piece == b"x"


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_a_bomb_is_as_large_as_what_it_unpacks_to(front: Running, how: str) -> None:
    body = packed(b" " * (200 << 20), how)
    assert len(body) < MIN_BODY_BYTES
    before = front.memory
    begin = time.monotonic()
    status, error = asked(front, post(body, f"Content-Encoding: {how}"))
    assert (status, error) == (413, f"the body is larger than {MIN_BODY_BYTES} bytes")
    assert time.monotonic() - begin < 2
    assert front.memory - before < 20 << 20


@pytest.mark.parametrize(
    ("body", "how", "status"),
    [
        (b"{}", "gzip", 400),
        (zipped(b'{"text_input": "x"}')[:-9], "gzip", 400),
        (zipped(b"{}") + zipped(b"{}"), "gzip", 400),
        (zipped(b"{}") + b"x", "gzip", 400),
        (b"", "gzip", 400),
        (zipped(zipped(b"{}")), "gzip, gzip", 415),
        (b"{}", "br", 415),
        (b"{}", "x" * 500, 415),
    ],
)
def test_what_is_packed_wrongly_or_unknown_is_refused(
    front: Running, body: bytes, how: str, status: int
) -> None:
    got, error = asked(front, post(body, f"Content-Encoding: {how}"))
    assert (got, error.startswith("Content-Encoding: ")) == (status, True)
    assert len(error) < 200


def test_a_body_may_be_so_large_and_no_larger(front: Running) -> None:
    for size, status in ((MIN_BODY_BYTES, 400), (MIN_BODY_BYTES + 1, 413)):
        assert asked(front, post(b" " * size))[0] == status
    assert Limits().body_limit(2_000_000) == 32_000_000


def test_nobody_is_let_in_while_the_models_cannot_be_known() -> None:
    (nobody,) = free_ports(1)
    with gateway(nobody) as front:
        requests = [get(), get(ENSEMBLE), post(ASKED), stream(ASKED)]
        requests.append(post({}, target="/v2/repository/index"))
        for request in requests:
            with Wire(front.port) as wire:
                answer = wire.send(request).answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("body", [{"ready": 1}, {"ready": True, "x": 1}, {"secret": {}}])
def test_the_index_takes_one_thing_alone(front: Running, body: dict[str, Any]) -> None:
    assert asked(front, post(body, target="/v2/repository/index"))[0] == 400
