"""Two models of one repository in one server: nothing of the one is the other's."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.gateway_wire import wait_for
from support.launched import Launched
from support.serving import assemble_demo, serve
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.repository.manifest import made_models
from trellis.server.process import Server

ASKED = {"text_input": "The capital of France is", "max_tokens": 8}
LONG = {"text_input": "A", "max_tokens": 6000, "end_id": -1, "stream": True}
PLAIN, NAMED = "ensemble", "qwen"
ENGINES = {PLAIN: "tensorrt_llm", NAMED: "qwen_tensorrt_llm"}
EXPLICIT = ("--allow_admin_endpoints", "--", "--model-control-mode=explicit")


@pytest.fixture(scope="module")
def repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The named model has one place, one to wait in, and other limits."""
    engine, tokenizer = demo_engine
    made = assemble_demo(demo_engine, tmp_path_factory.mktemp("several"))
    settings = {"triton_max_batch_size": "1", "max_queue_size": "1", "max_tokens_limit": "6500"}
    assemble(Plan(read_engine(engine), "gpt2", tokenizer, settings=settings, name=NAMED), made)
    return made


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(repo, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.settings.url, timeout=120) as client:
        yield client


def path(model: str, verb: str = "generate") -> str:
    return f"/v2/models/{model}/{verb}"


def figure(server: Server, name: str, model: str) -> float:
    """A number of the metrics page, of one model."""
    page = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics").text
    label = f'{name}{{model="{model}"}}'
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(label))


def in_flight(server: Server) -> dict[str, float]:
    return {
        model: figure(server, "trellis_requests_in_flight", ENGINES[model]) for model in ENGINES
    }


def wait_for_places(server: Server, plain: int, named: int) -> None:
    """Until so many requests are in flight in each."""
    wanted = {PLAIN: plain, NAMED: named}
    end = time.monotonic() + 20
    while (found := in_flight(server)) != wanted:
        assert time.monotonic() < end, f"in flight: {found}, not {wanted}"
        time.sleep(0.05)


def test_both_answer_and_each_is_counted_for_itself(server: Server, http: httpx.Client) -> None:
    assert [model.name for model in made_models(server.settings.model_repo)] == [PLAIN, NAMED]
    before = {model: figure(server, "trellis_http_requests_total", model) for model in ENGINES}
    answers = [http.post(path(model), json=ASKED).json() for model in (PLAIN, NAMED, NAMED)]
    assert [answer["model_name"] for answer in answers] == [PLAIN, NAMED, NAMED]
    assert {answer["text_output"] for answer in answers} == {" Paris.\n\nThe answer to the"}
    wait_for(
        lambda: (
            {m: figure(server, "trellis_http_requests_total", m) - before[m] for m in ENGINES}
            == {PLAIN: 1, NAMED: 2}
        )
    )


def test_openai_s_api_lists_both_and_asks_the_one_that_is_named(
    server: Server, http: httpx.Client
) -> None:
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == [PLAIN, NAMED]
    before = {model: figure(server, "trellis_http_requests_total", model) for model in ENGINES}
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6800, "stream": True}
    assert http.post("/v1/chat/completions", json={**body, "model": NAMED}).status_code == 400
    body |= {"max_tokens": 4, "stream": False}
    for model in (PLAIN, NAMED, NAMED):
        answer = http.post("/v1/chat/completions", json={**body, "model": model}).json()
        assert answer["model"] == model
    wait_for(
        lambda: (
            {m: figure(server, "trellis_http_requests_total", m) - before[m] for m in ENGINES}
            == {PLAIN: 1, NAMED: 2}
        )
    )


def test_each_has_its_own_limits(http: httpx.Client) -> None:
    asked = {**ASKED, "max_tokens": 7000}
    assert http.post(path(NAMED), json=asked).status_code == 400
    assert "max_tokens" in http.post(path(NAMED), json=asked).json()["error"]
    with http.stream("POST", path(PLAIN, "generate_stream"), json={**asked, "stream": True}) as got:
        assert got.status_code == 200
        assert next(got.iter_lines())


@pytest.mark.parametrize("verb", ["generate_stream", "versions/1/generate_stream"])
def test_a_client_that_leaves_frees_the_place_of_its_own_model(
    server: Server, http: httpx.Client, verb: str
) -> None:
    """By the short way, and through Triton, where the models are told by a datagram."""
    wait_for_places(server, 0, 0)
    with http.stream("POST", path(NAMED, verb), json=LONG) as kept:
        lines = kept.iter_lines()
        next(lines)
        with http.stream("POST", path(PLAIN, verb), json=LONG) as left:
            read = left.iter_lines()  # kept: the response is closed with it
            next(read)
            wait_for_places(server, 1, 1)
        wait_for_places(server, 0, 1)
        assert [next(lines) for _ in range(20)]
    wait_for_places(server, 0, 0)


