# SPDX-License-Identifier: Apache-2.0
"""Putting a model repository together: sources, tokenizer, engine, filled configuration.

A repository holds one model or several, each with a manifest of its own. The result is
self-contained: every Python model's version folder carries the part of this
package that it runs, and the files of tokenizer and engine lie inside. It is built beside its
place and moved there whole; building it again changes nothing, and what Trellis did not make is
never touched.
"""

import functools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from trellis.contract.model_names import EMBEDDING, ENSEMBLE, MODELS, check_name, served_as
from trellis.contract.release import read_contract, release_for
from trellis.contract.wiring_names import GUIDES
from trellis.data_folders import data_folder
from trellis.engine_files.checkpoint import WEIGHTS
from trellis.engine_files.engine_folder import EngineFolder
from trellis.errors import TrellisError
from trellis.files import CopyMode, link_or_copy, place
from trellis.pipeline.hooks import FILE, check_file
from trellis.repository.folder_swap import recover, staging_folder, swap
from trellis.repository.guides_vocabulary import FILE as VOCABULARY_FILE
from trellis.repository.guides_vocabulary import PATH as VOCABULARY_PATH
from trellis.repository.guides_vocabulary import check_named, made_vocabulary
from trellis.repository.lora_adapters import FOLDER, Adapters, adapters_setting, read_adapters
from trellis.repository.manifest import (
    PACKAGE,
    Wiring,
    digest,
    digests,
    made_names,
    manifest_name,
    read_manifest,
    wiring,
    write_manifest,
)
from trellis.repository.model_config import parse_config
from trellis.repository.model_configs import SOURCES, model_configs
from trellis.repository.parser_formats import NO_PARSER, ParserFormats
from trellis.repository.speculation import FOLDER as DRAFT
from trellis.repository.speculation import draft_setting, read_draft
from trellis.repository.trtllm_config import settable

TYPES = data_folder("tokenizers")
FORMATS = data_folder("parsers")
# The parts of the package that an assembled model runs; `tensorrt_llm` runs `engine_host` too.
CARRIED = (
    "__init__.py",
    "bounded_files.py",
    "data_folders.py",
    "errors.py",
    "panics.py",
    "contract",
    "tokenizers",
    "parsers",
    "guides",
    "pipeline",
    "ipc",
    "triton_models",
)
HOST = "engine_host"
ENGINE = "tensorrt_llm"
ENGINE_NAME = ".trellis_engine"  # the engine's folder, relative to where the repository lies
END_IDS = "generation_config.json"
TEMPLATES = "additional_chat_templates"


class AssemblyError(TrellisError, ValueError):
    """A repository that cannot be made as asked; the message says what to change."""


@dataclass(frozen=True)
class Plan:
    """All that a repository is made from."""

    engine: EngineFolder
    tokenizer_type: str
    tokenizer_dir: Path
    type_file: Path | None = None  # a tokenizer_type of the user's own
    parser: ParserFormats = NO_PARSER
    hooks: Path | None = None  # a file of the user's own, see pipeline/hooks.py
    settings: Mapping[str, str] = field(default_factory=dict)  # placeholders set by hand
    copy: CopyMode = "link"  # how the engine's files come into the repository
    mount: Path | None = None  # where it will be served from, if not where it is made
    replace: bool = False  # whether a model of another engine may be replaced
    name: str = ENSEMBLE  # of the model, beside others of the repository

    @functools.cached_property
    def adapters(self) -> Adapters:
        """The LoRA adapters that `settings` name. Raises AdapterError."""
        return read_adapters(self.settings, self.engine)

    @functools.cached_property
    def draft(self) -> tuple[Path, ...]:
        """The files of the draft model that `settings` name. Raises SpeculationError."""
        return read_draft(self.settings, self.engine)

    @functools.cached_property
    def guides_vocabulary(self) -> str:
        """What the C++ backend reads to follow guides; '' if nothing. See guides_vocabulary.py."""
        engine = self.engine.trtllm
        if engine is None or GUIDES not in settable(read_contract(release_for(engine.version))):
            return ""
        if self.mount is None:
            check_named(self.settings)
        return made_vocabulary(
            self.settings, self.tokenizer_type, self.tokenizer_dir, self.type_file
        )

    @property
    def beside(self) -> dict[Path, tuple[Path, ...]]:
        """What lies beside the engine's files, by its folder there."""
        found = {Path(FOLDER, name): files for name, files in self.adapters.items()}
        return {**found, Path(DRAFT): self.draft} if self.draft else found

    @property
    def python_models(self) -> tuple[str, ...]:
        """The parts that carry Python code: not TensorRT-LLM's own engine, not the ensemble."""
        if self.engine.embeds:
            return (ENSEMBLE,)
        own = (ENGINE,) if self.engine.trtllm is not None else ()
        return tuple(model for model in MODELS if model not in (*own, ENSEMBLE))

    @property
    def version(self) -> Path:
        """Where the engine's files lie in the repository."""
        part = ENSEMBLE if self.engine.embeds else ENGINE
        return Path(served_as(part, self.name), "1")

    @property
    def engine_name_file(self) -> str:
        """The file that says which engine the model is of."""
        return ENGINE_NAME if self.name == ENSEMBLE else f"{ENGINE_NAME}.{self.name}"


