"""Which ids end an answer: generation_config.json's, and those of a type's own chat form."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.tokenizer_folders import TYPE_OF, Folders
from trellis.tokenizers import Tokenizer, TokenizerError, load

EVERY = [*TYPE_OF.items(), ("gpt2", "qwen"), ("smollm2", "auto")]
ENDOFTEXT, IM_START, IM_END = 0, 1, 2  # of SmolLM2


def copied(folders: Folders, name: str, target: Path, generation: Any = None) -> Path:
    """A folder of that name, with a generation_config.json."""
    shutil.copytree(folders[name], target, dirs_exist_ok=True)
    if generation is not None:
        (target / "generation_config.json").write_text(json.dumps(generation))
    return target


def letters(tokenizer: Tokenizer) -> list[str]:
    """The special tokens that end an answer."""
    return [tokenizer.special_tokens[token].decode() for token in tokenizer.end_ids]


@pytest.mark.parametrize(("folder", "kind"), EVERY)
def test_every_type_ends_at_the_ids_of_generation_config(
    folders: Folders, tmp_path: Path, folder: str, kind: str
) -> None:
    plain = load(kind, folders[folder])
    made = load(kind, copied(folders, folder, tmp_path, {"eos_token_id": [7, 5, plain.eos_id]}))
    assert made.end_ids == (*plain.end_ids[:1], 7, 5, *plain.end_ids[1:])


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        (ENDOFTEXT, (IM_END, ENDOFTEXT)),
        ([IM_END, ENDOFTEXT], (IM_END, ENDOFTEXT)),
        ([], (IM_END,)),
        (None, (IM_END,)),
    ],
)
def test_one_id_or_a_list_or_none(
    folders: Folders, tmp_path: Path, value: Any, ends: tuple[int, ...]
) -> None:
    made = load("gpt2", copied(folders, "smollm2", tmp_path, {"eos_token_id": value}))
    assert (made.eos_id, made.end_ids) == (IM_END, ends)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("2", "eos_token_id must be an integer or a list of integers: '2'"),
        ([2, True], "eos_token_id must be an integer or a list of integers: [2, True]"),
        (2.0, "eos_token_id must be an integer or a list of integers: 2.0"),
        ({"a": 2}, "eos_token_id must be an integer or a list of integers"),
        (49152, "eos_token_id 49152 is not in the vocabulary, which has 49152 ids"),
        ([2, -1], "eos_token_id -1 is not in the vocabulary, which has 49152 ids"),
    ],
)
def test_a_wrong_id_names_file_and_field(
    folders: Folders, tmp_path: Path, value: Any, what: str
) -> None:
    folder = copied(folders, "smollm2", tmp_path, {"eos_token_id": value})
    with pytest.raises(TokenizerError) as caught:
        load("gpt2", folder)
    assert str(caught.value).startswith(f"{folder / 'generation_config.json'}: {what}")


def test_a_file_that_is_no_json_is_named(folders: Folders, tmp_path: Path) -> None:
    folder = copied(folders, "smollm2", tmp_path)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"generation_config\.json: not JSON"):
        load("gpt2", folder)


def test_llama3_ends_where_its_own_chat_form_ends_a_turn(folders: Folders, tmp_path: Path) -> None:
    assert letters(load("llama3", folders["llama3"])) == [
        "<|end_of_text|>",
        "<|eot_id|>",
        "<|eom_id|>",
    ]
    folder = copied(folders, "llama3", tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert letters(load("llama3", folder)) == ["<|end_of_text|>"]  # another form has other ends
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}<|eot_id|>")
    assert letters(load("llama3", folder)) == ["<|end_of_text|>", "<|eot_id|>"]


@pytest.mark.parametrize("kind", ["auto", "gpt2", "qwen"])
def test_the_end_of_a_turn_in_the_template_ends_an_answer(
    folders: Folders, tmp_path: Path, kind: str
) -> None:
    folder = copied(folders, "smollm2", tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = "<|endoftext|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert letters(load(kind, folder)) == ["<|endoftext|>", "<|im_end|>"]


def test_qwen_ends_where_chatml_ends_a_turn(folders: Folders, tmp_path: Path) -> None:
    folder = copied(folders, "smollm2", tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = "<|endoftext|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert letters(load("qwen", folder)) == ["<|endoftext|>", "<|im_end|>"]


def test_an_end_that_the_vocabulary_lacks_is_none(folders: Folders) -> None:
    assert letters(load("qwen", folders["gpt2"])) == ["<|endoftext|>"]
