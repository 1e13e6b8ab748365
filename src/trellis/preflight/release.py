# SPDX-License-Identifier: Apache-2.0
"""The release that built the engine against the one that is to run it."""

from trellis.contract.containers import containers_for, image, installed_runtime
from trellis.contract.release import version_numbers
from trellis.engine_files.engine_config import EngineConfig
from trellis.preflight.check import Check


def check_release(engine: EngineConfig) -> Check:
    """Same major, minor and patch: engines are read by the release that built them."""
    fitting = containers_for(engine.version)
    where = f"serve in {image(fitting[0])} (`make serve-docker`)" if fitting else ""
    rebuild = "build the engine again with the release that is here"
    none = f"no container of the table has TensorRT-LLM {engine.version}: {rebuild}"
    runtime = installed_runtime()
    needed = f"TensorRT-LLM {engine.version}, which built the engine"
    if not runtime.version:
        found = f"none known ({runtime.source})" if runtime.source else "no TensorRT-LLM here"
        return Check("release", found, needed, False, where or none)
    found = f"TensorRT-LLM {runtime.version} ({runtime.source})"
    if version_numbers(runtime.version) == version_numbers(engine.version):
        return Check("release", found, needed, True)
    return Check("release", found, needed, False, f"{where}, or {rebuild}" if where else none)
