# SPDX-License-Identifier: Apache-2.0
"""What `make repo` made of a repository, and whether its code and wiring are still the same.

Each model of a repository has a manifest: `.trellis.json`, and `.trellis.NAME.json` of a named one.
"""

import filecmp
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trellis
from trellis.contract.model_names import ENSEMBLE, step_of

Wiring = dict[str, Any]
MANIFEST = ".trellis.json"
NAMED = ".trellis.{name}.json"
LATEST = -1  # of a model's versions
PACKAGE = Path(trellis.__file__).resolve().parent
# All of a Python model's 1/model.py: the gateway does what the adapter does, and nothing beside it.
ENTRY = '''# SPDX-License-Identifier: Apache-2.0
"""Loads the adapter of `{model}`: trellis/triton_models/{model}.py in this folder."""

import sys
from pathlib import Path

# The embedded interpreter searches site-packages before this folder: the copy made here wins.
sys.path.insert(0, str(Path(__file__).parent))

from trellis.triton_models.{model} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class MadeModel:
    """A model that `make repo` made: an ensemble that clients ask."""

    name: str  # of the ensemble
    made_at: int  # Unix time in seconds
    lora_adapters: tuple[str, ...] = ()  # their names, as requests give them
    embeds: bool = False  # whether it is no ensemble, and makes vectors of texts


def manifest_name(name: str = ENSEMBLE) -> str:
    """The file name of a model's manifest.

    >>> manifest_name(), manifest_name("qwen")
    ('.trellis.json', '.trellis.qwen.json')
    """
    return MANIFEST if name == ENSEMBLE else NAMED.format(name=name)


def write_manifest(
    folder: Path,
    digests: Mapping[str, str],
    wirings: Mapping[str, Wiring] | None = None,
    name: str = ENSEMBLE,
    lora_adapters: Sequence[str] = (),
    embeds: bool = False,
) -> None:
    """Note the files of a model that was just made, by their paths in its repository.

    `wirings`: of its ensembles, by their names. `name`: of the model. `embeds`: whether it makes
    vectors.
    """
    made = {
        "trellis": trellis.__version__,
        "model": name,
        "made_at": int(time.time()),
        "lora_adapters": list(lora_adapters),
        "embeds": embeds,
        "files": digests,
        "wirings": wirings or {},
    }
    (folder / manifest_name(name)).write_text(json.dumps(made, indent=1, sort_keys=True))


def read_manifest(folder: Path, name: str = ENSEMBLE) -> dict[str, str]:
    """The digests of a model's files, by their paths. Raises OSError if its manifest is missing."""
    data = _read(folder / manifest_name(name))
    files: dict[str, str] = data.get("files", data)  # 0.1.0 wrote nothing but the files
    return files


def made_names(repository: Path) -> list[str]:
    """The names of the models that `make repo` made of a repository; `ensemble` first."""
    before, after = NAMED.format(name="*").split("*")
    named = [
        path.name.removeprefix(before).removesuffix(after)
        for path in sorted(repository.glob(NAMED.format(name="?*")))
    ]
    return [ENSEMBLE, *named] if (repository / MANIFEST).is_file() else named


def model_names(repository: Path) -> list[str]:
    """The models of a repository, by the names of their ensembles; one filled by hand, too."""
    made = made_names(repository)
    embedding = embedding_names(repository)
    names = [name for name in made if name not in embedding]
    by_hand = ENSEMBLE not in made and (repository / ENSEMBLE / "config.pbtxt").is_file()
    return [ENSEMBLE, *names] if by_hand or not made else names


def embedding_names(repository: Path) -> list[str]:
    """The models of a repository that make vectors."""
    return [model.name for model in made_models(repository) if model.embeds]


def made_models(repository: Path) -> list[MadeModel]:
    """The models that `make repo` made of a repository; `ensemble` first, then by name.

    Whether a server has loaded them is Triton's to say. A model whose folder is gone, or whose
    manifest cannot be read, is not among them.
    """
    found = (_made(repository, name) for name in made_names(repository))
    return [model for model in found if model is not None]


def ensembles_of(repository: Path, name: str) -> list[str]:
    """The ensembles that `make repo` made for a model: its own, and those that share its steps."""
    try:
        return sorted(_read(repository / manifest_name(name)).get("wirings", {}))
    except (OSError, ValueError, AttributeError):
        return []


def _made(repository: Path, name: str) -> MadeModel | None:
    file = repository / manifest_name(name)
    try:
        data = _read(file)
        if not (repository / name / "config.pbtxt").is_file():
            return None
        made_at = int(data.get("made_at") or file.stat().st_mtime)  # 0.1.0 did not note it
        adapters = tuple(map(str, data.get("lora_adapters", ())))
        return MadeModel(name, made_at, adapters, data.get("embeds") is True)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def wiring(config: Mapping[str, Any]) -> Wiring:
    """What an ensemble takes, gives and runs, by its configuration in JSON, as JSON.

    The same for a configuration as protobuf writes it and as Triton shows it, which adds defaults.
    """
    steps = config.get("ensemble_scheduling", {}).get("step", [])
    return {
        "max_batch_size": int(config.get("max_batch_size", 0)),
        "input": [_tensor(tensor) for tensor in config.get("input", [])],
        "output": [_tensor(tensor) for tensor in config.get("output", [])],
        "steps": [
            {
                "model": step["model_name"],
                "namespace": step.get("model_namespace", ""),
                "version": int(step.get("model_version", LATEST)),
                "inputs": dict(step.get("input_map", {})),
                "outputs": dict(step.get("output_map", {})),
            }
            for step in steps
        ],
    }


def _tensor(tensor: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": tensor["name"],
        "type": tensor["data_type"],
        "dims": [int(dim) for dim in tensor.get("dims", [])],
        "optional": bool(tensor.get("optional", False)),
    }


def wired_as_made(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether an ensemble of this repository runs as `make repo` wired it.

    `config`: as Triton shows it, so that it is the one that runs, whatever the files say.
    """
    for name in made_names(folder):
        try:
            made = _read(folder / manifest_name(name)).get("wirings", {}).get(config["name"])
        except (OSError, ValueError, AttributeError):
            continue
        if made is not None:
            return bool(made == wiring(config))
    return False


def digests(folder: Path) -> dict[str, str]:
    """The digest of every file of a folder, by its path there; byte code is none of it."""
    return {str(path.relative_to(folder)): digest(path) for path in _files(folder)}


def digest(path: Path) -> str:
    """Of a small file its content; of one above 16 MiB, which is linked, its size and time."""
    kind = "symlink:" if path.is_symlink() else ""
    stat = path.stat()
    if stat.st_size > 1 << 24:
        return f"{kind}{stat.st_size}:{stat.st_mtime_ns}"
    return kind + hashlib.sha256(path.read_bytes()).hexdigest()


def foreign_code(version: Path) -> list[str]:
    """The files of a Python model's version folder that are not this release's code, sorted.

    Changed or added since `make repo`, or of another release. The tokenizer's files, the
    tokenizer_types and the hooks are data here: whoever stands for the model reads them from the
    folder too.
    """
    names = [path.relative_to(version) for path in _files(version)]
    return sorted(
        str(name)
        for name in names
        if name.parts[0] != "tokenizer"
        and name.parts[:2] != ("trellis", "data")
        and not _is_ours(version, name)
    )


def _is_ours(version: Path, name: Path) -> bool:
    file = version / name
    if name == Path("model.py"):
        return file.read_bytes() == ENTRY.format(model=step_of(version.parent.name)).encode()
    own = PACKAGE.parent / name
    return name.parts[0] == PACKAGE.name and own.is_file() and filecmp.cmp(file, own, False)


def _files(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )
