# SPDX-License-Identifier: Apache-2.0
"""The tensor contract of one TensorRT-LLM release: what its Triton backend takes and returns.

The data in `releases/` was read from the releases' public config.pbtxt files; `1.x.json` stands
for every release from 1.0 on that has engines (`has_engines`).

>>> release_for("0.9.0")
'0.9.0'
>>> release_for("1.2.0rc4")
'1.x'
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.errors import TrellisError

FOLDER = Path(__file__).parent / "releases"
NEWEST = "1.x"
LAST_WITH_ENGINES = "1.2.1"  # of the stable releases
FINAL = 1_000_000  # in the place of a release candidate's number


class ReleaseError(TrellisError, ValueError):
    """A TensorRT-LLM release without a contract; the message lists those that have one."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the contract. `dtype` may be a placeholder: `${logits_datatype}`."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    ragged: bool = False


@dataclass(frozen=True)
class Contract:
    """The `tensorrt_llm` model of one release, and what its ensemble shows to clients."""

    release: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: tuple[str, ...]
    placeholders: frozenset[str]
    client_outputs: frozenset[str]
    client_types: Mapping[str, str]  # of the ensemble's inputs, by name

    def input(self, *names: str) -> TensorSpec | None:
        """The first of these inputs that the release has."""
        return next((spec for name in names for spec in self.inputs if spec.name == name), None)

    def has_output(self, name: str) -> bool:
        """Whether the engine returns a tensor of that name."""
        return any(spec.name == name for spec in self.outputs)


def releases() -> list[str]:
    """Every release with a contract, oldest first: 0.5.0 ... 1.x."""
    names = [path.stem for path in FOLDER.glob("*.json") if path.stem != NEWEST]
    return [*sorted(names, key=version_numbers), NEWEST]


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `0.17.0.post1` -> (0, 17, 0), `1.2.0rc4` -> (1, 2, 0)."""
    match = re.match(r"(\d{1,4})\.(\d{1,4}|x)(?:\.(\d{1,4}))?", version)
    if match is None:
        raise ReleaseError(
            f"{version[:64]!r} is no TensorRT-LLM release; known: {', '.join(releases())}"
        )
    return tuple(int(part) for part in match.groups() if part and part != "x")


def release_order(version: str) -> tuple[int, ...]:
    """A version to compare with others, candidates before their final release.

    >>> release_order("1.3.0rc21") < release_order("1.3.0rc21.post1") < release_order("1.3.0")
    True
    """
    numbers = (*version_numbers(version), 0, 0)[:3]
    candidate = re.search(r"rc(\d+)", version)
    post = re.search(r"post(\d+)", version)
    return (
        *numbers,
        int(candidate.group(1)) if candidate else FINAL,
        int(post.group(1)) if post else -1,
    )


def has_engines(version: str) -> bool:
    """Whether a release builds engine files, and has the C++ backend that serves them.

    >>> has_engines("1.2.1"), has_engines("1.3.0rc20"), has_engines("1.3.0rc21")
    (True, True, False)
    """
    return release_order(version) < release_order("1.3.0rc21")


def release_for(version: str) -> str:
    """The contract that fits a version: the newest that is not newer in major and minor.

    0.18.0 -> 0.18.2, 0.20.0 -> 0.19.0. Raises ReleaseError for what is older than the first
    contract or newer than 1.
    """
    wanted = version_numbers(version)[:2]
    if wanted[0] == 1:
        return NEWEST
    fitting = [name for name in releases()[:-1] if version_numbers(name)[:2] <= wanted]
    if not fitting or wanted[0] > 1:
        raise ReleaseError(
            f"TensorRT-LLM {version} is not supported; known: {', '.join(releases())}"
        )
    return fitting[-1]


@functools.cache
def read_contract(release: str) -> Contract:
    """The contract of a release that `releases()` lists."""
    data: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text())
    model = data["tensorrt_llm"]
    return Contract(
        release=release,
        inputs=tuple(map(_tensor, model["inputs"])),
        outputs=tuple(map(_tensor, model["outputs"])),
        parameters=tuple(model["parameters"]),
        placeholders=frozenset(model["placeholders"]),
        client_outputs=frozenset(tensor["name"] for tensor in data["ensemble"]["outputs"]),
        client_types={tensor["name"]: tensor["dtype"] for tensor in data["ensemble"]["inputs"]},
    )


@functools.cache
def template_keys(model: str) -> frozenset[str]:
    """The placeholders that some release's template of a model has; none for other names."""
    keys: set[str] = set()
    for release in releases():
        data = json.loads((FOLDER / f"{release}.json").read_text())
        keys.update(data.get(model, {}).get("placeholders", ()))
    return frozenset(keys)


def _tensor(entry: dict[str, Any]) -> TensorSpec:
    reshape = entry.get("reshape")
    return TensorSpec(
        name=entry["name"],
        dtype=entry["dtype"],
        dims=tuple(entry["dims"]),
        reshape=None if reshape is None else tuple(reshape),
        optional=bool(entry.get("optional")),
        ragged=bool(entry.get("allow_ragged_batch")),
    )
