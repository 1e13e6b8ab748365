"""The engine `llmapi` over its fake: `llm_api("1.2.1", step_seconds=0.01)`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_engines import write_checkpoint
from support.fake_library import Load, Loaded, import_adapter


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with config.json and one weight."""
    return write_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def llm_api(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Iterator[Load]:
    """Loads the engine over the fake of a release; ended after the test."""
    loaded: list[Loaded] = []

    def load(version: str, settings: dict[str, Any] | None = None, **behaviour: Any) -> Loaded:
        adapter = import_adapter(monkeypatch, version, **behaviour)
        loaded.append(Loaded(adapter, checkpoint, **(settings or {})))
        return loaded[-1]

    yield load
    for each in loaded:
        each.close()
