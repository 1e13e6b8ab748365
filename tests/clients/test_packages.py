"""Clients that are packages, unchanged, against the demo engine."""

import json
from pathlib import Path

import pytest

from clients.client_runs import PROMPT, TOKENS, ask, grpc_url, run, venv
from trellis.server.settings import ServerSettings

PAYLOAD = (
    '{"text_input": {{ text|tojson }}, "max_tokens": {{ max_tokens }}, "min_tokens":'
    ' {{ max_tokens }}, "temperature": 0, "stream": {{ stream|tojson }}}'
)


@pytest.mark.client("LlamaIndex", "gRPC")
def test_llama_index_completes_and_streams_the_text_that_curl_gets(
    streams: ServerSettings, text: str
) -> None:
    # It stops reading one chunk before `tokens` and ends the request itself: ask for one more.
    answer = ask(venv("venv"), "ask_llama_index.py", grpc_url(streams), PROMPT, str(TOKENS + 1))
    assert answer["whole"] == text
    assert "".join(answer["chunks"]) == text
    assert len(answer["chunks"]) == TOKENS


@pytest.mark.client("LiteLLM", "HTTP")
def test_litellm_completes_and_streams_the_text_that_curl_gets(
    streams: ServerSettings, text: str
) -> None:
    url = f"{streams.url}/v2/models/ensemble/generate"
    answer = ask(venv("venv"), "ask_litellm.py", url, PROMPT, str(TOKENS))
    assert answer["whole"] == text
    assert "".join(answer["chunks"]) == text
    assert answer["finish_reason"] == "stop"
    assert len([chunk for chunk in answer["chunks"] if chunk]) == TOKENS


@pytest.mark.client("LangChain", "gRPC")
def test_langchain_is_told_that_its_types_are_those_of_the_first_releases(
    streams: ServerSettings,
) -> None:
    answer = ask(venv("venv-langchain"), "ask_langchain.py", grpc_url(streams), PROMPT, str(TOKENS))
    assert "max_tokens" in answer["error"] or "top_k" in answer["error"]
    assert "UINT32" in answer["error"]


@pytest.mark.client("tritonclient", "HTTP, gRPC")
def test_tritonclient_gets_the_text_that_curl_gets_and_counts_that_fit(
    whole: ServerSettings, streams: ServerSettings, text: str
) -> None:
    http = whole.url.removeprefix("http://")
    arguments = (http, grpc_url(whole), grpc_url(streams), PROMPT, str(TOKENS))
    answer = ask(venv("venv"), "ask_tritonclient.py", *arguments)
    counted = {"text": text, "num_input_tokens": 5, "num_output_tokens": TOKENS}
    assert answer["answers"] == dict.fromkeys(("http", "grpc", "http.aio", "grpc.aio"), counted)
    assert "".join(chunk["text"] for chunk in answer["chunks"]) == text
    assert sum(chunk["num_output_tokens"] for chunk in answer["chunks"]) == TOKENS
    assert {chunk["num_input_tokens"] for chunk in answer["chunks"]} == {5}


@pytest.mark.client("aiperf", "HTTP")
@pytest.mark.parametrize("streaming", [False, True])
def test_aiperf_counts_the_tokens_that_it_asked_for(
    streams: ServerSettings, demo_engine: tuple[Path, Path], tmp_path: Path, streaming: bool
) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text(PAYLOAD)
    verb = "generate_stream" if streaming else "generate"
    command = [str(Path(venv("venv")).with_name("aiperf")), "profile", "-m", "ensemble"]
    command += ["--url", streams.url, "--endpoint-type", "template"]
    command += ["--endpoint", f"/v2/models/ensemble/{verb}", *["--streaming"] * streaming]
    command += ["--extra-inputs", f"payload_template:{payload}"]
    command += ["--extra-inputs", "response_field:text_output"]
    command += ["--tokenizer", str(demo_engine[1]), "--isl", "20", "--osl", "8"]
    command += ["--concurrency", "2", "--request-count", "6", "--random-seed", "1"]
    command += ["--ui", "none", "--no-gpu-telemetry", "--output-artifact-dir", str(tmp_path)]
    run(command)
    found = json.loads((tmp_path / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == 6
    assert not found.get("error_summary")
    assert 7 <= found["output_sequence_length"]["avg"] <= 8.5  # counted anew from the text
    assert ("time_to_first_token" in found) == streaming
