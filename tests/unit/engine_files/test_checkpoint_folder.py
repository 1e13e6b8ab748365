# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint as ENGINE: recognised by its files, and complete or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trellis.engine_files.engine_folder import EngineFolderError, read_engine
from trellis.repository.assemble import Plan, assemble

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}


def checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_its_sizes_come_from_its_config(tmp_path: Path) -> None:
    engine = read_engine(checkpoint(tmp_path / "out"))
    assert (engine.vocab_size, engine.max_seq_len) == (49152, 2048)


def installed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tensorrt_llm: str = "", vllm: bool = False
) -> None:
    """Have this Python find TensorRT-LLM of a release, or none, and vLLM or not."""
    if tensorrt_llm:
        about = folder / f"tensorrt_llm-{tensorrt_llm}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: tensorrt_llm\nVersion: {tensorrt_llm}\n")
    if vllm:
        (folder / "vllm").mkdir(parents=True)
        (folder / "vllm" / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(folder)])


@pytest.mark.parametrize(
    ("tensorrt_llm", "vllm", "engine_type"),
    [
        ("1.0.0", True, "llmapi"),
        ("1.3.0rc21", False, "llmapi"),
        ("0.21.0", True, "vllm"),
        ("", True, "vllm"),
        ("", False, "vllm"),
    ],
)
def test_what_is_installed_decides_what_serves_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tensorrt_llm: str,
    vllm: bool,
    engine_type: str,
) -> None:
    folder = checkpoint(tmp_path / "out")
    installed(monkeypatch, tmp_path / "packages", tensorrt_llm, vllm)
    engine = read_engine(folder)
    assert engine.engine_type == engine_type
    assert ["setup-vllm" in note for note in engine.notes] == [True] * (
        engine_type == "vllm" and not vllm
    )


def test_backend_overrides_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "out")
    installed(monkeypatch, tmp_path / "packages", "1.2.1")
    engine = read_engine(folder, backend="vllm")
    assert (engine.engine_type, engine.notes) == ("vllm", ())
    installed(monkeypatch, tmp_path / "none")
    assert read_engine(folder, backend="llmapi").engine_type == "llmapi"


def test_a_model_of_several_parts_has_its_text_part_read(tmp_path: Path) -> None:
    text = {**CONFIG, "vocab_size": 7}
    engine = read_engine(checkpoint(tmp_path / "out", text_config=text))
    assert engine.vocab_size == 7


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "out")
    parts = {"a": "model.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(EngineFolderError, match=r"model-2\.safetensors is missing"):
        read_engine(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not readable"), ("[]", "not an object"), ("{}", "no `architectures`")],
)
def test_a_broken_config_is_named(tmp_path: Path, content: str, message: str) -> None:
    folder = checkpoint(tmp_path / "out")
    (folder / "config.json").write_text(content)
    with pytest.raises(EngineFolderError, match=f"config.json: {message}"):
        read_engine(folder, backend="vllm")


def test_weights_lie_with_the_engine_alone_and_the_tokenizer_s_files_with_every_model(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "out")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights, older")
    for file in demo_engine[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    target = tmp_path / "repo"
    assemble(Plan(read_engine(folder), "gpt2", folder), target)
    weights = [
        path.relative_to(target)
        for path in target.rglob("*")
        if path.suffix in (".safetensors", ".bin")
    ]
    assert weights == [Path("tensorrt_llm/1/model.safetensors")]
    for model in ("preprocessing", "tensorrt_llm", "postprocessing"):
        assert (target / model / "1" / "tokenizer" / "tokenizer.json").is_file()


def ends_of(target: Path) -> list[str]:
    """What the models of a repository know of the ids that end an answer."""
    return [file.read_text() for file in target.glob("*/1/tokenizer/generation_config.json")]


def test_the_ids_that_end_an_answer_are_known_to_every_model(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    """The checkpoint's file, where the tokenizer's folder has none of its own."""
    engine, files = checkpoint(tmp_path / "out"), tmp_path / "files"
    (engine / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    shutil.copytree(demo_engine[1], files)
    shutil.copytree(demo_engine[1], engine, dirs_exist_ok=True)
    for folder in (engine, files):
        target = tmp_path / f"repo-of-{folder.name}"
        assemble(Plan(read_engine(engine), "gpt2", folder), target)
        assert ends_of(target) == ['{"eos_token_id": [2, 0]}'] * 3
    (files / "generation_config.json").write_text('{"eos_token_id": 0}')
    assemble(Plan(read_engine(engine), "gpt2", files), target)
    assert ends_of(target) == ['{"eos_token_id": 0}'] * 3
