# SPDX-License-Identifier: Apache-2.0
"""`SET=lora_adapters:`: adapters checked at `make repo`, and carried by the repository."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.fake_engines import write_checkpoint, write_engine, write_ir_layers
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


def test_the_cpp_backend_says_which_engines_have_adapters(
    adapter: Path, tokenizer: Path, tmp_path: Path
) -> None:
    engine = read_engine(write_engine(tmp_path / "engine", "1.x"))
    made = Plan(engine, "gpt2", tokenizer, settings={"lora_adapters": f"a={adapter}"})
    with pytest.raises(
        AdapterError, match=r"\(tensorrtllm\) has no adapters .*BACKEND=vllm or llmapi"
    ):
        assemble(made, tmp_path / "repo")


def test_a_gguf_file_has_no_adapters(
    adapter: Path, demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    engine, tokenizer = demo_engine
    setting = {"lora_adapters": f"a={adapter}"}
    made = Plan(read_engine(engine), "gpt2", tokenizer, settings=setting)
    with pytest.raises(AdapterError, match=r"^SET: lora_adapters: .*GGUF.*OpenVINO IR$"):
        assemble(made, tmp_path / "repo")


def plan_of_ir(folder: Path, tokenizer: Path, adapter: Path, **more: str) -> Plan:
    """Of an IR whose one layer that is multiplied by weights is Q."""
    ir = write_ir_layers(folder, {Q: (32, 16)})
    settings = {"lora_adapters": f"a={adapter}", **more}
    return Plan(read_engine(ir), "gpt2", tokenizer, settings=settings)


def test_an_ir_carries_its_adapters(adapter: Path, tokenizer: Path, tmp_path: Path) -> None:
    repo = tmp_path / "triton_model_repo"
    assert assemble(plan_of_ir(tmp_path / "ir", tokenizer, adapter), repo)
    assert '"a=lora/a"' in (repo / "tensorrt_llm" / "config.pbtxt").read_text()
    carried = repo / "tensorrt_llm" / "1" / "lora" / "a"
    assert {file.name for file in carried.iterdir()} == {file.name for file in adapter.iterdir()}


@pytest.mark.parametrize(
    ("module", "shape", "more", "message"),
    [
        (Q, (32, 16), {"alpha_pattern": {"q_proj": 2}}, "alpha_pattern gives modules scales"),
        (Q, (32, 16), {"rank_pattern": {"q_proj": 2}}, "rank_pattern gives modules scales"),
        (Q, (16, 16), {}, "do not fit rank 4"),
        ("model.layers.1.mlp.up_proj", (32, 16), {}, "is no part of this checkpoint"),
        (f"other.{Q}", (32, 16), {}, "is no part of this model"),
    ],
)
def test_what_the_library_would_leave_out_of_an_adapter_is_rejected(
    tokenizer: Path,
    tmp_path: Path,
    module: str,
    shape: tuple[int, int],
    more: dict[str, Any],
    message: str,
) -> None:
    adapter = write_adapter(tmp_path / "adapter", {module: shape}, **more)
    with pytest.raises(AdapterError, match=f"^SET: lora_adapters: .*{message}"):
        assemble(plan_of_ir(tmp_path / "ir", tokenizer, adapter), tmp_path / "repo")


def test_adapters_of_an_ir_are_not_served_beside_its_prefix_cache(
    adapter: Path, tokenizer: Path, tmp_path: Path
) -> None:
    made = plan_of_ir(tmp_path / "ir", tokenizer, adapter, enable_kv_cache_reuse="True")
    with pytest.raises(AdapterError, match="not with enable_kv_cache_reuse:true"):
        assemble(made, tmp_path / "repo")


def test_the_templates_name_the_input_on_its_whole_way() -> None:
    ensemble, engine = (
        (ROOT / "model_repo_src" / model / "config.pbtxt").read_text()
        for model in ("ensemble", "tensorrt_llm")
    )
    assert 'input_map { key: "lora_name" value: "lora_name" }' in ensemble
    assert 'name: "lora_name"' in engine
