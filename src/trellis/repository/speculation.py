# SPDX-License-Identifier: Apache-2.0
"""`SET=prompt_lookup:N`, `SET=draft_engine:folder`: checked, and where the draft comes to lie."""

from collections.abc import Mapping
from pathlib import Path

from trellis.engine_files.engine_folder import EngineFolder, EngineFolderError, read_engine
from trellis.engine_files.openvino_ir import MODEL, TOKENIZER
from trellis.errors import TrellisError

PROMPT_LOOKUP, DRAFT_ENGINE = "prompt_lookup", "draft_engine"
FOLDER = "draft"  # in the version folder of `tensorrt_llm`
OPENVINO = "openvino"
MOST_GUESSED = 64


class SpeculationError(TrellisError, ValueError):
    """What tokens cannot be guessed with; the message names the setting."""


def read_draft(settings: Mapping[str, str], engine: EngineFolder) -> tuple[Path, ...]:
    """The files of the draft model that settings name; () for none.

    Raises SpeculationError for settings that cannot be served.
    """
    asked = [name for name in (PROMPT_LOOKUP, DRAFT_ENGINE) if settings.get(name)]
    if not asked:
        return ()
    if engine.engine_type != OPENVINO:
        raise _wrong(asked[0], f"this engine ({engine.engine_type}) does not have it; leave it out")
    if len(asked) > 1:
        raise _wrong(DRAFT_ENGINE, f"not beside {PROMPT_LOOKUP}; leave out one of them")
    if asked == [PROMPT_LOOKUP]:
        _check_count(settings[PROMPT_LOOKUP])
        return ()
    if settings.get("lora_adapters"):
        raise _wrong(DRAFT_ENGINE, "not beside lora_adapters, which the draft does not have")
    return _draft(Path(settings[DRAFT_ENGINE]), engine)


def _check_count(value: str) -> None:
    """Raise SpeculationError; what is no number is rejected with all other settings."""
    if value.isdigit() and int(value) > MOST_GUESSED:
        raise _wrong(PROMPT_LOOKUP, f"{value} is not allowed; say 1 to {MOST_GUESSED}")


def _draft(folder: Path, engine: EngineFolder) -> tuple[Path, ...]:
    try:
        draft = read_engine(folder, OPENVINO)
    except EngineFolderError as error:
        raise _wrong(DRAFT_ENGINE, f"{error}") from error
    names = {file.name for file in draft.files}
    for name in (MODEL, TOKENIZER):
        if name not in names:
            raise _wrong(
                DRAFT_ENGINE,
                f"{folder}: no {name}; export the model to OpenVINO IR with its tokenizer",
            )
    if None not in (draft.vocab_size, engine.vocab_size) and draft.vocab_size != engine.vocab_size:
        raise _wrong(
            DRAFT_ENGINE,
            f"{folder} knows {draft.vocab_size} ids, and the engine {engine.vocab_size}; name a"
            " model with the same tokenizer",
        )
    return draft.files


def _wrong(name: str, what: str) -> SpeculationError:
    return SpeculationError(f"SET: {name}: {what}")


def draft_setting(files: tuple[Path, ...]) -> dict[str, str]:
    """The setting of a repository that holds the draft model."""
    return {DRAFT_ENGINE: FOLDER} if files else {}
