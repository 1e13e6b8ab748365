# ruff: noqa: E501
"""Broken tokenizer folders: the error comes at load, names the file, and says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.tokenizer_folders import Folders
from trellis.tokenizers import TokenizerError, load

HTML = "<!DOCTYPE html><html><body>Sign in to continue</body></html>"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 499723\n"

Break = Callable[[Path], object]


def write(name: str, content: str | bytes) -> Break:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def halve(name: str) -> Break:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def keep_lines(name: str, count: int) -> Break:
    def cut(folder: Path) -> None:
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(lines[:count]))

    return cut


def shorten_tekken(folder: Path) -> None:
    document = json.loads((folder / "tekken.json").read_text())
    document["vocab"] = document["vocab"][:1000]
    (folder / "tekken.json").write_text(json.dumps(document))


def change(name: str, old: str, new: str) -> Break:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


TABLE: list[tuple[str, str, Break, str]] = [
    # type, folder, what breaks it, the error
    ("llama", "llama", remove("tokenizer.model"), "has no tokenizer of this type: needs tokenizer.json, or tokenizer.model"),
    ("llama", "llama", write("tokenizer.model", HTML), r"tokenizer.model: not a SentencePiece model.*HTML page"),
    ("llama", "llama", write("tokenizer.model", LFS), r"tokenizer.model: not a SentencePiece model.*Git LFS pointer"),
    ("llama", "llama", write("tokenizer.model", b""), r"tokenizer.model: is empty"),
    ("llama", "llama", halve("tokenizer.model"), r"tokenizer.model: not a SentencePiece model: broken at byte"),
    ("llama", "t5_as_llama", lambda folder: None, r"tokenizer.model: not a BPE model"),
    ("llama", "gpt2_json", lambda folder: None, r"tokenizer.json: not Llama-2 style.*gpt2"),
    ("llama", "llama_json", halve("tokenizer.json"), r"tokenizer.json: not a tokenizer: .*EOF"),
    ("llama", "llama_json", write("tokenizer.json", HTML), r"tokenizer.json: not a tokenizer: .*HTML page"),
    ("llama", "llama_json", write("tokenizer_config.json", "{"), r"tokenizer_config.json: not JSON: .*line 1 column 2"),
    ("llama", "llama", write("tokenizer_config.json", "[]"), r"tokenizer_config.json: must hold a JSON object, not a list"),
    ("llama", "llama", write("tokenizer_config.json", '{"add_bos_token": "yes"}'), r"tokenizer_config.json: add_bos_token must be true or false: 'yes'"),
    ("llama", "llama", write("tokenizer_config.json", '{"bos_token": 7}'), r"tokenizer_config.json: bos_token must be a string: 7"),
    ("llama", "llama", write("tokenizer_config.json", '{"bos_token": "<bos>"}'), r"bos_token '<bos>' is not in the vocabulary"),
    ("llama", "llama", write("tokenizer_config.json", '{"chat_template": 7}'), r"tokenizer_config.json: chat_template must be a string"),
    ("llama", "llama", write("tokenizer_config.json", '{"added_tokens_decoder": {"x": 1}}'), r"tokenizer_config.json: added_tokens_decoder"),
    ("llama", "llama", write("added_tokens.json", '{"<new>": 32005}'), r"'<new>' has the id 32005, but .* comes 32000"),
    ("llama", "llama", write("special_tokens_map.json", b"\xff\xfe"), r"special_tokens_map.json: not UTF-8"),
    ("gpt2", "gpt2", remove("merges.txt"), r"merges.txt: is missing \(vocab.json needs it\)"),
    ("gpt2", "gpt2", remove("vocab.json"), r"vocab.json: is missing \(merges.txt needs it\)"),
    ("gpt2", "gpt2", halve("vocab.json"), r"vocab.json: not JSON"),
    ("gpt2", "gpt2", halve("merges.txt"), r"merges.txt: does not fit vocab.json: "),
    ("gpt2", "gpt2", keep_lines("merges.txt", 20_000), r"merges.txt: does not fit vocab.json: .* made by no merge"),
    ("gpt2", "gpt2", write("vocab.json", '["a", "b"]'), r"vocab.json: must hold an object of token: id"),
    ("gpt2", "gpt2", write("vocab.json", '{"a": "0"}'), r"vocab.json: must hold an object of token: id"),
    ("gpt2", "gpt2", write("merges.txt", "#version: 0.2\nq1 z9\n"), r"merges.txt: does not fit vocab.json: .*q1"),
    ("gpt2", "gpt2", write("merges.txt", "#version: 0.2\nabc\n"), r"merges.txt: does not fit vocab.json: a line must hold two tokens: 'abc'"),
    ("gpt2", "gpt2", write("merges.txt", HTML), r"merges.txt: does not fit vocab.json.*HTML page"),
    ("gpt2", "gpt2_json", write("tokenizer.json", "{}"), r"tokenizer.json: not a tokenizer"),
    ("gpt2", "gpt2_json", change("tokenizer.json", '"Ġ",\n        "t"', '"Ġ",\n        "zq"'), r"tokenizer.json: not a tokenizer: "),
    ("gpt2", "llama_json", lambda folder: None, r"tokenizer.json: not a byte-level BPE .*use the type auto"),
    ("gpt2", "gpt2", write("added_tokens.json", '{"<new>": "x"}'), r"added_tokens.json: the id of '<new>' must be an integer: 'x'"),
    ("llama3", "llama3", write("tokenizer.model", HTML), r"tokenizer.model: line 1: not `base64 rank`.*HTML page"),
    ("llama3", "llama", lambda folder: None, r"tokenizer.model: line .: not `base64 rank`"),
    ("llama3", "llama3", keep_lines("tokenizer.model", 90_000), r"tokenizer.model: has 90000 tokens, not 128000"),
    ("llama3", "llama3", write("tokenizer.model", "IQ== 0\nIQ== 1\n"), r"tokenizer.model: has the same token twice"),
    ("llama3", "llama3", write("tokenizer.model", "IQ== 0\nIg== 7\n"), r"tokenizer.model: line 2: .*the rank is 7, not 1"),
    ("llama3", "llama3", write("tokenizer.model", "IQ== 0\n"), r"tokenizer.model: has no token for the byte 0x00"),
    ("mistral", "tekken", halve("tekken.json"), r"tekken.json: not JSON"),
    ("mistral", "tekken", shorten_tekken, r"tekken.json: not tekken: .*1000 of 130072"),
    ("mistral", "tekken", write("tekken.json", "{}"), r"tekken.json: not tekken: KeyError: 'config'"),
    ("mistral", "gpt2", lambda folder: None, r"has no tokenizer of this type: needs tekken.json, or tokenizer.model"),
    ("t5", "llama_as_t5", lambda folder: None, r"tokenizer.model: not a unigram model; .*llama"),
    ("t5", "t5", write("spiece.model", HTML), r"spiece.model: not a SentencePiece model.*HTML page"),
    ("qwen", "llama", lambda folder: None, r"needs tokenizer.json, or vocab.json with merges.txt, or qwen.tiktoken"),
    ("auto", "t5", remove("spiece.model"), r"AutoTokenizer: "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "source", "spoil", "complaint"),
    TABLE,
    ids=[f"{index}-{row[0]}-{row[1]}" for index, row in enumerate(TABLE)],
)
def test_a_broken_folder_is_named_at_load(
    kind: str, source: str, spoil: Break, complaint: str, folders: Folders, tmp_path: Path
) -> None:
    copy(source, folders, tmp_path)
    spoil(tmp_path)
    with pytest.raises(TokenizerError, match=f"(?s){complaint}") as caught:
        load(kind, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_merges_that_do_not_fit_are_found_in_a_small_vocabulary_too(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nb a\n")
    with pytest.raises(TokenizerError, match=r"merges.txt: does not fit vocab.json: .*ba"):
        load("gpt2", tmp_path)


def copy(source: str, folders: Folders, target: Path) -> None:
    """The files of a folder, for t5_as_llama and llama_as_t5 under the other's name."""
    renamed = {"t5_as_llama": "t5", "llama_as_t5": "llama"}.get(source, source)
    for path in folders[renamed].iterdir():
        name = "tokenizer.model" if renamed != source else path.name
        (target / name).write_bytes(path.read_bytes())
