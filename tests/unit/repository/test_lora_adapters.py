# SPDX-License-Identifier: Apache-2.0
"""`SET=lora_adapters:`: adapters checked at `make repo`, and carried by the repository."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.fake_engines import write_checkpoint
from support.lora_adapters import write_adapter
from support.paths import ROOT
from trellis.engine_files.engine_folder import read_engine
from trellis.engine_files.lora_adapter import AdapterError
from trellis.repository.assemble import Plan, assemble

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (file,) = folder.glob("*.safetensors")
    save_file({f"{Q}.weight": np.zeros((32, 16), np.float32)}, file)
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", {Q: (32, 16)})


def plan(checkpoint: Path, tokenizer: Path, setting: str, backend: str = "vllm") -> Plan:
    engine = read_engine(checkpoint, backend)
    return Plan(engine, "gpt2", tokenizer, settings={"lora_adapters": setting})


@pytest.fixture
def tokenizer(demo_engine: tuple[Path, Path]) -> Path:
    return demo_engine[1]


def test_a_repository_carries_its_adapters(
    checkpoint: Path, adapter: Path, tokenizer: Path, tmp_path: Path
) -> None:
    repo = tmp_path / "triton_model_repo"
    made = plan(checkpoint, tokenizer, f"polite={adapter},short={adapter}")
    assert assemble(made, repo)
    config = (repo / "tensorrt_llm" / "config.pbtxt").read_text()
    assert '"polite=lora/polite,short=lora/short"' in config
    for name in ("polite", "short"):
        for file in adapter.iterdir():
            carried = repo / "tensorrt_llm" / "1" / "lora" / name / file.name
            assert carried.read_bytes() == file.read_bytes()
    assert not assemble(plan(checkpoint, tokenizer, f"polite={adapter},short={adapter}"), repo)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("polite", "SET: lora_adapters: 'polite' is not name=folder"),
        ("a/b=x", "SET: lora_adapters: 'a/b=x' is not name=folder"),
        ("..=x", "is not name=folder"),
        ("a=x,a=y", "a is given twice"),
        ("a=/no/such", "SET: lora_adapters: /no/such: no adapter_config.json"),
    ],
)
def test_what_is_no_adapter_is_rejected_before_anything_is_made(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(AdapterError) as error:
        assemble(plan(checkpoint, tokenizer, setting), tmp_path / "repo")
    assert message in str(error.value)
    assert not (tmp_path / "repo").exists()


def test_an_engine_without_adapters_says_which_have_some(
    adapter: Path, demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    engine, tokenizer = demo_engine
    setting = {"lora_adapters": f"a={adapter}"}
    made = Plan(read_engine(engine), "gpt2", tokenizer, settings=setting)
    with pytest.raises(
        AdapterError, match=r"\(openvino\) has no adapters .*BACKEND=vllm or llmapi"
    ):
        assemble(made, tmp_path / "repo")


def test_the_templates_name_the_input_on_its_whole_way() -> None:
    ensemble, engine = (
        (ROOT / "model_repo_src" / model / "config.pbtxt").read_text()
        for model in ("ensemble", "tensorrt_llm")
    )
    assert 'input_map { key: "lora_name" value: "lora_name" }' in ensemble
    assert 'name: "lora_name"' in engine
