"""The registry: types by file name, options by annotation, and nothing heavier than needed."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.paths import ROOT
from support.tokenizer_folders import Folders, Loaded
from trellis.tokenizers import TokenizerError, known_types, load

TOY = '''
"""toy: every letter is its code point."""

from pathlib import Path
from typing import Literal

from trellis.tokenizers import Tokenizer


class Toy(Tokenizer):
    vocab_size = 0x110000

    def __init__(self, said: str) -> None:
        self.said = said

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def token_bytes(self, token: int) -> bytes:
        return chr(token).encode()


def load(
    tokenizer_dir: Path,
    *,
    upper: bool = False,
    shift: int | None = None,
    scale: float = 1.0,
    mode: Literal["fast", "slow"] = "fast",
    name: str = "toy",
) -> Toy:
    return Toy(f"{upper} {shift} {scale} {mode} {name}")
'''

TYPES = Path("trellis", "data", "tokenizers")  # in a version folder


@pytest.fixture(scope="module")
def outsider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder as the assembler makes it, with one tokenizer_type more."""
    version = tmp_path_factory.mktemp("preprocessing") / "1"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "trellis", version / "trellis", ignore=ignore)
    shutil.copytree(ROOT / "tokenizers", version / TYPES, ignore=ignore)
    (version / TYPES / "toy.py").write_text(TOY)
    return version


