"""`auto` on vocab.json with merges.txt, and on SentencePiece models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.tokenizer_folders import Folders
from trellis.tokenizers import TokenizerError, load, spm
from trellis.tokenizers.registry import known_types, type_module

END = "<|endoftext|>"
CONFIGS: dict[str, dict[str, Any]] = {
    "GPT2Tokenizer": dict.fromkeys(("bos_token", "eos_token", "unk_token"), END),
    "Qwen2Tokenizer": {"eos_token": "<|im_end|>", "pad_token": END},
}


def folder_of(folders: Folders, name: str, target: Path) -> Path:
    """vocab.json, merges.txt and a tokenizer_config.json of that class."""
    target.mkdir()
    values = {"tokenizer_class": name, **CONFIGS[name.removesuffix("Fast")]}
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(folders["gpt2"] / file, target)
    if name.startswith("Qwen2"):  # which adds its own ends
        added = {str(50_257 + at): token for at, token in enumerate(("<|im_start|>", "<|im_end|>"))}
        flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
        values["added_tokens_decoder"] = {
            token: {"content": content, "special": True, **flags}
            for token, content in {"50256": END, **added}.items()
        }
    (target / "tokenizer_config.json").write_text(json.dumps(values))
    return target


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"])
def test_ids_and_texts_are_those_of_transformers(
    folders: Folders, tmp_path: Path, corpus_lines: list[str], name: str
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = folder_of(folders, name, tmp_path / "x")
    ours = load("auto", folder)
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    lines = [line for line in corpus_lines[::7] if line]
    lines += [f"a{END}b", f"{END}", f" {END} ", "<|im_end|>x"]
    expected = theirs(lines)["input_ids"]
    assert ours.encode_batch(lines) == expected
    for ids in expected:
        assert ours.decode(ids, False) == theirs.decode(ids, clean_up_tokenization_spaces=False)
    assert ours.eos_id == theirs.eos_token_id


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer"])
def test_the_type_that_owns_the_class_reads_it_without_transformers(
    folders: Folders, tmp_path: Path, name: str
) -> None:
    folder = folder_of(folders, name, tmp_path / "x")
    assert not type_module("auto").needs_transformers(folder)
    owner = load("gpt2" if name.startswith("GPT2") else "qwen", folder)
    assert load("auto", folder).encode_batch(["It's  12 é"]) == owner.encode_batch(["It's  12 é"])


def test_without_a_tokenizer_class_it_is_refused_with_what_to_do(folders: Folders) -> None:
    message = r"vocab.json and merges.txt do not say how a text is cut into words; name the token"
    with pytest.raises(TokenizerError, match=message) as error:
        load("auto", folders["gpt2"])
    named = str(error.value).rpartition("choose the type: ")[2].split(", ")
    assert set(named) <= set(known_types())


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_auto_reads_the_pieces_of_a_sentencepiece_model_once(
    folders: Folders, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders[name]
    path = next(folder.glob("*.model"))
    pieces = len(spm.read_model(path).pieces)
    read: list[object] = []
    read_piece = spm._read_piece

    def counted(message: Any, piece: Any) -> Any:
        read.append(piece)
        return read_piece(message, piece)

    monkeypatch.setattr(spm, "_read_piece", counted)
    load(name, folder)
    alone = len(read)
    read.clear()
    load("auto", folder)
    assert len(read) == alone == pieces
