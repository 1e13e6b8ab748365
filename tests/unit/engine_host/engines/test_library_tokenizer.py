# SPDX-License-Identifier: Apache-2.0
"""Which tokenizers a library gets, and why it does not get the others."""

from pathlib import Path

import pytest

from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, EngineSettings
from trellis.engine_host.engines.library_tokenizer import LibraryTokenizer, library_tokenizer
from trellis.tokenizers import load


def settings(folder: Path | None, sample: tuple[int, ...]) -> EngineSettings:
    return EngineSettings(Path(), max_batch_size=1, tokenizer=folder, tokenizer_sample=sample)


@pytest.fixture(scope="module")
def sample(demo_engine: tuple[Path, Path]) -> tuple[int, ...]:
    return tuple(load("gpt2", demo_engine[1]).encode(TOKENIZER_SAMPLE))


def test_a_folder_that_transformers_reads_alike_is_used(
    demo_engine: tuple[Path, Path], sample: tuple[int, ...]
) -> None:
    folder = demo_engine[1]
    assert library_tokenizer(settings(folder, sample)) == LibraryTokenizer(str(folder), 2)


def test_special_tokens_around_a_text_do_not_matter(
    demo_engine: tuple[Path, Path], sample: tuple[int, ...]
) -> None:
    assert library_tokenizer(settings(demo_engine[1], (1, *sample, 2))).folder


@pytest.mark.parametrize("change", ["other", "shorter", "none"])
def test_a_folder_that_transformers_reads_otherwise_is_not_used(
    demo_engine: tuple[Path, Path], sample: tuple[int, ...], change: str
) -> None:
    told = {"other": (*sample[:-1], sample[-1] + 1), "shorter": sample[1:], "none": ()}[change]
    made = library_tokenizer(settings(demo_engine[1], told))
    assert made.folder == ""
    assert "makes other ids of a text than the tokenizer_type" in made.missing


def test_a_folder_that_transformers_cannot_read_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    made = library_tokenizer(settings(tmp_path, (1, 2)))
    assert made.folder == ""
    assert made.missing.startswith("transformers cannot read it (")
    assert "\n" not in made.missing


def test_code_in_a_folder_never_runs(tmp_path: Path, demo_engine: tuple[Path, Path]) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["mine.Mine", null]}, "tokenizer_class": "Mine"}'
    )
    ran = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    assert library_tokenizer(settings(tmp_path, (1,))).folder == ""
    assert not ran.exists()


def test_no_folder_is_no_tokenizer() -> None:
    assert library_tokenizer(settings(None, ())) == LibraryTokenizer(missing="there is none")
