# SPDX-License-Identifier: Apache-2.0
"""`SET=prompt_lookup:` and `SET=draft_engine:`: checked at `make repo`, the draft carried."""

import json
from pathlib import Path

import pytest

from support.fake_engines import write_checkpoint, write_ir_layers
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.repository.speculation import SpeculationError

LAYERS = {"model.layers.0.mlp.up_proj": (32, 16)}


@pytest.fixture
def tokenizer(demo_engine: tuple[Path, Path]) -> Path:
    return demo_engine[1]


@pytest.fixture
def ir(tmp_path: Path) -> Path:
    return write_ir_layers(tmp_path / "ir", LAYERS)


def draft(folder: Path, vocab_size: int = 49152) -> Path:
    write_ir_layers(folder, LAYERS)
    (folder / "openvino_tokenizer.xml").write_text("<net/>")
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    return folder


def plan(engine: Path, tokenizer: Path, backend: str = "", **settings: str) -> Plan:
    return Plan(read_engine(engine, backend), "gpt2", tokenizer, settings=settings)


def test_a_repository_carries_the_draft_model(ir: Path, tokenizer: Path, tmp_path: Path) -> None:
    small, repo = draft(tmp_path / "small"), tmp_path / "triton_model_repo"
    assert assemble(plan(ir, tokenizer, draft_engine=str(small)), repo)
    config = (repo / "tensorrt_llm" / "config.pbtxt").read_text()
    assert 'key: "draft_engine" value: { string_value: "draft" }' in config
    carried = repo / "tensorrt_llm" / "1" / "draft"
    assert {file.name for file in carried.iterdir()} == {file.name for file in small.iterdir()}
    assert not assemble(plan(ir, tokenizer, draft_engine=str(small)), repo)


def test_a_repository_says_how_many_tokens_are_guessed(
    ir: Path, tokenizer: Path, tmp_path: Path
) -> None:
    assert assemble(plan(ir, tokenizer, prompt_lookup="5"), tmp_path / "repo")
    config = (tmp_path / "repo" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert 'key: "prompt_lookup" value: { string_value: "5" }' in config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_lookup": "65"}, "prompt_lookup: 65 is not allowed; say 1 to 64"),
        ({"prompt_lookup": "3", "draft_engine": "x"}, "draft_engine: not beside prompt_lookup"),
        ({"draft_engine": "x", "lora_adapters": "a=b"}, "draft_engine: not beside lora_adapters"),
        ({"draft_engine": "/no/such"}, "draft_engine: ENGINE=/no/such: no such folder"),
    ],
)
def test_what_cannot_be_is_rejected_before_anything_is_made(
    ir: Path, tokenizer: Path, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(SpeculationError, match=f"^SET: {message}"):
        _ = plan(ir, tokenizer, **settings).draft
    assert not (tmp_path / "repo").exists()


def test_a_draft_without_a_tokenizer_or_of_another_is_rejected(
    tokenizer: Path, tmp_path: Path, demo_engine: tuple[Path, Path]
) -> None:
    engine = demo_engine[0]
    bare = write_ir_layers(tmp_path / "bare", LAYERS)
    with pytest.raises(SpeculationError, match=r"bare: no openvino_tokenizer.xml"):
        _ = plan(engine, tokenizer, draft_engine=str(bare)).draft
    other = draft(tmp_path / "other", vocab_size=7)
    with pytest.raises(SpeculationError, match="knows 7 ids, and the engine 49152"):
        _ = plan(engine, tokenizer, draft_engine=str(other)).draft
    assert plan(engine, tokenizer, draft_engine=str(draft(tmp_path / "fine"))).draft


@pytest.mark.parametrize("name", ["prompt_lookup", "draft_engine"])
def test_other_engines_do_not_guess(tokenizer: Path, tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    made = plan(checkpoint, tokenizer, "vllm", **{name: "3"})
    with pytest.raises(SpeculationError, match=rf"^SET: {name}: this engine \(vllm\) does not"):
        assemble(made, tmp_path / "repo")
