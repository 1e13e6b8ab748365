# SPDX-License-Identifier: Apache-2.0
"""Loads a repository's plugins into the gateway: its tokenizer, and what `preprocessing` reads.

The code is this package's, and the repository's is the same, or its models are asked. Tokenizer
and settings come from the repository, as in the models' own processes. Apart from plugins.py, so
that a gateway without numpy or tokenizers still passes requests on.
"""

import filecmp
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trellis.contract.tensor_types import numpy_type
from trellis.errors import RequestError
from trellis.gateway.plugins import Formats, Plugins
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.encode import Preprocessor
from trellis.pipeline.hooks import load_hooks
from trellis.pipeline.model_settings import ModelSettings, load_parser, load_tokenizer
from trellis.repository.manifest import foreign_code
from trellis.tokenizers.prefix_cache import PrefixEncoder
from trellis.tokenizers.registry import type_module

Config = Mapping[str, Any]
TYPE = "tokenizer_type"
AUTO = "auto"
ENGINES = Path("trellis", "engine_host", "engines")
CODE = frozenset({".py", ".pyc", ".so"})


def load_plugins(
    before: Config, last: Config, repository: Path, prompt_cache_bytes: int = 0
) -> Plugins:
    """The plugins of `preprocessing` and `postprocessing`, by Triton's configurations of them.

    `prompt_cache_bytes`: what the ids of beginnings of prompts may take.
    Raises what the tokenizer_type raises, ImportError where a package is missing.
    """
    reading, writing = (_settings(config, repository) for config in (before, last))
    is_auto = AUTO in (reading.text(TYPE), writing.text(TYPE))
    if is_auto and _needs_transformers(writing):
        return Plugins(why_not="its tokenizer is one of transformers")
    if files := foreign_code(writing.folder):
        return Plugins(why_not=_not_ours(files))
    tokenizer = load_tokenizer(writing)
    padded = bool(writing.text("engine", ""))
    texts = Detokenizer.of(tokenizer, padded, load_hooks(writing.folder))
    if files := foreign_code(reading.folder):
        return Plugins(texts, why_not=_not_ours(files))
    try:
        shared = tokenizer if _same_tokenizer(reading, writing) else None
        encoder = Preprocessor(reading, shared)
        encoder.tokenizer.prepare()
        memory = PrefixEncoder(encoder.tokenizer, prompt_cache_bytes)
        formats = Formats(load_parser(writing), load_parser(writing, calls=False))
        return Plugins(
            texts, encoder, numpy_type, memory.encode_bare, RequestError, formats=formats
        )
    except Exception as error:  # whatever is raised there: texts can be made all the same
        return Plugins(texts, why_not=str(error))


def is_own_engine(engine: Config, repository: Path) -> bool:
    """Whether what serves a Python engine's steps is as `make repo` of this release makes it.

    Not looked at: the engine's own files, which are data, and how its library is called, which
    makes no difference to what serves its steps.
    """
    files = map(Path, foreign_code(_settings(engine, repository).folder))
    return not any(file.suffix in CODE and ENGINES not in file.parents for file in files)


def _not_ours(files: Sequence[str]) -> str:
    """Why files keep the gateway from standing for a model; names the first three of them."""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    named = ", ".join(files[:3])
    return f"{named}{more}: not as `make repo` of this release makes it"


def _needs_transformers(settings: ModelSettings) -> bool:
    """Whether the type `auto` imports transformers for this tokenizer: the gateway stays small."""
    folder = settings.path("tokenizer_dir", "tokenizer")
    return bool(type_module(AUTO).needs_transformers(folder))


def _settings(config: Config, repository: Path) -> ModelSettings:
    """A Python model's settings, by what Triton would tell it."""
    name = config["name"]
    versions = [path for path in (repository / name).iterdir() if path.name.isdigit()]
    return ModelSettings.read(
        {
            "model_config": json.dumps(config),
            "model_name": name,
            "model_repository": str(repository / name),
            "model_version": max(versions, key=lambda path: int(path.name)).name,
        }
    )


def _same_tokenizer(one: ModelSettings, other: ModelSettings) -> bool:
    """Whether two models name the same tokenizer: then it is in memory once."""
    named = [(m.text(TYPE), m.tokenizer_options()) for m in (one, other)]
    folders = [(m.path("tokenizer_dir", "tokenizer"), m.types_folder) for m in (one, other)]
    return named[0] == named[1] and all(map(_same_files, *folders))


def _same_files(one: Path, other: Path) -> bool:
    names, others = (
        {file.relative_to(folder) for file in folder.rglob("*") if _counts(file)}
        for folder in (one, other)
    )
    return names == others and all(
        (one / name).samefile(other / name) or filecmp.cmp(one / name, other / name, shallow=False)
        for name in names
    )


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"
