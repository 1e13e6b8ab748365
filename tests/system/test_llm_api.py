"""TensorRT-LLM's LLM API behind Triton and the gateway, over the fake of its package.

The tritonserver, the gateway, the launcher and the engine process are real; the package is
tests/support/fake_tensorrt_llm, whose greedy text is known without it.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from ranks.asked import ENSEMBLE, PROMPTS, ask, ask_all, chunks
from support.fake_engines import write_checkpoint
from support.fake_gpus import fake_gpus
from support.fake_library import FAKE, VARIABLE, VERSIONS
from support.fake_venv import make_venv
from support.launched import Launched
from support.lora_adapters import write_adapter
from support.two_ways import joined, two_ways
from support.waiting import wait_for
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.tokenizers import Tokenizer, load

TOKENS = 12
VOCAB_SIZE, EOS = 49152, 2
FAILS, HANGS_UP = "Please fail", "Please hang up"  # prompts with a script
BEHAVIOUR: dict[str, Any] = {"step_seconds": 0.004, "orphans": True, "shutdown_blocks": True}


@pytest.fixture(scope="module")
def tokenizer(demo_engine: tuple[Path, Path]) -> Tokenizer:
    return load("gpt2", demo_engine[1])


@pytest.fixture(scope="module")
def repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make repo ENGINE=checkpoint BACKEND=llmapi` makes."""
    folder = tmp_path_factory.mktemp("llm-api")
    checkpoint = write_checkpoint(folder / "checkpoint", vocab_size=VOCAB_SIZE)
    adapted = "model.layers.0.self_attn.q_proj"
    save_file(
        {f"{adapted}.weight": np.zeros((32, 16), np.float32)}, checkpoint / "model.safetensors"
    )
    adapter = write_adapter(folder / "adapter", {adapted: (32, 16)})
    plan = Plan(
        read_engine(checkpoint, "llmapi"),
        "gpt2",
        demo_engine[1],
        settings={
            "triton_max_batch_size": "16",
            "gpu_device_ids": "3,1",
            "lora_adapters": f"polite={adapter}",
        },
    )
    assemble(plan, folder / "triton_model_repo")
    return folder / "triton_model_repo"


@pytest.fixture(scope="module")
def scripts(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    fails, hangs_up = (tokenizer.encode(text)[-1] for text in (FAILS, HANGS_UP))
    return [
        {"after": fails, "at": 1, "event": "error"},
        {"after": hangs_up, "at": 1, "event": "die"},
    ]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a venv with the fake."""
    return make_venv(tmp_path_factory.mktemp("venv"))


Serve = Callable[[Path, str], Launched]


@pytest.fixture(scope="module")
def serve(repo: Path, python: str, scripts: list[dict[str, Any]]) -> Serve:
    """Starts the launcher with a release of the fake: `serve(folder, "1.2.1")`."""

    def start(folder: Path, version: str) -> Launched:
        values = {"version": version, "scripts": scripts, **BEHAVIOUR}
        with pytest.MonkeyPatch.context() as patched:
            for name, value in fake_gpus(folder, 80, 80, 80, 80).items():
                patched.setenv(name, value)
            patched.setenv(VARIABLE, json.dumps(values))
            return Launched(repo, folder, "--world_size", "2", python=python)

    return start


@pytest.fixture(scope="module", params=VERSIONS[1:])
def server(
    request: pytest.FixtureRequest, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    with serve(tmp_path_factory.mktemp("server"), request.param) as launched:
        yield launched


@pytest.fixture
def http(server: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tokenizer: Tokenizer) -> list[str]:
    """The greedy texts of the fake's model."""
    return greedy_texts(tokenizer)


def greedy_texts(tokenizer: Tokenizer, adapter: int = 0) -> list[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(FAKE))
        from tensorrt_llm.toy_model import greedy
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]
    return [
        tokenizer.decode(greedy(tokenizer.encode(prompt), TOKENS, VOCAB_SIZE, EOS, 1, adapter))
        for prompt in PROMPTS
    ]


def body(prompt: str, **parameters: Any) -> dict[str, Any]:
    return {"text_input": prompt, "parameters": {"max_tokens": TOKENS} | parameters}


def test_its_log_says_that_it_is_a_fake(server: Launched) -> None:
    assert "this is a fake for Trellis's tests, not NVIDIA's package" in server.log()


