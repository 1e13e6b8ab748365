# SPDX-License-Identifier: Apache-2.0
"""What there is to check: an assembled repository, read as Triton would."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from trellis.engine_files.engine_config import EngineConfig, EngineConfigError, read_engine_config
from trellis.errors import TrellisError
from trellis.repository.model_config import ConfigTextError, parameters, parse_config
from trellis.repository.model_configs import MODELS

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


class RepositoryError(TrellisError, ValueError):
    """A folder that cannot be checked at all; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Repository:
    """The configurations of a repository, and its engine's if it is TensorRT-LLM's own."""

    path: Path
    configs: dict[str, ModelConfig]
    engine: EngineConfig | None
    python: str = sys.executable  # whose packages the models will import

    @property
    def engine_folder(self) -> Path:
        """Where `make repo` put the engine."""
        return self.path / "tensorrt_llm" / "1"

    def parameter(self, model: str, name: str) -> str:
        """A parameter of a model, '' where it has none."""
        return parameters(self.configs[model]).get(name, "")

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """vocab_size, text_vocab_size, end_ids and pad_id of the tokenizer as served.

        And `chat`: QUESTION in the chat form that the tokenizer's files give, if they give one.
        Or `error`, and `missing` if that is a module that the serving interpreter does not have.
        """
        folder = self.path / "preprocessing" / "1"
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


def read_repository(path: Path, python: str = sys.executable) -> Repository:
    """Raises RepositoryError if a model or its configuration is missing or cannot be read."""
    configs = {}
    for model in MODELS:
        file = path / model / "config.pbtxt"
        if not file.is_file():
            raise RepositoryError(f"{file} is missing", "make it with `make repo`")
        try:
            configs[model] = parse_config(file.read_text(encoding="utf-8"), str(file))
        except ConfigTextError as error:
            raise RepositoryError(str(error), "correct that line, or make it again") from error
    engine = None
    if configs["tensorrt_llm"].backend == "tensorrtllm":
        engine = _engine(path / "tensorrt_llm" / "1" / "config.json", configs["preprocessing"])
    return Repository(path, configs, engine, python)


def _engine(file: Path, preprocessing: ModelConfig) -> EngineConfig:
    """The engine's own sizes, as the release that the repository was made for."""
    release = parameters(preprocessing).get("engine", "").removeprefix("TensorRT-LLM ")
    try:
        return read_engine_config(file, release)
    except EngineConfigError as error:
        raise RepositoryError(str(error), "build the engine again, then `make repo`") from error
