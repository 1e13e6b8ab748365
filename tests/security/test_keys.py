"""API keys before a real server: by the launcher, OpenAI's own client, and gRPC."""

import contextlib
import queue
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.key_files import KeyFile
from support.launched import Launched
from support.serving import serve
from support.waiting import wait_for

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.yaml")


@pytest.fixture(scope="module")
def keys(file: KeyFile) -> dict[str, str]:
    """The keys that the server starts with."""
    return {
        "alice": file.add("alice"),
        "few": file.add("few", requests_in_flight=1, tokens_per_minute=4000),
    }


@pytest.fixture(scope="module")
def launched(
    demo_repo: Path,
    file: KeyFile,
    keys: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("keyed")
    options = ("--api-keys", str(file.path))
    with serve(demo_repo, folder, *options, launcher=True) as running:
        yield running


def client(launched: Launched, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{launched.url}/v1", api_key=key, max_retries=0)


def status(launched: Launched, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{launched.url}/v1/models", headers=headers).status_code


def test_openais_client_is_answered_with_a_key_and_knows_that_it_is_wrong(
    launched: Launched, keys: dict[str, str]
) -> None:
    with client(launched, keys["alice"]) as right:
        model = right.models.list().data[0].id
        answer = right.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=4,
            temperature=0,
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
    with client(launched, "wrong") as wrong, pytest.raises(openai.AuthenticationError) as refused:
        wrong.models.list()
    assert refused.value.code == "invalid_api_key"


def test_more_at_once_than_a_key_may_is_a_rate_limit_error(
    launched: Launched, keys: dict[str, str]
) -> None:
    asked = {"model": "ensemble", "messages": MESSAGES, "max_tokens": 150, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {keys['few']}"}

    def one(_: int) -> httpx.Response:
        return httpx.post(f"{launched.url}{CHAT}", json=asked, headers=headers, timeout=100)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, range(4)))
    assert sorted({each.status_code for each in answers}) == [200, 429]
    limited = [each for each in answers if each.status_code == 429]
    assert {each.json()["error"]["code"] for each in limited} == {"rate_limit_exceeded"}
    assert {each.headers["retry-after"] for each in limited} == {"1"}
    assert one(0).status_code == 200


def test_tokens_that_were_not_made_are_not_charged(
    launched: Launched, keys: dict[str, str]
) -> None:
    with client(launched, keys["few"]) as few:
        for _ in range(4):  # of 4,000 a minute
            answer = few.chat.completions.create(
                model="ensemble",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=1500,
                stop=[" ", "a", "e", "i", "o", "t", "."],
            )
            assert answer.usage is not None
            assert answer.usage.completion_tokens < 100
        with pytest.raises(openai.BadRequestError, match="tokens_per_minute") as refused:
            few.chat.completions.create(
                model="ensemble", messages=[{"role": "user", "content": "Hi"}], max_tokens=4000
            )
    assert refused.value.param == "max_tokens"


def test_health_needs_no_key(launched: Launched) -> None:
    for path in ("/health", "/v2/health/live", "/v2/health/ready", "/"):
        assert httpx.get(f"{launched.url}{path}").status_code == 200
    assert httpx.get(f"{launched.url}/v2").status_code == 401


def tensor(name: str, value: object, dtype: str, kind: type) -> triton.InferInput:
    made = triton.InferInput(name, [1, 1], dtype)
    made.set_data_from_numpy(np.array([[value]], kind))
    return made


def inputs(tokens: int) -> list[triton.InferInput]:
    return [
        tensor("text_input", b"Once upon", "BYTES", np.object_),
        tensor("max_tokens", tokens, "INT32", np.int32),
        tensor("stream", True, "BOOL", np.bool_),
    ]


def streamed(
    launched: Launched, headers: dict[str, str], tokens: int = 12, model: str = "ensemble"
) -> str:
    """The text of a gRPC stream. Raises InferenceServerException."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
        with contextlib.suppress(InferenceServerException):  # refused before it was asked
            client.async_stream_infer(model, inputs(tokens), enable_empty_final_response=True)
        texts: list[bytes] = []
        while True:
            result, error = answers.get(timeout=60)
            if error is not None:
                raise error
            made = result.as_numpy("text_output")
            texts += [] if made is None else list(made.reshape(-1))
            if result.get_response().parameters["triton_final_response"].bool_param:
                return b"".join(texts).decode()


NO_KEYS: list[dict[str, str]] = [{}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}]
CALLS: dict[str, Callable[[triton.InferenceServerClient, dict[str, str]], object]] = {
    "metadata": lambda grpc, headers: grpc.get_server_metadata(headers=headers),
    "ready": lambda grpc, headers: grpc.is_model_ready("ensemble", headers=headers),
    "config": lambda grpc, headers: grpc.get_model_config("ensemble", headers=headers),
    "statistics": lambda grpc, headers: grpc.get_inference_statistics(headers=headers),
    "infer": lambda grpc, headers: grpc.infer("ensemble", inputs(4), headers=headers),
}


@pytest.mark.parametrize("headers", NO_KEYS)
def test_grpc_is_not_a_way_around_the_keys(launched: Launched, headers: dict[str, str]) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as grpc:
        assert grpc.is_server_live()
        assert grpc.is_server_ready()
        for call in CALLS.values():
            with pytest.raises(InferenceServerException, match="API key") as refused:
                call(grpc, headers)
            assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
    with pytest.raises(InferenceServerException, match="API key"):
        streamed(launched, headers)


@pytest.mark.parametrize("form", ["authorization", "x-api-key"])
def test_grpc_answers_who_has_a_key_as_http_does(
    launched: Launched, keys: dict[str, str], form: str
) -> None:
    key = keys["alice"]
    headers = {form: f"Bearer {key}" if form == "authorization" else key}
    asked = {"text_input": "Once upon", "max_tokens": 12}
    url = f"{launched.url}/v2/models/ensemble/generate"
    expected = httpx.post(url, json=asked, headers=headers, timeout=60).json()["text_output"]
    assert streamed(launched, headers) == expected
    with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as grpc:
        for name in ("metadata", "ready", "config", "statistics"):
            assert CALLS[name](grpc, headers)


def test_no_header_of_a_client_reaches_tritons_grpc(
    launched: Launched, keys: dict[str, str]
) -> None:
    """This one ends a 24.10 server where a request fails."""
    headers = {"x-api-key": keys["alice"], "triton_grpc_error": "true"}
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="max_tokens"):
            streamed(launched, headers, tokens=-1)
    assert streamed(launched, headers)


def test_inner_models_and_admin_methods_are_shut_over_grpc(
    launched: Launched, keys: dict[str, str]
) -> None:
    headers = {"x-api-key": keys["alice"]}
    with pytest.raises(InferenceServerException, match="only ensembles are asked"):
        streamed(launched, headers, model="tensorrt_llm")
    with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as grpc:
        works: list[Callable[[], object]] = [
            lambda: grpc.load_model("ensemble", headers=headers),
            lambda: grpc.get_log_settings(headers=headers),
            lambda: grpc.get_system_shared_memory_status(headers=headers),
            lambda: grpc.get_model_repository_index(headers=headers),
        ]
        for work in works:
            with pytest.raises(InferenceServerException) as refused:
                work()
            assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_tokens_asked_over_grpc_count(launched: Launched, keys: dict[str, str]) -> None:
    headers = {"x-api-key": keys["few"]}
    with pytest.raises(InferenceServerException, match=r"at most 4000 \(tokens_per_minute\)"):
        streamed(launched, headers, tokens=5000)


def test_sighup_to_the_launcher_changes_the_keys(
    launched: Launched, file: KeyFile, keys: dict[str, str]
) -> None:
    new = file.add("new")
    assert status(launched, new) == 401
    launched.process.send_signal(signal.SIGHUP)
    wait_for(lambda: status(launched, new) == 200)
    assert status(launched, keys["alice"]) == 200
    file.remove("new")
    launched.process.send_signal(signal.SIGHUP)
    wait_for(lambda: status(launched, new) == 401)
    assert "API keys: read again" in launched.log()


def test_no_key_was_logged(launched: Launched, keys: dict[str, str]) -> None:
    assert not [name for name, key in keys.items() if key in launched.log()]