def test_its_workers_see_the_gpus_that_were_chosen(server: Launched) -> None:
    seen = [process.environ()["CUDA_VISIBLE_DEVICES"] for process in _workers(server)]
    assert seen == ["3,1", "3,1"]


@pytest.mark.parametrize("at_a_time", [1, 8])
def test_greedy_text_is_the_models_own(
    http: httpx.Client, expected: list[str], at_a_time: int
) -> None:
    assert ask_all(http, at_a_time) == expected


def test_a_stream_gives_the_same_text(http: httpx.Client, expected: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        streams = pool.map(lambda prompt: "".join(chunks(http, prompt)), PROMPTS)
        assert list(streams) == expected


def test_a_seed_decides_and_another_one_differs(http: httpx.Client) -> None:
    sampling = {"top_k": 50, "top_p": 0.95, "temperature": 1.3, "repetition_penalty": 1.2}
    first, again, other = (
        ask(http, PROMPTS[1], random_seed=seed, **sampling) for seed in (42, 42, 43)
    )
    assert first == again
    assert first != other


def test_several_sequences_are_answered_together(http: httpx.Client) -> None:
    asked = body(PROMPTS[0], num_return_sequences=3, temperature=1.5, seed=9)
    response = http.post(f"{ENSEMBLE}/generate", json=asked)
    assert response.status_code == 200, response.text
    assert len(set(response.json()["text_output"])) == 3


def test_stop_words_end_an_answer(http: httpx.Client, expected: list[str]) -> None:
    number, text = max(enumerate(expected), key=lambda pair: len(pair[1]))
    word = text[len(text) // 2 :][:3]
    before = text[: text.index(word)]
    assert ask(http, PROMPTS[number], stop_words=[word]) == before
    assert "".join(chunks(http, PROMPTS[number], stop_words=[word])) == before


def test_stop_ids_end_an_answer(http: httpx.Client, tokenizer: Tokenizer) -> None:
    whole = body(PROMPTS[0], end_id=-1, return_num_output_tokens=True)
    full = http.post(f"{ENSEMBLE}/generate", json=whole).json()["text_output"]
    stop = next(
        token for token in tokenizer.encode(full) if full.startswith(tokenizer.decode([token]))
    )
    ended = body(PROMPTS[0], stop_token_ids=[stop], return_finish_reason=True)
    answer = http.post(f"{ENSEMBLE}/generate", json=ended).json()
    assert (answer["text_output"], answer["finish_reason"]) == ("", "stop")


def test_log_probabilities_sum_up(http: httpx.Client) -> None:
    asked = body(PROMPTS[0], return_log_probs=True, max_tokens=5, end_id=-1)
    answer = http.post(f"{ENSEMBLE}/generate", json=asked).json()
    assert len(answer["output_log_probs"]) == 5
    assert all(value < 0 for value in answer["output_log_probs"])
    assert sum(answer["output_log_probs"]) == pytest.approx(answer["cum_log_probs"], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad_words", ["a" * 300]),
        ("beam_width", 2),
        ("end_id", 60000),
        ("stop_token_ids", [60000]),
        ("return_context_logits", True),
        ("return_generation_logits", True),
        ("lora_task_id", 7),
        ("lora_name", "rude"),
        ("guided_decoding_guide_type", "yaml"),
        ("guided_decoding_guide", "{}"),
        ("num_return_sequences", 2),
    ],
)
def test_what_it_cannot_do_is_rejected_by_name(http: httpx.Client, name: str, value: Any) -> None:
    asked = body("a", **{name: value})
    if name == "guided_decoding_guide":  # which the type takes none of
        asked["parameters"]["guided_decoding_guide_type"] = "json"
    response = http.post(f"{ENSEMBLE}/generate", json=asked)
    assert response.status_code == 400, response.text
    assert f"{name}:" in response.json()["error"]


def test_an_adapter_is_named_by_request(
    http: httpx.Client, tokenizer: Tokenizer, expected: list[str]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        adapted = [pool.submit(ask, http, prompt, lora_name="polite") for prompt in PROMPTS[:4]]
        free = [pool.submit(ask, http, prompt) for prompt in PROMPTS[:4]]
        assert [each.result() for each in adapted] == greedy_texts(tokenizer, adapter=1)[:4]
        assert [each.result() for each in free] == expected[:4]
    assert "".join(chunks(http, PROMPTS[0], lora_name="polite")) == adapted[0].result()


def test_an_adapter_is_a_model_of_openai_s_api(
    http: httpx.Client, tokenizer: Tokenizer, expected: list[str]
) -> None:
    listed = {model["id"] for model in http.get("/v1/models").json()["data"]}
    assert listed == {"ensemble", "polite"}
    asked = {"prompt": PROMPTS[0], "temperature": 0, "max_tokens": TOKENS}
    for model, text in (
        ("polite", greedy_texts(tokenizer, adapter=1)[0]),
        ("ensemble", expected[0]),
    ):
        answer = http.post("/v1/completions", json={**asked, "model": model}).json()
        assert answer["choices"][0]["text"] == text


def test_what_is_no_guide_is_an_error_of_the_clients(http: httpx.Client) -> None:
    guide = {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": "{"}
    response = http.post(f"{ENSEMBLE}/generate", json=body("a", **guide))
    assert response.status_code == 400, response.text
    assert "guided_decoding_guide: $: not JSON" in response.json()["error"]


def test_an_error_of_one_request_leaves_the_others(http: httpx.Client, expected: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        fine = [pool.submit(ask, http, prompt) for prompt in PROMPTS[:6]]
        wrong = pool.submit(http.post, f"{ENSEMBLE}/generate", json=body(FAILS))
        assert "scripted error of one request" in wrong.result().json()["error"]
        assert wrong.result().status_code >= 400
        assert [each.result() for each in fine] == expected[:6]
    assert ask(http, PROMPTS[0]) == expected[0]


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_engine_is_told_alike_by_both_ways(
    server: Launched, repo: Path, stream: bool
) -> None:
    triton = server.find("tritonserver")
    asked = body(FAILS, max_tokens=4) | {"stream": stream}
    with two_ways(triton.cmdline(), triton.pid, str(repo)) as ways:
        for verb in ("generate_stream",) if stream else ("generate", "generate_stream"):
            short, long = (way.post(f"{ENSEMBLE}/{verb}", json=asked) for way in ways)
            told = [joined(answer.text)["error"] for answer in (short, long)]
            assert told[0] == told[1]
            assert "scripted error of one request" in told[0]
            if not stream:  # else it may come after a token, and then has no status of its own
                assert short.status_code == long.status_code == 500


def test_clients_that_leave_free_their_places(http: httpx.Client, expected: list[str]) -> None:
    asked = {"stream": True, **body("On", max_tokens=1900, end_id=-1)}
    for _ in range(16):  # as many as the batch holds
        with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=asked) as response:
            assert next(response.iter_raw())
    began = time.monotonic()
    assert ask(http, PROMPTS[0]) == expected[0]
    assert time.monotonic() - began < 5  # one of them alone takes longer


@pytest.mark.parametrize("what", ["second worker", "keeper", "script"])
def test_any_death_ends_all_within_15_seconds(serve: Serve, tmp_path: Path, what: str) -> None:
    asked = {"stream": True, **body("On", max_tokens=1900, end_id=-1)}
    with (
        serve(tmp_path, "1.2.1") as launched,
        httpx.Client(base_url=launched.url, timeout=60) as http,
    ):
        with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=asked) as response:
            lines = response.iter_lines()
            next(lines)
            began = time.monotonic()
            if what == "script":
                http.post(f"{ENSEMBLE}/generate", json=body(HANGS_UP))
            else:
                _find(launched, what).send_signal(signal.SIGKILL)
            assert "error" in [line for line in lines if line][-1]
        wait_for(lambda: launched.process.poll() is not None, 15 - (time.monotonic() - began))
        assert launched.process.returncode != 0
        launched.assert_nothing_left()


def test_sigterm_ends_all_though_the_librarys_shutdown_never_returns(
    serve: Serve, tmp_path: Path
) -> None:
    with serve(tmp_path, "1.4.0rc1") as launched:
        with httpx.Client(base_url=launched.url, timeout=60) as http:
            ask(http, PROMPTS[0])
        began = time.monotonic()
        assert launched.stop() == 0
        assert time.monotonic() - began < 15
        launched.assert_nothing_left()


def _workers(launched: Launched) -> list[psutil.Process]:
    return [each for each in launched.tree if "mpi4py.futures.server" in each.cmdline()]


def _find(launched: Launched, what: str) -> psutil.Process:
    """The second worker, or the engine's keeper; the first worker's death is the script's."""
    if what == "second worker":
        return _workers(launched)[1]
    return next(each for each in launched.tree if "process_main" in " ".join(each.cmdline()))
