# SPDX-License-Identifier: Apache-2.0
"""What an engine's library says of itself, asked in the Python that will serve.

Run as a program there, not imported: `python -c TEXT ENGINE_TYPE FOLDER VALUES`, where FOLDER is
the version folder of `tensorrt_llm`, whose copy of `trellis` is used. The last line that it prints
is a JSON object. Importing either library takes seconds to minutes.
"""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

ADAPTERS = {"vllm": "vllm", "llmapi": "tensorrt_llm"}  # modules of trellis.engine_host.engines


def main() -> dict[str, Any]:
    """`version`; `architectures`, and `fallback` if vLLM can run transformers' code; `error`."""
    kind, folder, values = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    sys.path.insert(0, str(folder))
    try:
        adapter = importlib.import_module(f"trellis.engine_host.engines.{ADAPTERS[kind]}")
    except ImportError as error:
        return {"error": f"{error}"}
    facts: dict[str, Any] = {"version": importlib.import_module(ADAPTERS[kind]).__version__}
    facts |= _architectures(kind, folder)
    try:
        adapter.engine_arguments(_settings(folder, values))
    except Exception as error:
        facts["error"] = f"{error}".strip().partition("\n")[0] or type(error).__name__
    return facts


def _settings(folder: Path, values: dict[str, Any]) -> Any:
    """EngineSettings of those values that it has, so that this file need not list them."""
    from trellis.engine_host.engines.engine import EngineSettings

    known = {field.name for field in dataclasses.fields(EngineSettings)}
    given = {name: value for name, value in values.items() if name in known}
    return EngineSettings(path=folder, **given)


def _architectures(kind: str, folder: Path) -> dict[str, Any]:
    """Those that the library has; nothing where the list is not where it was."""
    try:
        if kind == "llmapi":
            importlib.import_module("tensorrt_llm._torch.models")  # each registers itself
            models = importlib.import_module("tensorrt_llm._torch.models.modeling_utils")
            return {"architectures": sorted(models.MODEL_CLASS_MAPPING)}
        registry = importlib.import_module("vllm").ModelRegistry
        names = sorted(registry.get_supported_archs())
        return {"architectures": names, "fallback": _fallback(folder, names)}
    except (ImportError, AttributeError):
        return {}


def _fallback(folder: Path, names: list[str]) -> bool:
    """Whether vLLM would run the library transformers' own code for a model that it lacks."""
    wanted = json.loads((folder / "config.json").read_text()).get("architectures") or []
    if not wanted or any(name in names for name in wanted):
        return False
    model = getattr(importlib.import_module("transformers"), str(wanted[0]), None)
    return bool(getattr(model, "is_backend_compatible", bool)())


if __name__ == "__main__":
    print()
    print(json.dumps(main()))
