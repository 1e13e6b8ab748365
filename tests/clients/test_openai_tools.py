"""Load generators, unchanged, against the gateway's OpenAI API."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.client_runs import run, venv
from trellis.server.settings import ServerSettings

OVER = "OpenAI's API"
REQUESTS, TOKENS_IN, TOKENS_OUT = 6, 20, 8


@pytest.mark.client("aiperf", OVER)
@pytest.mark.parametrize(("kind", "streams_"), [("chat", True), ("completions", False)])
def test_aiperf_gets_the_tokens_that_it_asked_for(
    streams: ServerSettings,
    demo_engine: tuple[Path, Path],
    tmp_path: Path,
    kind: str,
    streams_: bool,
) -> None:
    command = [str(Path(venv("venv")).with_name("aiperf")), "profile", "-m", "ensemble"]
    command += ["--url", streams.url, "--endpoint-type", kind, *["--streaming"] * streams_]
    command += ["--tokenizer", str(demo_engine[1]), "--use-server-token-count"]
    command += ["--isl", str(TOKENS_IN), "--osl", str(TOKENS_OUT)]
    command += ["--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0"]
    command += ["--concurrency", "2", "--request-count", str(REQUESTS), "--random-seed", "1"]
    command += ["--ui", "none", "--no-gpu-telemetry", "--output-artifact-dir", str(tmp_path)]
    run(command)
    found = json.loads((tmp_path / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == REQUESTS
    assert not found.get("error_summary")
    assert found["output_sequence_length"]["avg"] == TOKENS_OUT
    assert found["input_sequence_length"]["min"] >= TOKENS_IN
    assert ("time_to_first_token" in found) == streams_


@pytest.mark.client("guidellm", OVER)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_guidellm_gets_the_tokens_that_it_asked_for(
    streams: ServerSettings, demo_engine: tuple[Path, Path], tmp_path: Path, path: str
) -> None:
    report = tmp_path / "report.json"
    backend = f"kind=openai_http,target={streams.url},model=ensemble,request_format={path}"
    data = f"kind=synthetic_text,prompt_tokens={TOKENS_IN},output_tokens={TOKENS_OUT}"
    command = [str(Path(venv("venv-api")).with_name("guidellm")), "run", "--backend", backend]
    command += ["--profile", "kind=concurrent,streams=2", "--data", data]
    command += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={demo_engine[1]}"]
    command += ["--output", f"kind=json,path={report}", "--disable-console"]
    run(command, {"HF_HUB_OFFLINE": "1"})
    (found,) = json.loads(report.read_text())["benchmarks"]
    counts = found["metrics"]["request_totals"]
    assert counts == {"successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS}
    assert _mean(found, "output_token_count") == TOKENS_OUT
    assert _mean(found, "prompt_token_count") >= TOKENS_IN
    assert _mean(found, "time_to_first_token_ms") > 0


def _mean(found: dict[str, Any], name: str) -> float:
    """Of a metric over the requests that were answered."""
    mean: float = found["metrics"][name]["successful"]["mean"]
    return mean
