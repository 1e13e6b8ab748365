# SPDX-License-Identifier: Apache-2.0
"""A wrong type in any JSON of a tokenizer's folder is a TokenizerError, and nothing else."""

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from support.wrong_types import with_wrong
from trellis.tokenizers import TokenizerError, load
from trellis.tokenizers.files import read_config

END = "<|endoftext|>"
VOCAB = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
VOCAB |= {END: 256, "ab": 257}
SMALL: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        "tokenizer_class": "GPT2TokenizerFast",
        "bos_token": END,
        "eos_token": {"content": END},
        "pad_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": [{"name": "default", "template": "{{ bos_token }}"}],
        "additional_special_tokens": [END],
        "extra_special_tokens": {"x_token": END},
        "added_tokens_decoder": {
            "256": {"content": END, "special": True, "lstrip": False, "normalized": False}
        },
        "auto_map": {"AutoConfig": "x"},
        "extra_ids": 100,
    },
    "special_tokens_map.json": {"bos_token": END, "additional_special_tokens": [END]},
    "added_tokens.json": {END: 256},
    "generation_config.json": {"eos_token_id": [256]},
    "chat_template.json": {"chat_template": "x"},
}
TEKKEN = {
    "config": {
        "pattern": r"\w+|\W+",
        "default_vocab_size": 266,
        "default_num_special_tokens": 10,
        "version": "v3",
    },
    "vocab": [
        {"rank": rank, "token_bytes": base64.b64encode(bytes([rank])).decode(), "token_str": None}
        for rank in range(256)
    ],
    "special_tokens": [
        {"rank": rank, "token_str": text, "is_control": True}
        for rank, text in enumerate(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    ],
}


def library_file() -> dict[str, Any]:
    """A tokenizer.json, of a small vocabulary."""
    made = Tokenizer(models.BPE(vocab=VOCAB, merges=[("a", "b")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    document: dict[str, Any] = json.loads(made.to_str())
    return document


LIBRARY = library_file()


def loads_or_says(files: Mapping[str, Any], *types: str) -> None:
    """Load a folder of these files; whatever is raised but a TokenizerError fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        for name, document in files.items():
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            (Path(folder) / name).write_bytes(data)
        for kind in types:
            said = ""
            try:
                assert load(kind, folder).vocab_size >= 0
            except TokenizerError as error:
                said = str(error).replace(folder, "")
            assert len(said) < 2000


def test_the_documents_that_are_made_wrong_are_right() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, document in {"tokenizer.json": LIBRARY, **SMALL}.items():
            (Path(folder) / name).write_text(json.dumps(document))
        assert load("auto", folder).vocab_size == load("gpt2", folder).vocab_size == 258
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tekken.json").write_text(json.dumps(TEKKEN))
        assert load("mistral", folder).vocab_size == 266


@pytest.mark.parametrize("name", SMALL)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_in_the_small_files(name: str, data: st.DataObject) -> None:
    wrong = data.draw(with_wrong(SMALL[name]))
    loads_or_says({"tokenizer.json": LIBRARY, **SMALL, name: wrong}, "gpt2", "auto")


@given(with_wrong({**LIBRARY, "model": {**LIBRARY["model"], "vocab": {"a": 0, "b": 1, "ab": 2}}}))
@settings(max_examples=80, deadline=None)
def test_in_the_librarys_file(wrong: Any) -> None:
    loads_or_says({"tokenizer.json": wrong}, "gpt2", "auto", "llama", "qwen")


@given(with_wrong({"a": 0, "b": 1, "ab": 2}))
@settings(max_examples=40, deadline=None)
def test_in_a_vocabulary(wrong: Any) -> None:
    loads_or_says({"vocab.json": wrong, "merges.txt": b"a b\n"}, "gpt2", "auto")


@given(with_wrong(TEKKEN))
@settings(max_examples=60, deadline=None)
def test_in_tekken(wrong: Any) -> None:
    loads_or_says({"tekken.json": wrong}, "mistral")


def _load_with_templates(folder: Path) -> None:
    """Templates are read when one is asked for."""
    load("gpt2", folder)
    read_config(folder).templates  # noqa: B018


@pytest.mark.parametrize("name", [*SMALL, "tokenizer.json"])
def test_a_file_of_fifty_gigabytes_is_not_read(tmp_path: Path, name: str) -> None:
    for other, document in {"tokenizer.json": LIBRARY, **SMALL}.items():
        (tmp_path / other).write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text("{}")  # in which no chat template is
    with (tmp_path / name).open("wb") as file:
        file.truncate(50 * 10**9)
    said = rf"{name}: has 47,684 MiB, and no such file has more"
    with pytest.raises(TokenizerError, match=said):
        _load_with_templates(tmp_path)


def test_brackets_a_million_deep_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(LIBRARY))
    (tmp_path / "generation_config.json").write_bytes(b"[" * 1_000_000)
    with pytest.raises(TokenizerError, match=r"generation_config.json: not JSON"):
        load("gpt2", tmp_path)


def test_an_added_token_of_which_a_normalizer_leaves_nothing(tmp_path: Path) -> None:
    """The library would look for it in a text without end."""
    made = Tokenizer.from_str(json.dumps(LIBRARY))
    made.normalizer = normalizers.Strip()
    made.add_tokens([AddedToken(" \n", normalized=True)])
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    said = r"the normalizer leaves nothing of the added token ' \\n' \(258\)"
    for kind in ("auto", "gpt2"):
        with pytest.raises(TokenizerError, match=said):
            load(kind, tmp_path)