def find_tokenizer_dir(tokenizer_type: str, engine: Path, given: Path | None) -> Path:
    """The folder of the tokenizer's files.

    Given, or `<engine>-tokenizer/` beside `<engine>-out/`, or `<type>-tokenizer/`, or the engine
    folder itself. Raises AssemblyError if a given one does not exist.
    """
    if given is not None:
        if not given.is_dir():
            raise AssemblyError(f"TOKENIZER_DIR={given}: no such folder")
        return given
    folder = engine.resolve()
    beside = folder.parent / (folder.name.removesuffix("-out") + "-tokenizer")
    for candidate in (beside, Path(f"{tokenizer_type}-tokenizer")):
        if candidate.is_dir():
            return candidate
    return engine


@dataclass(frozen=True)
class Assembly:
    """What came of it: whether anything changed, and what the user should know."""

    changed: bool
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.changed


def assemble(plan: Plan, target: Path) -> Assembly:
    """Make the model of a plan in `target`, or bring it up to date; false if nothing had to change.

    Other models there stay as they are. Raises AssemblyError if `target` holds something that
    Trellis did not make, or that was edited since, or if the model's name cannot be;
    TemplateError for settings that no part has; HookError for a file without hooks.
    """
    if plan.name != ENSEMBLE:
        try:
            check_name(plan.name)
        except ValueError as error:
            raise AssemblyError(f"NAME={plan.name}: {error}") from None
    folder = target.resolve()  # a link to a repository stays a link
    for name, source in (("ENGINE", plan.engine.path), ("TOKENIZER_DIR", plan.tokenizer_dir)):
        if source.resolve().is_relative_to(folder):
            raise AssemblyError(f"{name}={source}: lies inside REPO={target}; keep it outside")
    if plan.hooks is not None:
        check_file(plan.hooks)
        if plan.engine.embeds:
            raise AssemblyError(f"HOOKS={plan.hooks}: an embedding model has none; leave it out")
    recover(folder)
    _check_engine(plan, target, folder)
    made = _made_before(folder, plan)
    if plan.mount is not None and not plan.mount.is_absolute():
        raise AssemblyError(f"MOUNT={plan.mount}: give an absolute path, such as /{plan.mount}")
    mount = plan.mount or target.absolute()
    settings = {**plan.settings, **adapters_setting(plan.adapters), **draft_setting(plan.draft)}
    if plan.guides_vocabulary:
        settings[VOCABULARY_PATH] = str(mount / plan.version / VOCABULARY_FILE)
    texts, notes = model_configs(
        plan.engine,
        plan.tokenizer_type,
        settings,
        mount,
        plan.name,
        plan.parser.names,
    )
    _check_clash(plan, target, texts, made or {})
    return Assembly(_make(plan, folder, texts, made), (*plan.engine.notes, *notes))


