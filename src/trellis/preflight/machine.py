# SPDX-License-Identifier: Apache-2.0
"""A Python engine's packages: those that `tensorrt_llm` imports, where the server will look."""

import json
import subprocess

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

# Engine -> module -> package, as pip names it.
PACKAGES = {
    "openvino": {
        "numpy": "numpy",
        "openvino": "openvino",
        "openvino_genai": "openvino-genai",
    },
    "transformers": {
        "numpy": "numpy",
        "torch": "torch",
        "transformers": "transformers",
        "accelerate": "accelerate",
    },
}
IN_A_VENV_OF_ITS_OWN = {
    "transformers": "; or `make setup-torch`, and VENV=.venv-torch from then on"
}
SECONDS = 60
FIND = """
import importlib.util, json, sys
names = json.loads(sys.argv[1])
print(json.dumps([name for name in names if importlib.util.find_spec(name) is None]))
"""


def check_packages(repository: Repository) -> Check:
    """What the engine imports is installed for the interpreter that will serve it."""
    engine = repository.parameter("tensorrt_llm", "engine_type")
    known = PACKAGES.get(engine, {})
    needed = f"{', '.join(known.values())}, which the engine {engine} imports"
    try:
        missing = _missing(repository.python, list(known))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        remedy = "repair that Python: `make clean-venv setup`"
        return Check("packages", f"{repository.python}: {error}", needed, False, remedy)
    if not missing:
        return Check("packages", f"all, for {repository.python}", needed, True)
    packages = [known[module] for module in missing]
    remedy = f"{repository.python} -m pip install {' '.join(packages)}"
    remedy += IN_A_VENV_OF_ITS_OWN.get(engine, "")
    found = f"no {', '.join(packages)} for {repository.python}"
    return Check("packages", found, needed, False, remedy)


def _missing(python: str, modules: list[str]) -> list[str]:
    done = subprocess.run(
        [python, "-c", FIND, json.dumps(modules)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    missing: list[str] = json.loads(done.stdout)
    return missing
