# SPDX-License-Identifier: Apache-2.0
"""The repository: read as Triton would, its configuration, and its files as `make repo` put them.

A placeholder that was never filled in reaches the engine as literal text. A large file that was cut
short is what a library answers with a crash instead of a message. The C++ backend takes an absolute
path, `gpt_model_path`, so a repository has to be there.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from trellis.contract.model_names import ENSEMBLE, MODELS, served_as
from trellis.engine_files.engine_config import EngineConfig, EngineConfigError, read_engine_config
from trellis.errors import TrellisError
from trellis.preflight.check import Check
from trellis.repository.manifest import manifest_name, read_manifest
from trellis.repository.model_config import ConfigTextError, parameters, parse_config

TOKENIZER_SECONDS = 120
QUESTION = "What is the capital of France?"
# Run with the files that will be served, so that a tokenizer_type of the user's own is there too.
LOAD_TOKENIZER = """
import json, sys
from pathlib import Path
folder, config = Path(sys.argv[1]), json.loads(sys.argv[2])
sys.path.insert(0, str(folder))
from trellis.pipeline.model_settings import ModelSettings, load_tokenizer
settings = ModelSettings("preprocessing", folder, config, {}, 1)
try:
    tokenizer = load_tokenizer(settings)
    names = ("vocab_size", "text_vocab_size", "end_ids", "pad_id")
    facts = {name: getattr(tokenizer, name) for name in names}
    if tokenizer.chat is not None:
        facts["chat"] = tokenizer.chat_prompt([{"role": "user", "content": sys.argv[3]}])
except Exception as error:
    facts = {"error": f"{error}"}
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            facts["missing"] = error.name or ""
        error = error.__cause__
print(json.dumps(facts))
"""
# Parameters of `tensorrt_llm` that other checks calculate with.
NUMBERS: dict[str, type] = {
    "kv_cache_free_gpu_mem_fraction": float,
    "max_tokens_in_paged_kv_cache": int,
}
SIZE = re.compile(r"(?:symlink:)?(\d+):\d+")  # how the manifest notes what is too large to hash


class RepositoryError(TrellisError, ValueError):
    """A folder that cannot be checked at all; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Repository:
    """The configurations of a repository's model, and its engine's if it is TensorRT-LLM's own.

    They are known by the parts of the model, whatever its name is.
    """

    path: Path
    configs: dict[str, ModelConfig]
    engine: EngineConfig | None
    python: str = sys.executable  # whose packages the models will import
    name: str = ENSEMBLE  # of the model

    @property
    def engine_folder(self) -> Path:
        """Where `make repo` put the engine."""
        return self.version("tensorrt_llm")

    def version(self, model: str) -> Path:
        """The version folder of a part."""
        return self.path / served_as(model, self.name) / "1"

    def parameter(self, model: str, name: str) -> str:
        """A parameter of a part, '' where it has none."""
        return parameters(self.configs[model]).get(name, "")

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """vocab_size, text_vocab_size, end_ids and pad_id of the tokenizer as served.

        And `chat`: QUESTION in the chat form that the tokenizer's files give, if they give one.
        Or `error`, and `missing` if that is a module that the serving interpreter does not have.
        """
        folder = self.version("preprocessing")
        texts = json.dumps(parameters(self.configs["preprocessing"]))
        try:
            done = subprocess.run(
                [self.python, "-B", "-c", LOAD_TOKENIZER, str(folder), texts, QUESTION],
                capture_output=True,
                text=True,
                timeout=TOKENIZER_SECONDS,
                check=True,
            )
            facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or [f"ended with status {error.returncode}"]
            return {"error": lines[-1]}
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            return {"error": f"{error}"}
        return facts


def read_repository(path: Path, python: str = sys.executable, name: str = ENSEMBLE) -> Repository:
    """A model of a repository.

    Raises RepositoryError if a part or its configuration is missing or cannot be read.
    """
    configs = {}
    for model in MODELS:
        file = path / served_as(model, name) / "config.pbtxt"
        if not file.is_file():
            raise RepositoryError(f"{file} is missing", "make it with `make repo`")
        try:
            configs[model] = parse_config(file.read_text(encoding="utf-8"), str(file))
        except ConfigTextError as error:
            raise RepositoryError(str(error), "correct that line, or make it again") from error
    engine = None
    if configs["tensorrt_llm"].backend == "tensorrtllm":
        file = path / served_as("tensorrt_llm", name) / "1" / "config.json"
        engine = _engine(file, configs["preprocessing"])
    return Repository(path, configs, engine, python, name)


def _engine(file: Path, preprocessing: ModelConfig) -> EngineConfig:
    """The engine's own sizes, as the release that the repository was made for."""
    release = parameters(preprocessing).get("engine", "").removeprefix("TensorRT-LLM ")
    try:
        return read_engine_config(file, release)
    except EngineConfigError as error:
        raise RepositoryError(str(error), "build the engine again, then `make repo`") from error


def _is(kind: type, value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def check_configuration(repository: Repository) -> Check:
    """No `${...}` in any configuration, and one instance of `postprocessing`."""
    left = [
        f"{model}: {name}"
        for model, config in repository.configs.items()
        for name in re.findall(r"\$\{\w+\}", str(config))
    ]
    if left:
        return Check(
            "configuration",
            ", ".join(left),
            "no ${...} left",
            False,
            "fill it with tools/fill_template.py, or `make repo`",
        )
    wrong = [
        f"{key}: {value!r}"
        for key, kind in NUMBERS.items()
        if (value := repository.parameter("tensorrt_llm", key)) and not _is(kind, value)
    ]
    if wrong:
        return Check(
            "configuration",
            ", ".join(wrong),
            "numbers",
            False,
            "correct them in tensorrt_llm/config.pbtxt, or `make repo SET=...`",
        )
    instances = sum(max(g.count, 1) for g in repository.configs["postprocessing"].instance_group)
    if instances > 1:
        return Check(
            "configuration",
            f"postprocessing: {instances} instances",
            "one, since the state of streams lives in its process",
            False,
            "set instance_group's count to 1 in postprocessing/config.pbtxt",
        )
    return Check("configuration", f"{len(repository.configs)} models", "no ${...} left", True)


def check_large_files(repository: Repository) -> Iterator[Check]:
    """One failing check for each that has another size, or one good one for all."""
    if not (repository.path / manifest_name(repository.name)).is_file():
        return  # filled by hand: nothing is known of its files
    sizes = {
        name: int(match[1])
        for name, noted in read_manifest(repository.path, repository.name).items()
        if (match := SIZE.fullmatch(noted))
    }
    wrong = False
    for name, size in sizes.items():
        file = repository.path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            wrong = True
            yield Check(
                "large files",
                f"{name}: {'missing' if found is None else f'{found} bytes'}",
                f"{size} bytes, as it was made",
                False,
                "copy the repository again, or `make repo`",
            )
    if sizes and not wrong:
        yield Check("large files", f"{len(sizes)}, whole", "their sizes as made", True)


def check_engine_path(repository: Repository) -> Check:
    """The path in the configuration is this repository's engine."""
    path = repository.parameter("tensorrt_llm", "gpt_model_path")
    needed = "the absolute path of the engine here"
    if Path(path).is_absolute() and (Path(path) / "config.json").is_file():
        return Check("engine path", path, needed, True)
    return Check(
        "engine path",
        f"{path}: no engine there",
        needed,
        False,
        "serve from where it was made for (`make serve-docker` mounts it), or `make repo MOUNT=`",
    )