def _engine_name(plan: Plan, folder: Path) -> str:
    return os.path.relpath(plan.engine.path.resolve(), folder.parent)


def _check_engine(plan: Plan, target: Path, folder: Path) -> None:
    """Raise AssemblyError for a model of another engine, unless it may be replaced."""
    named = folder / plan.engine_name_file
    if plan.replace or not named.is_file():
        return
    there = named.read_text(encoding="utf-8", errors="surrogateescape").strip()
    if there != _engine_name(plan, folder):
        raise AssemblyError(
            f"REPO={target}: {plan.name} was made for another engine, ENGINE={there}; choose"
            " another REPO=, or another NAME= to have both, or say REPLACE=1 to replace it"
        )


def _check_clash(
    plan: Plan, target: Path, texts: Mapping[str, str], made: Mapping[str, str]
) -> None:
    """Raise AssemblyError where a folder of somebody else's has the name of a named model's."""
    for part in texts if plan.name != ENSEMBLE else ():
        served = served_as(part, plan.name)
        own = any(name.startswith(f"{served}/") for name in made)
        if not own and any((target / served).glob("*")):
            raise AssemblyError(
                f"NAME={plan.name}: REPO={target} has a folder {served} that `make repo` did not"
                " make; choose another NAME=, or move the folder away"
            )


def _make(
    plan: Plan, target: Path, texts: Mapping[str, str], made: Mapping[str, str] | None
) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(target) as staging:
        _build(plan, staging, target, texts)
        name = f"{_engine_name(plan, target)}\n"
        file = staging / plan.engine_name_file
        file.write_text(name, encoding="utf-8", errors="surrogateescape")
        hashes = digests(staging)
        if made == hashes:
            return False
        write_manifest(
            staging, hashes, _wirings(texts), plan.name, tuple(plan.adapters), plan.engine.embeds
        )
        staging.chmod(0o755)
        try:
            swap(staging, target, {*(made or ()), manifest_name(plan.name)})
        except FileExistsError as error:
            raise AssemblyError(f"REPO={target}: {error}") from error
        return True


def _wirings(texts: Mapping[str, str]) -> dict[str, Wiring]:
    """The wiring of each ensemble."""
    configs = {model: parse_config(text, model) for model, text in texts.items()}
    return {
        config.name: wiring(MessageToDict(config, preserving_proto_field_name=True))
        for config in configs.values()
        if config.platform == "ensemble"
    }


def _build(plan: Plan, staging: Path, target: Path, texts: Mapping[str, str]) -> None:
    for model, text in texts.items():
        version = staging / served_as(model, plan.name) / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(text, encoding="utf-8")
        if model in plan.python_models:
            _add_python(model, version, plan)
    for file in plan.engine.files:
        name = plan.version / file.name
        place(file, staging / name, plan.copy, target / name)
    if plan.guides_vocabulary:
        (staging / plan.version / VOCABULARY_FILE).write_text(plan.guides_vocabulary)
    for name, files in plan.beside.items():
        folder = plan.version / name
        (staging / folder).mkdir(parents=True)
        for file in files:
            place(file, staging / folder / file.name, plan.copy, target / folder / file.name)


