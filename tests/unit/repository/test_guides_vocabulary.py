# SPDX-License-Identifier: Apache-2.0
"""The file of the C++ backend's guides: what NVIDIA's script writes, beside the engine."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from support.fake_engines import write_engine
from support.tokenizer_folders import Folders
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.repository.guides_vocabulary import FILE, GuidesVocabularyError
from trellis.repository.model_config import parameters, parse_config

BACKEND, PATH = "guided_decoding_backend", "xgrammar_tokenizer_info_path"


def plan_of(place: Path, tokenizer: Path, kind: str, release: str = "1.2.0", **given: str) -> Plan:
    engine = read_engine(write_engine(place / "engine", release))
    return Plan(engine, kind, tokenizer, settings=given)


def made(place: Path, plan: Plan) -> tuple[dict[str, str], dict[str, Any]]:
    """The engine's parameters, and the file that they name."""
    assemble(plan, place / "repository")
    config = parse_config((place / "repository/tensorrt_llm/config.pbtxt").read_text(), "it")
    named = parameters(config)
    return named, json.loads(Path(named[PATH]).read_text()) if named[PATH] else {}


@pytest.mark.parametrize(
    ("name", "kind"), [("llama3_json", "auto"), ("llama", "llama"), ("gpt2", "gpt2")]
)
def test_it_is_what_nvidias_script_writes(
    name: str, kind: str, folders: Folders, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, folders[name], kind, **{BACKEND: "xgrammar"})
    named, found = made(tmp_path, plan)
    assert Path(named[PATH]) == tmp_path / "repository/tensorrt_llm/1" / FILE
    assert named[BACKEND] == "xgrammar"
    saved = tmp_path / "tokenizer.json"
    saved.write_text(found["tokenizer_str"])
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(saved))  # type: ignore[no-untyped-call]
    by_id = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
    assert found["encoded_vocab"] == [token for token, _ in by_id]
    own, other = (
        json.loads(text) for text in (found["tokenizer_str"], theirs.backend_tokenizer.to_str())
    )
    for part in ("model", "normalizer", "pre_tokenizer", "decoder", "added_tokens"):
        assert own[part] == other[part], part
    assert found["stop_token_ids"]
    assert not assemble(plan, tmp_path / "repository").changed


def test_without_guides_there_is_none(folders: Folders, tmp_path: Path) -> None:
    named, _ = made(tmp_path, plan_of(tmp_path, folders["llama"], "llama"))
    assert (named[BACKEND], named[PATH]) == ("", "")
    assert not (tmp_path / "repository/tensorrt_llm/1" / FILE).exists()


def test_a_file_of_the_users_own_is_taken(folders: Folders, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    text = json.dumps({"encoded_vocab": ["a"], "tokenizer_str": "{}", "stop_token_ids": [0]})
    own.write_text(text)
    plan = plan_of(tmp_path, folders["llama"], "llama", **{BACKEND: "xgrammar", PATH: str(own)})
    assert made(tmp_path, plan)[0][PATH] == str(own)


@pytest.mark.parametrize(
    ("settings", "content", "said"),
    [
        ({BACKEND: "outlines"}, None, f"{BACKEND}: 'outlines' is none of this backend's"),
        ({BACKEND: "xgrammar", PATH: "own.json"}, None, f"{PATH}: own.json: cannot be read"),
        ({BACKEND: "xgrammar", PATH: "own.json"}, "[", f"{PATH}: own.json: cannot be read"),
        ({BACKEND: "xgrammar", PATH: "own.json"}, "[]", f"{PATH}: own.json: has no encoded_vocab"),
        ({PATH: "own.json"}, '{"encoded_vocab": []}', f"{PATH}: own.json: has no tokenizer_str"),
    ],
)
def test_what_the_backend_could_not_follow_is_rejected(
    settings: dict[str, str],
    content: str | None,
    said: str,
    folders: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("own.json").write_text(content)
    with pytest.raises(GuidesVocabularyError, match=f"^SET: {said}"):
        assemble(plan_of(tmp_path, folders["llama"], "llama", **settings), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_release_without_guides_says_so(folders: Folders, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, folders["llama"], "llama", "0.9.0", **{BACKEND: "xgrammar"})
    notes = assemble(plan, tmp_path / "repository").notes
    assert notes == (f"{BACKEND} has no effect in TensorRT-LLM 0.9.0: it has no such setting",)


def test_a_tokenizer_without_an_end_cannot_follow_guides(tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    folder.mkdir()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(letters)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    plan = plan_of(tmp_path, folder, "auto", **{BACKEND: "xgrammar"})
    with pytest.raises(GuidesVocabularyError, match="names no token that ends an answer"):
        assemble(plan, tmp_path / "repository")
