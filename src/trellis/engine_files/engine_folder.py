# SPDX-License-Identifier: Apache-2.0
"""What is in an engine folder, read from its files instead of asked.

`config.json` and `*.engine` are TensorRT-LLM's, `config.json` and `*.safetensors` are a checkpoint,
which the engines of `CHECKPOINT_ENGINES` serve, `*.gguf` or OpenVINO IR are OpenVINO's. Which of
two engines a checkpoint gets depends on what is installed for this Python.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from trellis.contract.containers import INSTALLED, containers_for, image, installed_runtime
from trellis.contract.release import LAST_WITH_ENGINES, has_engines, release_for, version_numbers
from trellis.engine_files.checkpoint import (
    CheckpointError,
    TextConfig,
    looks_like_checkpoint,
    read_checkpoint,
)
from trellis.engine_files.engine_config import (
    EngineConfig,
    looks_like_trtllm,
    missing_ranks,
    rank_files,
    read_engine_config,
)
from trellis.engine_files.json_form import read_form
from trellis.engine_files.openvino_ir import MODEL, makes_embeddings, read_pooling
from trellis.errors import TrellisError
from trellis.files import read_json

# The releases whose config.json does not say which of them wrote it.
UNNAMED = ("0.5.", "0.6.", "0.7.")
CHECKPOINT_ENGINES = ("vllm", "llmapi")
ENGINE_TYPES = ("tensorrtllm", "openvino", *CHECKPOINT_ENGINES)
LLM_API_SINCE = (1, 0)  # TensorRT-LLM's first release whose LLM API is served
# What TensorRT-LLM's builder calls the halves of an encoder-decoder model.
HALVES = ("EncoderModel", "DecoderModel", "WhisperEncoder")


class EngineFolderError(TrellisError, ValueError):
    """A folder that no engine can be served from; the message says what is missing."""


@dataclass(frozen=True)
class EngineFolder:
    """An engine: its type, its files and the sizes that its own metadata gives."""

    path: Path
    engine_type: str
    files: tuple[Path, ...]
    max_seq_len: int | None = None
    vocab_size: int | None = None
    trtllm: EngineConfig | None = None
    notes: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()  # ids that end an answer, of a file that names several
    embeds: bool = False  # whether it makes vectors of texts, and no text
    pooling: str = ""  # of one that does: mean, cls or last; "" where its files do not say

    @property
    def max_input_len(self) -> int | None:
        """Longest prompt in tokens, if the engine says: one token less than its context."""
        if self.trtllm is not None:
            return self.trtllm.max_input_len
        return self.max_seq_len - 1 if self.max_seq_len else None


def read_engine(path: Path, backend: str = "", release: str = "") -> EngineFolder:
    """Find out what `path` holds.

    `backend` and `release` (of TensorRT-LLM) override what is found. Raises EngineFolderError with
    what was looked for, EngineConfigError for a config.json that cannot be used.
    """
    if not path.is_dir():
        raise EngineFolderError(f"ENGINE={path}: no such folder")
    if halves := _encoder_decoder(path):
        raise EngineFolderError(_no_encoder_decoder(path, halves))
    engine_type = backend or _detect(path)
    if engine_type not in ENGINE_TYPES:
        known = ", ".join(ENGINE_TYPES)
        raise EngineFolderError(f"BACKEND={engine_type}: not known; known: {known}")
    if engine_type == "tensorrtllm":
        return _trtllm(path, release)
    if release:
        raise EngineFolderError(f"TRTLLM={release}: ENGINE={path} is no engine of TensorRT-LLM")
    if engine_type in CHECKPOINT_ENGINES:
        return _checkpoint(path, engine_type, chosen=bool(backend))
    files = tuple(sorted(file for file in path.iterdir() if file.is_file()))
    if any(path.glob("*.gguf")):
        return _gguf(path, files)
    return _openvino_ir(path, files)


def _encoder_decoder(path: Path) -> str:
    """What shows that a folder holds an encoder-decoder model (T5, BART, Whisper); '' if nothing.

    Files that cannot be read show nothing: whoever reads them says why.
    """
    if all((path / half / "config.json").is_file() for half in ("encoder", "decoder")):
        return "it holds encoder/ and decoder/"
    if (path / "openvino_encoder_model.xml").is_file():
        return "it holds openvino_encoder_model.xml"
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError):
        return ""
    if config.get("is_encoder_decoder") is True:
        return "config.json says is_encoder_decoder"
    for section in ("pretrained_config", "builder_config"):
        values = config.get(section)
        if not isinstance(values, dict):
            continue
        if values.get("architecture") in HALVES:
            return f"config.json says {section}.architecture {values['architecture']}"
        if values.get("cross_attention") is True:
            return f"config.json says {section}.cross_attention"
    return ""


def _no_encoder_decoder(path: Path, why: str) -> str:
    return (
        f"ENGINE={path}: an encoder-decoder model ({why}), which is not served: its prompt goes to"
        " the encoder and decoder_text_input to the decoder, and no engine here is given both;"
        " take a decoder-only model, or NVIDIA's own repository for this one"
    )


def _detect(path: Path) -> str:
    if any(path.glob("*.gguf")) or any(path.glob("*openvino*model*.xml")):
        return "openvino"
    config = path / "config.json"
    if any(path.glob("*.engine")) or (config.is_file() and looks_like_trtllm(config)):
        return "tensorrtllm"
    if looks_like_checkpoint(path):
        return checkpoint_engine()
    raise EngineFolderError(
        f"ENGINE={path}: found no engine; looked for config.json with *.engine or *.safetensors,"
        " *.gguf and openvino_model.xml"
    )


def checkpoint_engine() -> str:
    """What serves a checkpoint: the LLM API where TensorRT-LLM is installed, else vLLM."""
    here = installed_runtime()
    known = here.source == INSTALLED and version_numbers(here.version) >= LLM_API_SINCE
    return "llmapi" if known else "vllm"


def _no_library() -> tuple[str, ...]:
    """What to say where vLLM was taken and is not installed."""
    if importlib.util.find_spec("vllm") is not None:
        return ()
    return (
        "a checkpoint is served by vLLM, which is not installed for this Python: `make setup-vllm`"
        " installs it, VENV=.venv-vllm uses it; BACKEND=llmapi is for NVIDIA's container with"
        " TensorRT-LLM",
    )


def _checkpoint(path: Path, engine_type: str, chosen: bool) -> EngineFolder:
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise EngineFolderError(f"ENGINE={error}") from error
    return EngineFolder(
        path=path,
        engine_type=engine_type,
        files=checkpoint.files,
        max_seq_len=checkpoint.config.max_position_embeddings,
        vocab_size=checkpoint.config.vocab_size,
        notes=() if chosen or engine_type != "vllm" else _no_library(),
    )


def _trtllm(path: Path, release: str) -> EngineFolder:
    config_file = path / "config.json"
    if not config_file.is_file():
        raise EngineFolderError(f"ENGINE={path}: *.engine without config.json; copy it from there")
    config = read_engine_config(config_file, release)
    here = installed_runtime().version
    if not config.version_named and here.startswith(UNNAMED):
        config = read_engine_config(config_file, here)  # it can only serve engines of its own
    contract = release_for(config.version)
    if not has_engines(config.version):
        raise EngineFolderError(_no_engines(path, config.version, release))
    missing = missing_ranks(path, config.world_size, config.tensor_parallel)
    if missing:
        raise EngineFolderError(
            f"ENGINE={path}: no engine file for rank {', '.join(map(str, missing[:8]))} of"
            f" {config.world_size} (TP {config.tensor_parallel} x PP {config.pipeline_parallel})"
        )
    ranks = rank_files(path, config.tensor_parallel)
    weights = sorted(path.glob("rank*_managed_weights*"))
    files = [config_file, *(ranks[rank] for rank in range(config.world_size)), *weights]
    return EngineFolder(
        path=path,
        engine_type="tensorrtllm",
        files=tuple(files),
        max_seq_len=config.max_seq_len,
        vocab_size=config.vocab_size,
        trtllm=config,
        notes=tuple(_notes(config, contract)),
    )


def _no_engines(path: Path, version: str, given: str) -> str:
    """Why a release of the LLM API alone serves no engine files, and the two ways on."""
    named = f"TRTLLM={given}" if given else f"ENGINE={path}: config.json names {version}"
    newest = containers_for(LAST_WITH_ENGINES)[0]
    return (
        f"{named}: TensorRT-LLM has no engine files and no C++ backend from 1.3.0rc21 on. Build the"
        f" engine with {LAST_WITH_ENGINES} or older and serve it in a container up to {newest}"
        f" ({image(newest)}), or serve the checkpoint that it was built from with the LLM API:"
        " ENGINE=<checkpoint> BACKEND=llmapi"
    )


def _notes(config: EngineConfig, contract: str) -> list[str]:
    """What the reader took for granted, and a user may know better."""
    notes = []
    if not config.version_named:
        notes.append(
            f"config.json does not name its TensorRT-LLM release; its keys look like"
            f" {config.version}: set TRTLLM= if it is another"
        )
    if config.version.split(".")[:2] != contract.split(".")[:2] and contract != "1.x":
        notes.append(
            f"no contract of TensorRT-LLM {config.version} is known; took that of {contract}"
        )
    return notes


def _gguf(path: Path, files: tuple[Path, ...]) -> EngineFolder:
    models = [file for file in files if file.suffix == ".gguf"]
    if len(models) > 1:
        names = ", ".join(file.name for file in models)
        raise EngineFolderError(f"ENGINE={path}: more than one GGUF file ({names}); keep one")
    from trellis.engine_files.gguf import read_gguf

    metadata = read_gguf(models[0])
    if metadata.architecture.startswith("t5"):
        why = f"{models[0].name} says general.architecture {metadata.architecture}"
        raise EngineFolderError(_no_encoder_decoder(path, why))
    return EngineFolder(
        path=path,
        engine_type="openvino",
        files=(models[0],),
        max_seq_len=metadata.context_length,
        vocab_size=len(metadata.tokens),
        end_ids=metadata.end_ids,
    )


def _openvino_ir(path: Path, files: tuple[Path, ...]) -> EngineFolder:
    if not any(path.glob("*openvino*model*.xml")):
        raise EngineFolderError(f"ENGINE={path}: found no *.gguf and no openvino_model.xml")
    file = path / "config.json"
    try:
        config = read_form(file, TextConfig, read_json(file) if file.exists() else {})
        embeds = (path / MODEL).is_file() and makes_embeddings(path)
    except (OSError, ValueError) as error:
        raise EngineFolderError(f"ENGINE={error}") from error
    return EngineFolder(
        path=path,
        engine_type="openvino",
        files=files,
        max_seq_len=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        embeds=embeds,
        pooling=read_pooling(path) if embeds else "",
    )
