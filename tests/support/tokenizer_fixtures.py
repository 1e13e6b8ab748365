"""What the tokenizer tests share: the corpus, and folders with real vocabularies."""

import pytest

from support import tokenizer_corpus
from support.tokenizer_folders import Folders, Loaded


@pytest.fixture(scope="session")
def corpus_lines() -> list[str]:
    lines = tokenizer_corpus.lines()
    assert len(lines) >= 5_000
    return lines


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """folders["llama"]: a tokenizer_dir with that vocabulary."""
    return Folders(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def loaded(folders: Folders) -> Loaded:
    """loaded["llama"]: that folder's tokenizer with default options."""
    return Loaded(folders)