def test_overload_of_one_leaves_the_other_untouched(server: Server, http: httpx.Client) -> None:
    wait_for_places(server, 0, 0)
    done = threading.Event()

    def held() -> int:
        """A stream that is left once `done` is set; the one that waits gets its place then."""
        with http.stream("POST", path(NAMED, "generate_stream"), json=LONG) as stream:
            for _ in stream.iter_lines():
                if done.is_set():
                    break
            return stream.status_code

    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(held) for _ in range(2)]
        try:
            wait_for(lambda: in_flight(server)[NAMED] == 2)
            refused = [http.post(path(NAMED), json=ASKED).status_code for _ in range(4)]
            answer = http.post(path(PLAIN), json=ASKED)
            still = in_flight(server)[NAMED]
        finally:
            done.set()
        assert [stream.result() for stream in streams] == [200, 200]
    assert (answer.status_code, answer.json()["text_output"]) == (
        200,
        " Paris.\n\nThe answer to the",
    )
    assert (refused, still) == ([503] * 4, 2)


def states(client: httpx.Client) -> dict[str, bool]:
    index = client.post("/v2/repository/index").json()
    return {model["name"]: model.get("state") == "READY" for model in index}


def chat(client: httpx.Client) -> httpx.Response:
    """A chat with the model that comes and goes."""
    messages = [{"role": "user", "content": "Hi"}]
    asked = {"model": NAMED, "messages": messages, "max_tokens": 4}
    return client.post("/v1/chat/completions", json=asked)


def openai_names(client: httpx.Client) -> list[str]:
    """The models that OpenAI's API lists."""
    return [model["id"] for model in client.get("/v1/models").json()["data"]]


def test_a_model_is_loaded_and_unloaded_while_another_streams(repo: Path, tmp_path: Path) -> None:
    launched: Launched
    loads = (f"--load-model={PLAIN}", f"--load-model={PLAIN}_ids")
    with (
        serve(repo, tmp_path, *EXPLICIT, *loads, launcher=True) as launched,
        httpx.Client(base_url=launched.url, timeout=120) as client,
    ):
        chunks: list[float] = []
        done = threading.Event()

        def read() -> None:
            with client.stream("POST", path(PLAIN, "generate_stream"), json=LONG) as stream:
                for line in stream.iter_lines():
                    if line:
                        assert "error" not in json.loads(line.removeprefix("data: "))
                        chunks.append(time.monotonic())
                    if done.is_set():
                        return

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            wait_for(lambda: bool(chunks))
            refused = client.post(path(NAMED), json=ASKED)
            assert (refused.status_code, "'qwen' is not found" in refused.text) == (404, True)
            for _ in range(2):
                assert client.post(f"/v2/repository/models/{NAMED}/load").status_code == 200
                answer = client.post(path(NAMED), json=ASKED).json()
                assert answer["text_output"] == " Paris.\n\nThe answer to the"
                assert [chat(client).status_code, openai_names(client)] == [200, [PLAIN, NAMED]]
                unloaded = client.post(f"/v2/repository/models/{NAMED}/unload")
                assert unloaded.status_code == 200
                wait_for(
                    lambda: (
                        not any(states(client)[name] for name in states(client) if "qwen" in name)
                    )
                )
                assert client.post(path(NAMED), json=ASKED).status_code == 404
                answer = chat(client)
                assert answer.status_code == 404
                assert answer.json()["error"]["code"] == "model_not_found"
                assert openai_names(client) == [PLAIN]
            assert states(client)["tensorrt_llm"]
            time.sleep(1)  # the launcher looks twice a second whether a process is gone
            before = len(chunks)
            wait_for(lambda: len(chunks) > before)
            done.set()
            reading.result()
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post(path(PLAIN), json=ASKED).status_code == 200


def test_a_stream_of_a_model_that_is_unloaded_ends_with_its_reason(
    repo: Path, tmp_path: Path
) -> None:
    launched: Launched
    with (
        serve(repo, tmp_path, *EXPLICIT, f"--load-model={NAMED}", launcher=True) as launched,
        httpx.Client(base_url=launched.url, timeout=120) as client,
        client.stream("POST", path(NAMED, "generate_stream"), json=LONG) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        client.post(f"/v2/repository/models/{NAMED}/unload")
        *_, last = filter(None, lines)
        assert "unloaded" in last


def test_a_process_that_dies_ends_the_server_also_where_models_come_and_go(
    repo: Path, tmp_path: Path
) -> None:
    launched: Launched
    with serve(repo, tmp_path, *EXPLICIT, f"--load-model={NAMED}", launcher=True) as launched:
        launched.stub(ENGINES[NAMED]).kill()
        status, said = launched.ended()
        assert status == 1
        assert f"the process of {ENGINES[NAMED]}" in said