def _add_python(model: str, version: Path, plan: Plan) -> None:
    """Code, tokenizer_types, formats and the tokenizer's files of one Python part."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.json")
    template = EMBEDDING if plan.engine.embeds else model
    shutil.copytree(SOURCES / template / "1", version, dirs_exist_ok=True, ignore=ignore)
    package = version / "trellis"
    package.mkdir()
    for name in (*CARRIED, HOST) if model in (ENGINE, ENSEMBLE) else CARRIED:
        source = PACKAGE / name
        if source.is_dir():
            shutil.copytree(source, package / name, ignore=ignore)
        else:
            shutil.copy(source, package / name)
    own = (plan.type_file,) if plan.type_file is not None else ()
    for shipped, added in ((TYPES, own), (FORMATS, plan.parser.files)):
        data = package / "data" / shipped.name
        shutil.copytree(shipped, data, ignore=ignore)
        for file in added:
            shutil.copy(file, data / file.name)
    if plan.hooks is not None:
        shutil.copyfile(plan.hooks, version / FILE)
    files = version / "tokenizer"
    files.mkdir()
    for name, file in sorted(_tokenizer_files(plan).items()):
        (files / name).parent.mkdir(exist_ok=True)
        link_or_copy(file, files / name)
    if plan.engine.end_ids and not (files / END_IDS).exists():  # a GGUF file's own
        text = json.dumps({"eos_token_id": list(plan.engine.end_ids)})
        (files / END_IDS).write_text(f"{text}\n")


def _tokenizer_files(plan: Plan) -> dict[str, Path]:
    """What is in the tokenizer's folder, by its name there, and what names the ends of answers.

    That may be a file of the engine's, and lie in its folder.
    """
    folder = plan.tokenizer_dir
    engine = {file for file in plan.engine.files if _only_the_engines(file)}
    files = [file for file in folder.iterdir() if file not in engine]
    files += (folder / TEMPLATES).glob("*.jinja")
    found = {str(file.relative_to(folder)): file for file in files}
    for place_of_ends in (plan.engine.path, folder):
        if (place_of_ends / END_IDS).is_file():
            found[END_IDS] = place_of_ends / END_IDS
    kept = {
        name: file for name, file in found.items() if file.is_file() and file.suffix not in WEIGHTS
    }
    for name, file in kept.items():
        _check_inside(file, file.parents[len(Path(name).parts) - 1])
    return kept


def _check_inside(file: Path, folder: Path) -> None:
    """Raise AssemblyError for a link out of the folder of the model that it came with.

    Whoever made the folder decides what its links lead to; what they lead to would be served from
    the repository. Hugging Face's cache keeps files in `blobs/`, and names them by links in
    `snapshots/REVISION/`: both are folders of one model.
    """
    root = folder.resolve()
    model = root.parents[1] if root.parent.name == "snapshots" else None
    inside = [root] if model is None else [root, model / "blobs"]
    target = file.resolve()
    if not any(target.is_relative_to(place) for place in inside):
        raise AssemblyError(
            f"{file}: a symbolic link that leaves its folder, to {target}; put the file itself"
            " there, or name the folder that holds it with TOKENIZER_DIR="
        )


def _only_the_engines(file: Path) -> bool:
    """Whether a file of an engine's folder cannot be its tokenizer's, which may lie there too."""
    return file.name == "config.json" or file.suffix in (".bin", ".engine", ".gguf", ".xml")


def _sources(plan: Plan) -> set[tuple[int, int]]:
    """The files that the repository may link to, by device and inode."""
    beside = (file for files in plan.beside.values() for file in files)
    files = [*plan.engine.files, *_tokenizer_files(plan).values(), *beside]
    return {_identity(file) for file in files if file.exists()}


def _made_before(target: Path, plan: Plan) -> dict[str, str] | None:
    """The manifest of an earlier assembly of this model, or None where there is nothing yet.

    A link to a file of the engine's or the tokenizer's that has another content by now was not
    edited in the repository: the engine was built again.
    """
    sources = _sources(plan)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    names = made_names(target)
    if not names:
        raise AssemblyError(
            f"REPO={target}: exists and was not made by `make repo`; name another folder"
        )
    if plan.name not in names:
        return None
    made = read_manifest(target, plan.name)
    edited = [
        name
        for name, value in made.items()
        if (target / name).is_file()
        and digest(target / name) != value
        and _identity(target / name) not in sources
    ]
    if edited:
        raise AssemblyError(
            f"REPO={target}: edited since it was made: {', '.join(edited)}; keep your changes with"
            " SET=key:value or in model_repo_src/, then delete these files"
        )
    return {name: value for name, value in made.items() if (target / name).is_file()}


def _identity(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_dev, stat.st_ino
