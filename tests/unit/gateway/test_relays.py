# SPDX-License-Identifier: Apache-2.0
"""What goes to Triton as it is asked: health, metadata, the index, what an operator opens."""

import asyncio
import json
import os
from typing import Any

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_in_process import Client, InProcess, eventually, run
from support.gateway_wire import ENSEMBLE, get, post
from trellis.gateway.server import BEAT_SECONDS

LOAD = "/v2/repository/models/ensemble/load"


async def asked(gateway: InProcess, request: bytes) -> tuple[int, Any]:
    """Status and JSON of one request."""
    client = await gateway.connect()
    await client.send(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    answer = await client.read()
    head, _, data = answer.partition(b"\r\n\r\n")
    client.close()
    return int(head.split()[1]), json.loads(data) if data.strip() else None


def test_answers_of_triton_come_back_with_their_status() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        status, config = await asked(gateway, get(f"{ENSEMBLE}/config"))
        assert (status, config["name"]) == (200, "ensemble")
        paths = ("/v2/health/live", "/v2/health/ready", "/health", "/v2", "/v2/models/stats")
        for path in paths:
            assert await asked(gateway, get(path)) == (404, {"error": "none"})
        assert [one.path for one in triton.requests[-len(paths) :]] == [
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/health/ready",
            "/v2",
            "/v2/models/stats",
        ]

    run(body)


def test_an_inner_model_is_shown_only_where_it_was_opened() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        status, error = await asked(gateway, get("/v2/models/tensorrt_llm/config"))
        assert status == 404
        assert "--expose-inner-models" in error["error"]

    async def opened(gateway: InProcess, triton: FakeTriton) -> None:
        status, config = await asked(gateway, get("/v2/models/tensorrt_llm/config"))
        assert (status, config["name"]) == (200, "tensorrt_llm")

    run(body)
    run(opened, expose_inner_models=True)


@pytest.mark.parametrize("key", ["", "k" * 20])
def test_the_index_takes_one_thing_and_goes_by_the_admins_key(key: str) -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        for sent, wanted in ((b"", False), ({"ready": True}, True), ({"ready": False}, False)):
            status, _ = await asked(gateway, post(sent, target="/v2/repository/index"))
            assert status == 200
            assert triton.requests[-1].body == {"ready": wanted}
            headers = [value for _, value in triton.requests[-1].headers]
            assert (key in headers) == bool(key)
        count = len(triton.requests)
        for wrong in ({"ready": 1}, {"x": True}, b"[1]", b"{", {"ready": True, "pad": "x" * 5000}):
            status, error = await asked(gateway, post(wrong, target="/v2/repository/index"))
            assert status in (400, 413)
            assert len(error["error"]) < 200
        assert len(triton.requests) == count

    run(body, admin_key=key)


def test_model_control_is_shut_and_a_refused_load_drops_nothing() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        await asked(gateway, get(f"{ENSEMBLE}/config"))
        state = gateway.server.state
        assert state is not None
        assert state.models.known(ENSEMBLE)
        count = len(triton.requests)
        for path in (LOAD, "/v2/logging", "/v2/systemsharedmemory/region/a/register"):
            status, error = await asked(gateway, post({}, target=path))
            assert status == 403
            assert "--allow_admin_endpoints" in error["error"]
        assert len(triton.requests) == count
        assert state.models.known(ENSEMBLE)

    run(body)


def test_opened_model_control_is_written_anew_and_forgets_what_was_known() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        await asked(gateway, get(f"{ENSEMBLE}/config"))
        state = gateway.server.state
        assert state is not None
        assert state.models.known(ENSEMBLE)
        status, _ = await asked(gateway, post({"parameters": {}}, target=LOAD))
        assert status == 200
        assert triton.requests[-1].path == LOAD
        assert triton.requests[-1].body == {"parameters": {}}
        assert not state.models.known(ENSEMBLE)

    run(body, allow_admin_endpoints=True)


def test_a_server_that_was_asked_to_stop_lives_and_is_not_ready() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        state = gateway.server.state
        assert state is not None
        state.draining = True
        status, error = await asked(gateway, get("/v2/health/ready"))
        assert (status, "stopping" in error["error"]) == (503, True)
        assert (await asked(gateway, get("/v2/health/live")))[0] == 404  # the fake's own answer
        assert (await asked(gateway, post({"text_input": "a"})))[0] == 503
        state.draining = False

    run(body)


def test_a_server_that_hangs_neither_lives_nor_is_ready_and_says_why() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        assert gateway.server.state is not None
        gateway.server.state.server.hung = "the engine process made no progress for 30 s"
        for path in ("/v2/health/live", "/v2/health/ready", "/health"):
            status, error = await asked(gateway, get(path))
            assert (status, "made no progress for 30 s" in error["error"]) == (503, True)
        status, error = await asked(gateway, post({"text_input": "a"}))
        assert (status, "made no progress for 30 s" in error["error"]) == (503, True)
        gateway.server.state.server.hung = ""
        assert (await asked(gateway, get("/v2/health/live")))[0] == 404  # the fake's own answer

    run(body)


def test_a_server_that_is_started_anew_lives_and_takes_nothing() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        assert gateway.server.state is not None
        triton.ready = True
        status = gateway.server.state.server
        assert (await asked(gateway, get("/v2/health/ready")))[0] == 200
        status.restarting = True
        triton.ready = False
        for path, expected in (("live", 200), ("startup", 200), ("ready", 404)):
            assert (await asked(gateway, get(f"/v2/health/{path}")))[0] == expected
        for request in (get(f"{ENSEMBLE}/config"), post({"text_input": "a"}), get("/v1/models")):
            code, error = await asked(gateway, request)
            assert (code, "started anew" in str(error)) == (503, True)
        status.restarting = False
        assert (await asked(gateway, get(f"{ENSEMBLE}/config")))[0] == 200

    run(body)


def test_the_start_up_probe_waits_for_the_first_readiness_and_stays() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        assert (await asked(gateway, get("/v2/health/startup")))[0] == 404  # not ready: its answer
        triton.ready = True
        assert (await asked(gateway, get("/v2/health/startup")))[0] == 200
        triton.ready = False
        assert (await asked(gateway, get("/v2/health/startup")))[0] == 200
        assert (await asked(gateway, get("/v2/health/ready")))[0] == 404

    run(body)


def test_of_a_server_in_the_place_of_another_nothing_is_known() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        state = gateway.server.state
        assert state is not None
        assert (await asked(gateway, get(f"{ENSEMBLE}/config")))[0] == 200
        assert state.models.known(ENSEMBLE)
        state.server.server_pid = os.getpid()  # the same: nothing is forgotten
        await asyncio.sleep(2 * BEAT_SECONDS)
        assert state.models.known(ENSEMBLE)
        state.server.server_pid = 12345
        await eventually(lambda: state.steps.server_pid == 12345)
        assert not state.models.known(ENSEMBLE)
        assert (state.counts.server_pid, state.abandoned._host._host.server_pid) == (12345, 12345)
        state.server.server_pid = 0

    run(body)


@pytest.mark.parametrize("kind", ["generate", "generate_stream"])
def test_an_overloaded_engine_is_a_503_that_may_be_tried_again(kind: str) -> None:
    """Triton answers 400, a stream's in an event."""

    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        for why, status in (("the server is overloaded: wait", 503), ("top_p: 7 is too much", 400)):
            triton.error = f"in ensemble 'ensemble', {why}"
            client = await gateway.connect()
            await client.send(post({"text_input": "a"}, target=f"{ENSEMBLE}/{kind}"))
            answer = await client.read(lambda data: b"}" in data)
            head, _, data = answer.partition(b"\r\n\r\n")
            assert int(head.split()[1]) == status
            assert (b"retry-after: 1" in head.lower()) == (status == 503)
            assert data.startswith(b"data: {" if kind == "generate_stream" else b"{")
            assert why.encode() in data
            client.close()

    run(body)


def test_a_stop_that_an_overloaded_engine_does_not_take_is_a_503_too() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        triton.error = "in ensemble 'ensemble', the server is overloaded: wait"
        status, error = await asked(gateway, post({"id": "7", "stop": True}))
        assert (status, error) == (503, {"error": triton.error})

    run(body, by_id=True)


def test_statuses_of_requests_side_by_side_stay_their_own() -> None:
    """A kept connection was given on before its status was read."""

    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        async def one(client: Client, path: str, wanted: int) -> None:
            for _ in range(40):
                await client.send(get(path))
                answer = await client.read(lambda data: data.endswith(b"}"))
                assert int(answer.split()[1]) == wanted

        paths = ((f"{ENSEMBLE}/config", 200), ("/v2/models/stats", 404)) * 3
        clients = [await gateway.connect() for _ in paths]
        await asyncio.gather(
            *(one(client, *path) for client, path in zip(clients, paths, strict=True))
        )
        for client in clients:
            client.close()

    run(body)
