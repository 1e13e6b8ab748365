# SPDX-License-Identifier: Apache-2.0
"""Several processes of the gateway on one port: to clients they are one.

Which of them takes a connection is the kernel's choice, so each test makes enough connections that
all of them have some.
"""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.key_files import KeyFile
from support.launched import Launched
from support.load import ENSEMBLE
from support.serving import serve
from support.waiting import wait_for

WORKERS = 3
MANY = 24  # connections: that one of three gets none happens once in 5,000 times
LONG = {"text_input": "Once upon a time", "max_tokens": 4000, "end_id": -1, "stream": True}
SHORT = {"text_input": "Once upon a time", "max_tokens": 4, "end_id": -1}
ADDRESSES = 40


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.yaml")


@pytest.fixture(scope="module")
def keys(file: KeyFile) -> dict[str, dict[str, str]]:
    """The headers of those who may ask."""
    made = {
        "free": file.add("free"),
        "few": file.add("few", requests_in_flight=5),
        "slow": file.add("slow", requests_per_minute=7),
        "both": file.add("both", requests_per_minute=7),
    }
    return {name: {"Authorization": f"Bearer {key}"} for name, key in made.items()}


@pytest.fixture(scope="module")
def launched(
    demo_repo: Path,
    file: KeyFile,
    keys: dict[str, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("workers")
    options = ["--gateway_workers", str(WORKERS), "--api-keys", str(file.path)]
    options += ["--gateway_limit", f"connections_per_address={ADDRESSES}"]
    with serve(demo_repo, folder, *options, launcher=True) as running:
        yield running


def gateways(launched: Launched) -> list[psutil.Process]:
    """The processes of the gateway, the first one first."""
    below = psutil.Process(launched.process.pid).children()
    first = next(each for each in below if "trellis.gateway" in each.cmdline())
    return [first, *(each for each in first.children() if "trellis.gateway" in each.cmdline())]


def accepting(launched: Launched, process: psutil.Process) -> int:
    """How many connections of HTTP's clients it has."""
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == launched.http
        for each in process.net_connections("tcp")
    )


def client_of(launched: Launched, process: psutil.Process) -> httpx.Client:
    """One whose connection is this process's."""
    while True:
        client, before = httpx.Client(timeout=60), accepting(launched, process)
        assert client.get(f"{launched.url}/v2/health/live").status_code == 200
        if accepting(launched, process) > before:
            return client
        client.close()


def figure(launched: Launched, pattern: str) -> float:
    """The sum of a metric's samples that `pattern` finds."""
    page = httpx.get(f"http://127.0.0.1:{launched.metrics}/metrics").text
    found = re.findall(rf"^{pattern} (\S+)$", page, re.MULTILINE)
    return sum(map(float, found))


def post(launched: Launched, headers: dict[str, str], verb: str = "generate") -> httpx.Response:
    """By a connection of its own."""
    url = f"{launched.url}{ENSEMBLE}/{verb}"
    return httpx.post(url, json=SHORT, headers=headers, timeout=60)


def test_every_process_has_its_part_of_the_connections(launched: Launched) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(socket.create_connection(("127.0.0.1", launched.http)))
        processes = gateways(launched)
        wait_for(lambda: sum(accepting(launched, each) for each in processes) == MANY)
        counts = [accepting(launched, process) for process in processes]
    assert len(counts) == WORKERS
    assert all(counts), counts


def test_metrics_are_the_sums_of_all_whoever_is_asked(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    requests = r'trellis_requests_total\{.*endpoint="/generate".*\}'
    tokens = r"trellis_generation_tokens_total\{.*\}"
    before = figure(launched, requests), figure(launched, tokens)
    assert {post(launched, keys["free"]).status_code for _ in range(MANY)} == {200}
    for _ in range(MANY):
        assert figure(launched, requests) == before[0] + MANY
        assert figure(launched, tokens) == before[1] + 4 * MANY
    status = httpx.get(f"{launched.url}/status/figures", headers=keys["free"]).json()
    assert status["models"]["ensemble"]["tokens"] == before[1] + 4 * MANY


def test_requests_in_flight_with_a_key_are_those_of_all(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    url = f"{launched.url}{ENSEMBLE}/generate_stream"
    statuses = []
    with ExitStack() as stack:
        for _ in range(MANY):
            client = stack.enter_context(httpx.Client(timeout=60))
            stream = client.stream("POST", url, json=LONG, headers=keys["few"])
            statuses.append(stack.enter_context(stream).status_code)
    assert statuses == [200] * 5 + [429] * (MANY - 5)

    def again() -> bool:
        return post(launched, keys["few"]).status_code == 200

    wait_for(again)  # nothing stays counted of clients that hung up
    wait_for(lambda: figure(launched, r"trellis_http_requests_in_flight\{.*\}") == 0)


def test_requests_a_minute_with_a_key_are_those_of_all(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    begin = time.monotonic()
    statuses = [post(launched, keys["slow"]).status_code for _ in range(MANY)]
    more = int((time.monotonic() - begin) * 7 / 60)  # that were filled in meanwhile
    assert 7 <= statuses.count(200) <= 7 + more + 1
    assert statuses.count(429) == MANY - statuses.count(200)


def test_requests_by_grpc_are_counted_with_those_of_http(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    begin, answered, refused = time.monotonic(), 0, set[str]()
    for number in range(MANY):
        if number % 2:
            answered += post(launched, keys["both"]).status_code == 200
            continue
        with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as client:
            headers = {"authorization": keys["both"]["Authorization"]}
            try:
                answered += client.is_model_ready("ensemble", headers=headers)
            except InferenceServerException as error:
                refused.add(str(error))
    more = int((time.monotonic() - begin) * 7 / 60)
    assert 7 <= answered <= 7 + more + 1
    assert refused
    assert all("requests_per_minute" in error for error in refused)


def test_a_request_is_stopped_by_whichever_process_is_asked(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    headers = keys["free"] | {"Trellis-Stop-Key": "nobody can guess this"}
    stop = {"text_input": "", "max_tokens": 1, "stop": True}
    url = f"{launched.url}{ENSEMBLE}"
    for number in range(MANY // 2):  # both by the same one each time: once in 500,000 times
        asked = LONG | {"id": f"{number}", "return_finish_reason": True}
        with httpx.stream(
            "POST", f"{url}/generate_stream", json=asked, headers=headers, timeout=60
        ) as response:
            lines = response.iter_lines()
            next(lines)
            body = stop | {"id": f"{number}"}
            assert httpx.post(f"{url}/generate", json=body, headers=headers).status_code == 200
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["finish_reason"] == "cancelled"


def test_a_stop_ends_the_requests_of_its_id_in_all_processes(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    headers = keys["free"] | {"Trellis-Stop-Key": "nobody can guess this"}
    url = f"{launched.url}{ENSEMBLE}"
    asked = LONG | {"id": "the same", "return_finish_reason": True}
    with ExitStack() as stack:
        streams = []
        for process in gateways(launched):
            client = stack.enter_context(closing(client_of(launched, process)))
            stream = client.stream("POST", f"{url}/generate_stream", json=asked, headers=headers)
            streams.append(stack.enter_context(stream).iter_lines())
            next(streams[-1])
        body = {"text_input": "", "max_tokens": 1, "stop": True, "id": "the same"}
        assert httpx.post(f"{url}/generate", json=body, headers=headers).status_code == 200
        begin = time.monotonic()
        lasts = [[line for line in lines if line][-1] for lines in streams]
    for last in lasts:
        assert json.loads(last.removeprefix("data: "))["finish_reason"] == "cancelled"
    assert time.monotonic() - begin < 10


def test_a_client_that_hangs_up_ends_its_request(
    launched: Launched, keys: dict[str, dict[str, str]]
) -> None:
    url = f"{launched.url}{ENSEMBLE}/generate_stream"
    gone = r"trellis_disconnects_total\{.*\}"
    before = figure(launched, gone)
    for _ in range(6):
        with httpx.stream("POST", url, json=LONG, headers=keys["free"], timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
    wait_for(lambda: figure(launched, gone) == before + 6)
    wait_for(lambda: figure(launched, r"trellis_requests_running\{.*\}") == 0)


def test_connections_of_an_address_are_those_of_all(launched: Launched) -> None:
    refused = 0
    wait_for(lambda: not any(accepting(launched, each) for each in gateways(launched)))
    with ExitStack() as stack:
        for _ in range(ADDRESSES + 10):
            made = stack.enter_context(socket.create_connection(("127.0.0.1", launched.http)))
            made.settimeout(20)
            made.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            refused += made.recv(64).startswith(b"HTTP/1.1 429")
    assert refused == 10


def test_keys_are_read_again_by_all(launched: Launched, file: KeyFile) -> None:
    headers = {"Authorization": f"Bearer {file.add('late')}"}

    def all_say(status: int) -> bool:
        url = f"{launched.url}/v1/models"
        return {httpx.get(url, headers=headers).status_code for _ in range(MANY)} == {status}

    assert all_say(401)
    launched.process.send_signal(signal.SIGHUP)
    wait_for(lambda: all_say(200))
    file.remove("late")
    launched.process.send_signal(signal.SIGHUP)
    wait_for(lambda: all_say(401))


@pytest.mark.slow
class TestEnds:
    @pytest.fixture
    def own(self, demo_repo: Path, tmp_path: Path) -> Iterator[Launched]:
        options = ["--gateway_workers", str(WORKERS), "--hang_timeout", "5"]
        options += ["--drain_timeout", "60"]
        with serve(demo_repo, tmp_path, *options, launcher=True) as running:
            yield running

    def test_streams_of_all_end_whole_where_it_is_asked_to_stop(self, own: Launched) -> None:
        def read(_: int) -> str:
            body = LONG | {"max_tokens": 60, "return_finish_reason": True}
            url = f"{own.url}{ENSEMBLE}/generate_stream"
            return httpx.post(url, json=body, timeout=60).text

        with ThreadPoolExecutor(MANY) as pool:
            streams = [pool.submit(read, number) for number in range(MANY)]
            wait_for(lambda: figure(own, r"trellis_http_requests_in_flight\{.*\}") == MANY)
            assert own.stop() == 0
            texts = [stream.result() for stream in streams]
        assert all('"finish_reason":"length"' in text.rpartition("data: ")[2] for text in texts)
        own.assert_nothing_left()

    @pytest.mark.parametrize("number", range(WORKERS))
    def test_a_stream_of_one_ends_whole_where_the_others_have_none(
        self, own: Launched, number: int
    ) -> None:
        process = gateways(own)[number]
        body = LONG | {"max_tokens": 200, "return_finish_reason": True}
        url = f"{own.url}{ENSEMBLE}/generate_stream"
        with ExitStack() as stack:
            client = stack.enter_context(closing(client_of(own, process)))
            response = stack.enter_context(client.stream("POST", url, json=body))
            lines = response.iter_lines()
            next(lines)
            begin = time.monotonic()
            own.process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["finish_reason"] == "length"
        assert time.monotonic() - begin > 2.5, "too short to be cut off"
        assert own.ended(20)[0] == 0
        own.assert_nothing_left()

    def test_the_server_ends_with_any_of_them(self, own: Launched) -> None:
        process = gateways(own)[-1]
        process.kill()
        status, log = own.ended(20)
        assert status == 1
        assert f"a worker of the gateway (pid {process.pid}) ended with status -9" in log
        assert "the HTTP gateway (pid" in log
        own.assert_nothing_left()

    def test_one_that_hangs_ends_the_server(self, own: Launched) -> None:
        process = gateways(own)[1]
        process.suspend()
        status, log = own.ended(20)
        assert status == 1
        assert f"the HTTP gateway, worker 1 (pid {process.pid}) made no progress" in log
        own.assert_nothing_left()


@pytest.mark.slow
def test_one_that_hangs_is_started_anew_with_the_others(demo_repo: Path, tmp_path: Path) -> None:
    options = ("--gateway_workers", "2", "--hang_timeout", "5", "--restart", "1")
    with serve(demo_repo, tmp_path, *options, launcher=True) as launched:
        before = gateways(launched)
        before[1].suspend()
        wait_for(lambda: not any(each.is_running() for each in before), 30)

        def serves() -> bool:
            try:
                return post(launched, {}).status_code == 200
            except httpx.HTTPError:
                return False

        wait_for(serves, 60)
        launched.tree.clear()
        assert len(gateways(launched)) == 2
        assert launched.stop() == 0
