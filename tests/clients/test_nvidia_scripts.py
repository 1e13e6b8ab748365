"""NVIDIA's scripts of tensorrtllm_backend, unchanged, against the demo engine."""

import json
from pathlib import Path

import pytest

from clients.client_runs import PROGRAMS, PROMPT, TOKENS, curl, grpc_url, run, sources, venv
from trellis.server.settings import ServerSettings

DATASET = [
    {"input": "Translate to French:", "instruction": "cheese", "output": "le fromage est bon ici"},
    {"input": "The capital of", "instruction": "France is", "output": "Paris, which is"},
]
CLIENT = "inflight_batcher_llm/client"
TOOLS = "tools/inflight_batcher_llm"


def script(path: str, *options: str) -> str:
    """What a script printed."""
    folder = sources("tensorrtllm_backend")
    stand_in = {"PYTHONPATH": str(PROGRAMS / "no_torch")}
    return run([venv("venv"), str(folder / path), *options], stand_in)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(DATASET))
    return str(path)


@pytest.fixture
def tokenizer(demo_engine: tuple[Path, Path]) -> str:
    return str(demo_engine[1])


@pytest.mark.client("end_to_end_grpc_client.py", "gRPC")
@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
@pytest.mark.parametrize("options", [[], ["-S"], ["-S", "--request-id", "7"]])
def test_the_client_finds_the_text_that_curl_gets(
    streams: ServerSettings, text: str, model: str, options: list[str]
) -> None:
    asked = ["-u", grpc_url(streams), "--model-name", model, "-o", str(TOKENS)]
    asked += ["-p", json.dumps([PROMPT]), "--check-outputs", "--expected-outputs"]
    script(f"{CLIENT}/end_to_end_grpc_client.py", *asked, json.dumps([text]), *options)


@pytest.mark.client("end_to_end_grpc_client.py", "gRPC")
def test_the_client_streams_a_batch(streams: ServerSettings, text: str) -> None:
    prompts = [PROMPT, PROMPT]
    asked = ["-u", grpc_url(streams), "-S", "--batch-inputs", "-o", str(TOKENS)]
    asked += ["-p", json.dumps(prompts), "--check-outputs", "--expected-outputs"]
    script(f"{CLIENT}/end_to_end_grpc_client.py", *asked, json.dumps([text, text]))


@pytest.mark.client("end_to_end_grpc_client.py", "gRPC")
@pytest.mark.parametrize("options", [[], ["-S"]])
def test_the_client_reads_log_probabilities(streams: ServerSettings, options: list[str]) -> None:
    asked = ["-u", grpc_url(streams), "-o", "4", "-p", PROMPT, "--return-log-probs", *options]
    printed = script(f"{CLIENT}/end_to_end_grpc_client.py", *asked)
    assert "output_log_probs.shape: (1, 1, " in printed


@pytest.mark.client("inflight_batcher_llm_client.py", "gRPC")
def test_tensorrt_llm_by_itself_gives_the_text_that_curl_gets(
    whole: ServerSettings, streams: ServerSettings, tokenizer: str, text: str
) -> None:
    asked = ["--tokenizer-dir", tokenizer, "--text", PROMPT, "--request-output-len", str(TOKENS)]
    path = f"{CLIENT}/inflight_batcher_llm_client.py"
    printed = script(path, *asked, "-u", grpc_url(whole), "--exclude-input-in-output")
    assert f"Output beam 0: {text}\n" in printed
    assert f"Output beam 0: {text}\n" in script(path, *asked, "-u", grpc_url(streams), "-S")


@pytest.mark.client("inflight_batcher_llm_client.py", "gRPC")
@pytest.mark.parametrize("how", [["--request-id", "7"], ["--stop-via-request-cancel"]])
def test_the_client_ends_a_stream_before_its_end(
    streams: ServerSettings, tokenizer: str, how: list[str]
) -> None:
    asked = ["-u", grpc_url(streams), "-S", "--tokenizer-dir", tokenizer, "--text", PROMPT]
    asked += ["--request-output-len", "1500", "--stop-after-ms", "300"]
    script(f"{CLIENT}/inflight_batcher_llm_client.py", *asked, *how)


@pytest.mark.client("inflight_batcher_llm_client.py", "gRPC")
def test_the_client_reads_log_probabilities_and_several_sequences(
    whole: ServerSettings, streams: ServerSettings, tokenizer: str
) -> None:
    asked = ["--tokenizer-dir", tokenizer, "--text", PROMPT]
    path = f"{CLIENT}/inflight_batcher_llm_client.py"
    printed = script(path, *asked, "-u", grpc_url(whole), "--return-log-probs")
    assert "cum_log_probs: [[-" in printed
    printed = script(path, *asked, "-u", grpc_url(streams), "-S", "-n", "2", "--top-k", "5")
    assert "Output beam 1: " in printed


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param("http", marks=pytest.mark.client("end_to_end_test.py", "HTTP")),
        pytest.param("grpc", marks=pytest.mark.client("end_to_end_test.py", "gRPC")),
    ],
)
@pytest.mark.parametrize("options", [[], ["--return-log-probs"]])
def test_the_three_models_one_by_one_say_what_the_ensemble_says(
    whole: ServerSettings, dataset: str, protocol: str, options: list[str]
) -> None:
    asked = [*reached(whole, protocol), "--max-input-len", "100", "--dataset", dataset]
    printed = script(f"{TOOLS}/end_to_end_test.py", *asked, "--test-bls", *options)
    assert "Functionality test succeed." in printed
    prompt = f"{DATASET[1]['input']} {DATASET[1]['instruction']}"
    assert repr(curl(whole, prompt, max_tokens=3).encode()) in printed


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param("http", marks=pytest.mark.client("benchmark_core_model.py", "HTTP")),
        pytest.param("grpc", marks=pytest.mark.client("benchmark_core_model.py", "gRPC")),
    ],
)
def test_the_benchmark_of_tensorrt_llm_counts_the_tokens_it_asked_for(
    whole: ServerSettings, dataset: str, tokenizer: str, protocol: str
) -> None:
    asked = [*reached(whole, protocol), *benchmark(dataset, tokenizer)]
    printed = script(f"{TOOLS}/benchmark_core_model.py", *asked)
    assert "Total Latency" in printed
    if protocol == "grpc":
        assert stat(printed, "Avg. OP tokens per request") == "4.50"  # 6 and 3


@pytest.mark.client("benchmark_core_model.py", "gRPC")
def test_the_benchmark_of_tensorrt_llm_runs_over_a_stream_too(
    streams: ServerSettings, dataset: str, tokenizer: str
) -> None:
    asked = [*reached(streams, "grpc"), "--decoupled", *benchmark(dataset, tokenizer)]
    printed = script(f"{TOOLS}/benchmark_core_model.py", *asked)
    assert stat(printed, "Total requests") == "2.00"


def reached(settings: ServerSettings, protocol: str) -> list[str]:
    """The options that name the protocol and the server."""
    url = grpc_url(settings) if protocol == "grpc" else settings.url.removeprefix("http://")
    return ["-i", protocol, "-u", url]


def benchmark(dataset: str, tokenizer: str) -> list[str]:
    """The options of the benchmark after those."""
    options = ["--max-input-len", "100", "--num-requests", "6", "--exclude-input-in-output"]
    return [*options, "dataset", "--dataset", dataset, "--tokenizer-dir", tokenizer]


def stat(printed: str, name: str) -> str:
    """A value of the table that the benchmark prints."""
    (line,) = (line for line in printed.splitlines() if f" {name} " in line)
    return line.split("|")[2].strip()
