# SPDX-License-Identifier: Apache-2.0
"""What deploy/Dockerfile installs is all that the launcher and the gateway import."""

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from support.paths import ROOT

# Beside the image's, as NVIDIA's containers have it.
CONTAINERS_OWN = {"numpy"}
MODULES = (
    "trellis.cli.main",
    "trellis.cli.launch",
    "trellis.cli.check",
    "trellis.gateway.__main__",
    "trellis.gateway.parse_worker",
    "trellis.ranks.run",
    "trellis.engine_host.engines.async_engine",
)
IMPORT = """
import importlib, importlib.abc, importlib.metadata, sys
allowed, modules = set(sys.argv[1].split(",")), sys.argv[2].split(",")
packages = importlib.metadata.packages_distributions()
class Container(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        owners = packages.get(name.partition(".")[0])
        if owners is None or "trellis-llm" in owners:
            return None  # the standard library's, and ours
        if not {owner.lower().replace("_", "-") for owner in owners} & allowed:
            raise ModuleNotFoundError(f"{name} is not in the container", name=name)
        return None
sys.meta_path.insert(0, Container())
for module in modules:
    importlib.import_module(module)
print("imported")
"""


def normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def needs(
    package: str, extras: frozenset[str] = frozenset()
) -> Iterator[tuple[str, frozenset[str]]]:
    """What a package requires here, with those extras, and the extras asked of that."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield normalised(requirement.name), frozenset(requirement.extras)


def listed(name: str) -> Iterator[str]:
    """A list of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    body = text.partition(f"\n{name} = [\n")[2].partition("\n]")[0]
    return (match[1] for match in re.finditer(r'^ *"(.+?)",', body, re.MULTILINE))


def installed() -> set[str]:
    """All that `pip install trellis-llm[container]` brings."""
    found: dict[str, frozenset[str]] = {}
    ours = [Requirement(line) for name in ("dependencies", "container") for line in listed(name)]
    assert len(ours) > 12
    waiting = [(normalised(one.name), frozenset(one.extras)) for one in ours]
    while waiting:
        name, extras = waiting.pop()
        if not extras - found.get(name, frozenset()) and name in found:
            continue
        found[name] = found.get(name, frozenset()) | extras
        waiting += needs(name, found[name])
    return set(found)


def test_the_launcher_and_the_gateway_start_with_what_the_image_has() -> None:
    allowed = ",".join(installed() | CONTAINERS_OWN)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, allowed, ",".join(MODULES)], capture_output=True, text=True
    )
    assert done.stdout == "imported\n", done.stderr[-600:]


def test_what_the_image_lacks_would_be_noticed() -> None:
    allowed = ",".join((installed() | CONTAINERS_OWN) - {"uvicorn"})
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, allowed, ",".join(MODULES)], capture_output=True, text=True
    )
    assert "uvicorn is not in the container" in done.stderr
