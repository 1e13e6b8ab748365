# SPDX-License-Identifier: Apache-2.0
"""Models that share GPUs are loaded one after another."""

from pathlib import Path

import pytest

from support.fake_engines import write_checkpoint, write_engine
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.server.load_order import load_order

ONE = ["--model-load-thread-count=1"]


@pytest.fixture
def place(tmp_path: Path, llama_folder: Path) -> "Place":
    return Place(tmp_path, llama_folder)


class Place:
    """A repository to which models are added."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self.tokenizer, self.repo = folder, tokenizer, folder / "repo"

    def add(self, name: str, engine_type: str = "") -> Path:
        make = self.folder / name
        made = write_checkpoint(make) if engine_type else write_engine(make, "1.x")
        engine = read_engine(made, engine_type)
        assemble(Plan(engine, "llama", self.tokenizer, name=name), self.repo)
        return self.repo


@pytest.mark.parametrize("engine_type", ["vllm", "llmapi"])
def test_two_checkpoints_are_loaded_one_after_the_other(place: Place, engine_type: str) -> None:
    assert load_order(place.add("ensemble", engine_type), []) == []
    assert load_order(place.add("qwen", engine_type), []) == ONE


def test_a_checkpoint_waits_for_the_cpp_backend_too(place: Place) -> None:
    place.add("ensemble")
    assert load_order(place.add("qwen", "vllm"), []) == ONE


def test_ranks_of_the_cpp_backend_are_loaded_as_triton_does(place: Place) -> None:
    """In whatever order: each waits for the same model of the other ranks."""
    place.add("ensemble")
    assert load_order(place.add("qwen"), []) == []


@pytest.mark.parametrize("option", ["--model-load-thread-count=3", "--model_load_thread_count"])
def test_a_users_own_word_counts(place: Place, option: str) -> None:
    place.add("ensemble", "vllm")
    assert load_order(place.add("qwen", "vllm"), ["--log-info=0", option]) == []


def test_what_cannot_be_read_is_tritons_to_say(place: Place) -> None:
    place.add("ensemble", "vllm")
    (place.add("qwen", "vllm") / "qwen_tensorrt_llm" / "config.pbtxt").write_text("no { text")
    assert load_order(place.repo, []) == ONE
    (place.repo / "tensorrt_llm" / "config.pbtxt").unlink()
    assert load_order(place.repo, []) == []
