"""What is asked of a library in the Python that will serve; here in this one, over fakes.

`tests/vllm_engine/test_preflight.py` asks the real vLLM.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.fake_engines import write_checkpoint
from support.fake_library import import_adapter
from trellis.preflight import library_probe


def probe(
    monkeypatch: pytest.MonkeyPatch, kind: str, folder: Path, values: dict[str, Any] | None = None
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["-c", kind, str(folder), json.dumps(values or {})])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return library_probe.main()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def test_the_llm_api_says_its_release_and_architectures(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    import_adapter(monkeypatch, "1.2.1")
    found = probe(monkeypatch, "llmapi", folder, {"max_batch_size": 4, "not of ours": 1})
    assert found["version"] == "1.2.1"
    assert "LlamaForCausalLM" in found["architectures"]
    assert "error" not in found


def test_an_argument_that_the_llm_api_lacks_is_its_error(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    import_adapter(monkeypatch, "1.2.1")
    (folder / "engine.yaml").write_text("max_num_tokenz: 4\n")
    found = probe(monkeypatch, "llmapi", folder, {"max_batch_size": 4})
    assert "did you mean max_num_tokens?" in found["error"]


def test_a_library_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "trellis.engine_host.engines.vllm", None)  # import fails
    assert "trellis.engine_host.engines.vllm" in probe(monkeypatch, "vllm", folder)["error"]


class Registry:
    @staticmethod
    def get_supported_archs() -> set[str]:
        return {"LlamaForCausalLM", "OPTForCausalLM"}


@pytest.mark.parametrize(
    ("architecture", "compatible", "fallback"),
    [
        ("LlamaForCausalLM", False, False),
        ("MadeUpForCausalLM", True, True),
        ("MadeUpForCausalLM", False, False),
        ("NobodyHasIt", True, False),
    ],
)
def test_vllm_may_run_the_code_of_transformers(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    architecture: str,
    compatible: bool,
    fallback: bool,
) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(config))
    adapter = SimpleNamespace(engine_arguments=lambda settings: settings)
    made_up = SimpleNamespace(is_backend_compatible=lambda: compatible)
    fakes = {
        "vllm": SimpleNamespace(__version__="0.32.0", ModelRegistry=Registry),
        "trellis.engine_host.engines.vllm": adapter,
        "transformers": SimpleNamespace(MadeUpForCausalLM=made_up),
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert probe(monkeypatch, "vllm", folder, {"max_batch_size": 1}) == {
        "version": "0.32.0",
        "architectures": ["LlamaForCausalLM", "OPTForCausalLM"],
        "fallback": fallback,
    }


def test_a_list_that_is_elsewhere_now_is_left_out(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    adapter = SimpleNamespace(engine_arguments=lambda settings: 1 / 0)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="9.0"))
    monkeypatch.setitem(sys.modules, "trellis.engine_host.engines.vllm", adapter)
    found = probe(monkeypatch, "vllm", folder, {"max_batch_size": 1})
    assert found == {"version": "9.0", "error": "division by zero"}