def run(code: str, path: Path, cwd: Path | None = None) -> str:
    """What a fresh Python prints that finds `path` first."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd=cwd or path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_known_types_are_the_files_of_the_folder() -> None:
    assert known_types() == ["auto", "gpt2", "llama", "llama3", "llama4", "mistral", "qwen", "t5"]
    assert not (ROOT / "tokenizers" / "__init__.py").exists()


def test_a_file_dropped_into_the_folder_is_a_type(outsider: Path) -> None:
    printed = run(
        """
        from trellis.tokenizers import known_types, load, to_word_list
        toy = load("toy", ".", {"upper": "YES", "shift": " 3 ", "mode": "slow", "name": ""})
        print("toy" in known_types(), "llama" in known_types(), toy.said)
        print(toy.decode(toy.encode("naïve 😀")), toy.word_ids("a"), toy.encode_batch(["a", "b"]))
        """,
        outsider,
    )
    assert printed == "True True True 3 1.0 slow toy\nnaïve 😀 [[97]] [[97], [98]]"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"uper": "true"}, "'toy' has no option 'uper'; it has: upper, shift, scale, mode, name"),
        ({"upper": "maybe"}, "'upper' is 'maybe'; it can be: true, false"),
        ({"shift": "x"}, "'shift' is 'x'; it can be: a value of the type int"),
        ({"mode": "medium"}, "'mode' is 'medium'; it can be: fast, slow"),
        ({"upper": "${upper}"}, "'upper' was never filled in: ${upper}"),
        ({"tokenizer_dir": "x"}, "'toy' has no option 'tokenizer_dir'"),
    ],
)
def test_a_bad_option_is_an_error_that_says_what_can_be(
    options: dict[str, str], complaint: str, outsider: Path
) -> None:
    printed = run(
        f"""
        from trellis.tokenizers import TokenizerError, load
        try:
            load("toy", ".", {options!r})
        except TokenizerError as error:
            print(error)
        """,
        outsider,
    )
    assert complaint in printed


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import nothing_like_this", "broken.py: cannot be imported: ModuleNotFoundError"),
        ("def load(", "broken.py: cannot be imported: SyntaxError"),
        ("x = 1", "broken.py: needs a function load(tokenizer_dir"),
        ("def load(tokenizer_dir):\n    return 1", "load() must return a Tokenizer"),
        ("def load(tokenizer_dir, *, size: int): ...", "'broken' needs the option 'size'"),
    ],
)
def test_a_broken_type_file_is_named(source: str, complaint: str, outsider: Path) -> None:
    (outsider / TYPES / "broken.py").write_text(source)
    printed = run(
        """
        from trellis.tokenizers import TokenizerError, load
        try:
            load("broken", ".")
        except TokenizerError as error:
            print(error)
        """,
        outsider,
    )
    assert complaint in printed


def test_an_unknown_type_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("lama", "", "core", "../llama", "_private"):
        with pytest.raises(TokenizerError, match="known are: auto, gpt2, llama, llama3, llama4"):
            load(name, tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="nowhere' is not a folder"):
        load("llama", tmp_path / "nowhere")


def test_empty_options_are_defaults(folders: Folders, loaded: Loaded) -> None:
    empty = load("gpt2", folders["gpt2"], {"add_bos_token": "", "trust_remote_code": " "})
    assert empty.encode("Hello world") == loaded["gpt2"].encode("Hello world") == [15496, 995]


def test_trust_remote_code_is_an_option_of_auto_alone(folders: Folders) -> None:
    for name in set(known_types()) - {"auto"}:
        with pytest.raises(TokenizerError, match="has no option 'trust_remote_code'"):
            load(name, folders["gpt2"], {"trust_remote_code": "true"})


def test_auto_runs_a_folders_own_code_only_if_told_to(folders: Folders, tmp_path: Path) -> None:
    shutil.copy(folders["gpt2_json"] / "tokenizer.json", tmp_path)
    (tmp_path / "mine.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import GPT2Tokenizer as Mine\n"
    )
    config = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match="trust_remote_code"):
        load("auto", tmp_path)
    assert not (tmp_path / "ran").exists()
    load("auto", tmp_path, {"trust_remote_code": "true"})
    assert (tmp_path / "ran").exists()


def test_options_from_the_config_file_give_way_to_the_models(
    folders: Folders, tmp_path: Path
) -> None:
    shutil.copy(folders["llama"] / "tokenizer.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"add_bos_token": false, "add_eos_token": true}'
    )
    assert load("llama", tmp_path).encode("Hello") == [22557, 2]
    assert load("llama", tmp_path, {"add_bos_token": "1"}).encode("Hello") == [1, 22557, 2]
    assert load("llama", tmp_path, {"add_special_tokens": "0"}).encode("Hello") == [22557]


def test_a_lone_surrogate_is_named(loaded: Loaded) -> None:
    for name in ("gpt2", "llama", "t5"):
        with pytest.raises(TokenizerError, match=r"text 1 has a lone surrogate, '\\ud800', at 2"):
            loaded[name].encode_batch(["good", "ab\ud800"])
        with pytest.raises(TokenizerError, match=r"has a lone surrogate, '\\ud800'"):
            loaded[name].word_ids("\ud800")
        assert loaded[name].encode("good")


def test_the_name_tokenizers_stays_hugging_faces(outsider: Path) -> None:
    code = "import tokenizers; print(tokenizers.__file__, hasattr(tokenizers, 'Tokenizer'))"
    for path in (ROOT, outsider):
        printed = run(code, path)
        assert "site-packages" in printed
        assert printed.endswith("True")


def test_an_assembled_model_uses_its_own_copy(outsider: Path) -> None:
    printed = run("import trellis.tokenizers as c; print(c.__file__)", outsider)
    assert printed == str(outsider / "trellis" / "tokenizers" / "__init__.py")


HEAVY = ("torch", "transformers", "pydantic", "mistral_common", "tiktoken")


@pytest.mark.parametrize(
    ("kind", "folder"), [("llama", "llama"), ("gpt2", "gpt2"), ("llama3", "llama3"), ("t5", "t5")]
)
def test_no_type_but_auto_imports_anything_heavy(kind: str, folder: str, folders: Folders) -> None:
    printed = run(
        f"""
        import sys
        from trellis.tokenizers import load
        tokenizer = load({kind!r}, {str(folders[folder])!r})
        assert tokenizer.decode(tokenizer.encode("the fox")) == "the fox"
        print([name for name in {HEAVY!r} if name in sys.modules])
        """,
        ROOT,
    )
    assert printed == "[]"


def test_the_docs_example_of_a_type_works_as_written(outsider: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tokenizers.md").read_text()
    marker = "<!-- example: own tokenizer -->"
    block = re.search(marker + r"\s*```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    (outsider / TYPES / "mine.py").write_text(block[1])
    printed = run(
        f"""
        from trellis.tokenizers import load
        mine = load("mine", {str(tmp_path)!r})
        ids = mine.encode("naïve 😀")
        stream = mine.stream_decoder()
        print(ids[0] == mine.bos_id, mine.decode(ids), "".join(stream.push([i]) for i in ids))
        plain = load("mine", {str(tmp_path)!r}, {{"add_bos_token": "false"}})
        print(plain.decode(plain.encode("x")), plain.encode("x")[0] == mine.bos_id)
        """,
        outsider,
    )
    assert printed == "True naïve 😀 naïve 😀\nx False"
