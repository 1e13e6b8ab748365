"""lm-eval's `local-completions`, unchanged, against the gateway's OpenAI API and vLLM.

A log-likelihood task asks for the likeliest token in each place of a prompt, which vLLM tells.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.client_runs import CLIENTS, PROGRAMS, ask, run, venv
from support.launched import Launched
from support.paths import ROOT
from support.serving import serve
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble

VLLM = Path(os.environ.get("VENV_VLLM", ROOT / ".venv-vllm")) / "bin" / "python"
READY_SECONDS = 300
LINES = [
    ("The capital of France is", " Paris"),
    ("The opposite of hot is", " cold"),
    ("Two plus two is", " four"),
    ("The sun rises in the", " east"),
    ("Water freezes at zero degrees", " Celsius"),
    ("She opened the door and walked into the", " room"),
    ("Once upon a time there was a little", " girl named Lily"),
    ("The largest planet of the solar system is", " Jupiter"),
    ("한국의 수도는", " 서울입니다"),
    ("def add(a, b):\n    return", " a + b"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 in float32; not where vLLM is not installed."""
    if not VLLM.exists():
        pytest.skip("needs vLLM: `make setup-vllm`")
    folder = tmp_path_factory.mktemp("lm-eval") / "checkpoint"
    more = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'src'}"}
    run([str(VLLM), str(PROGRAMS / "make_checkpoint.py"), str(folder)], more)
    return folder


@pytest.fixture(scope="module")
def vllm(
    checkpoint: Path, demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    """A server of that checkpoint."""
    folder = tmp_path_factory.mktemp("vllm")
    repo = folder / "triton_model_repo"
    settings = {"triton_max_batch_size": "16", "max_tokens_in_paged_kv_cache": "16384"}
    assemble(Plan(read_engine(checkpoint, "vllm"), "gpt2", demo_engine[1], settings=settings), repo)
    with serve(
        repo, folder / "server", launcher=True, ready_seconds=READY_SECONDS, python=str(VLLM)
    ) as launched:
        yield launched


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A task of ten lines, and what it is made of."""
    path = tmp_path / "lines.jsonl"
    parts = [{"context": context, "continuation": more} for context, more in LINES]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in parts))
    task = {
        "task": "ten_lines",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{continuation}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "ten_lines.yaml").write_text(json.dumps(task))  # JSON is YAML
    return path


@pytest.mark.client("lm-eval", "OpenAI's API")
def test_lm_eval_finds_the_log_likelihoods_that_transformers_finds(
    vllm: Launched, checkpoint: Path, demo_engine: tuple[Path, Path], lines: Path
) -> None:
    tokenizer, out = str(demo_engine[1]), lines.parent / "out"
    url = f"{vllm.url}/v1/completions"
    command = [str(Path(venv("venv-api")).with_name("lm_eval")), "run"]
    command += ["--model", "local-completions", "--tasks", "ten_lines", "--batch_size", "4"]
    command += ["--model_args", f"model=ensemble,base_url={url},tokenizer={tokenizer}"]
    command += ["--include_path", str(lines.parent), "--output_path", str(out), "--log_samples"]
    run(command, {"HF_HUB_OFFLINE": "1", "HF_HOME": str(CLIENTS / "huggingface")})
    found = _samples(out)
    arguments = (str(checkpoint), tokenizer, str(lines))
    reference = ask(venv("venv-api"), "log_likelihoods.py", *arguments)["lines"]
    assert len(found) == len(LINES) == len(reference)
    for line, (total, greedy), (wanted, is_greedy) in zip(LINES, found, reference, strict=True):
        assert total == pytest.approx(wanted, abs=1e-3), line
        assert greedy == is_greedy, line
    assert {greedy for _, greedy in found} == {True, False}


def _samples(out: Path) -> list[tuple[float, bool]]:
    """Each line's sum of log probabilities, and whether it is the greedy text."""
    (path,) = out.rglob("samples_ten_lines_*.jsonl")
    samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda one: one["doc_id"])
    results = [sample["resps"][0][0] for sample in samples]
    return [(float(total), greedy == "True") for total, greedy in results]
