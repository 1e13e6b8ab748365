"""The engine `llmapi` over the fake of its package, in this process: any release, any behaviour."""

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

from support.paths import ROOT
from trellis.engine_host.engines.async_engine import AsyncEngine, Events
from trellis.engine_host.engines.engine import EngineSettings, Failure, Progress, Sampling

FAKE = ROOT / "tests" / "support" / "fake_tensorrt_llm"
VARIABLE = "FAKE_TENSORRT_LLM"
VERSIONS = ("1.0.0", "1.2.1", "1.4.0rc1")
ADAPTER = "trellis.engine_host.engines.tensorrt_llm"
ADAPTERS = (ADAPTER, f"{ADAPTER}_requests")  # the modules that import the package
WAIT = 10.0
VOCAB_SIZE, EOS = 32000, 2  # of support.fake_engines.write_checkpoint


def import_adapter(monkeypatch: pytest.MonkeyPatch, version: str, **behaviour: Any) -> Any:
    """The adapter's module over the fake of that release, imported once for each."""
    values = {"version": version, "load_seconds": 0.0, **behaviour}
    monkeypatch.setenv(VARIABLE, json.dumps(values))
    monkeypatch.syspath_prepend(str(FAKE))
    for name in _ours():
        monkeypatch.delitem(sys.modules, name)
    for name, module in _IMPORTED.get(version, {}).items():
        monkeypatch.setitem(sys.modules, name, module)
    adapter = importlib.import_module(ADAPTER)
    _IMPORTED[version] = {name: sys.modules[name] for name in _ours()}
    return adapter


_IMPORTED: dict[str, dict[str, ModuleType]] = {}  # by release


def _ours() -> list[str]:
    """The modules of the fake and of what imports it."""
    return [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"] + [
        name for name in ADAPTERS if name in sys.modules
    ]


def toy_model() -> Any:
    """The model behind the fake; an adapter must be imported."""
    return importlib.import_module("tensorrt_llm.toy_model")


class Loaded:
    """An engine over the fake, and what it died of."""

    def __init__(self, adapter: Any, folder: Path, **settings: Any) -> None:
        made = EngineSettings(folder, max_batch_size=8, max_seq_len=2048)
        self.adapter = adapter
        self.library = adapter.TensorRtLlmLibrary(replace(made, **settings))
        self.deaths: list[str] = []
        self.engine = AsyncEngine(self.library, self.deaths.append)
        self._keys = iter(range(1, 1000))
        self._closed = False

    def add(self, ids: list[int], **sampling: Any) -> int:
        """Queue a prompt; its key."""
        key = next(self._keys)
        given: dict[str, Any] = {"max_tokens": 12, "end_id": EOS} | sampling
        self.engine.add(key, np.array(ids, np.int64), Sampling(**given))
        return key

    def run(self) -> Events:
        """All that comes until nothing runs, or the library died."""
        events: Events = []
        end = time.monotonic() + WAIT
        while self.engine.busy and not self.deaths:
            assert time.monotonic() < end, events
            events += self.engine.step()
        return events

    def ask(self, ids: list[int], **sampling: Any) -> list[int]:
        """The ids of one answer of one sequence, without what ended it."""
        key = self.add(ids, **sampling)
        return ids_of(self.run(), key)

    def workers(self) -> list[psutil.Process]:
        """The fake's processes."""
        return [psutil.Process(worker.process) for worker in self.library._workers]

    def close(self) -> None:
        """End it, whatever became of it; once."""
        if self._closed:
            return
        self._closed = True
        workers = self.workers_left()
        self.engine.close()
        for process in workers:
            if process.is_running():
                process.kill()

    def workers_left(self) -> list[psutil.Process]:
        """Those that are still there."""
        numbers = [worker.process for worker in self.library._workers]
        return [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]


Load = Callable[..., Loaded]


def ids_of(events: Events, key: int, sequence: int = 0) -> list[int]:
    """What a sequence got, up to the end id."""
    failures = [event for event in events if isinstance(event, Failure) and event.key == key]
    assert failures == []
    made = [token for event in of(events, key, sequence) for token in event.ids]
    return made[: made.index(EOS)] if EOS in made else made


def of(events: Events, key: int, sequence: int = 0) -> list[Progress]:
    """The news of one sequence."""
    mine = [event for event in events if isinstance(event, Progress) and event.key == key]
    return [event for event in mine if event.sequence == sequence]


def failures(events: Events) -> dict[int, str]:
    """The errors, by key."""
    return {event.key: event.message for event in events if isinstance(event, Failure)}
