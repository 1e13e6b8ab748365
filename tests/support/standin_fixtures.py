"""Fixtures of the stand-in backend: the compiled library, and a tokenizer for what it says."""

import os
import shutil
from pathlib import Path

import pytest

from support.standin import build_standin
from support.tokenizer_folders import Folders
from trellis.tokenizers import Tokenizer, load


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral's v1 SentencePiece model, of Llama-2's kind: 32,000 ids."""
    return Folders(tmp_path_factory.mktemp("tokenizers"))["llama"]


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Tokenizer:
    """The tokenizer of that folder."""
    return load("llama", llama_folder)


@pytest.fixture(scope="session")
def standin_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, compiled."""
    if shutil.which(os.environ.get("CC", "gcc")) is None:
        pytest.skip("the stand-in backend needs a C compiler: no gcc on PATH")
    return build_standin(tmp_path_factory.mktemp("backends"))
