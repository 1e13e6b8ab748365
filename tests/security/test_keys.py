"""API keys before a real server: by the launcher, OpenAI's own client, and gRPC."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
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


def test_grpc_is_not_a_way_around_the_keys(launched: Launched) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as grpc:
        assert grpc.is_server_live()
        asked = triton.InferInput("text_input", [1, 1], "BYTES")
        works: list[Callable[[], object]] = [
            lambda: grpc.get_server_metadata(),
            lambda: grpc.get_model_config("ensemble"),
            lambda: grpc.get_inference_statistics(),
            lambda: grpc.infer("tensorrt_llm", [asked]),
        ]
        for work in works:
            with pytest.raises(InferenceServerException, match="restricted"):
                work()


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
