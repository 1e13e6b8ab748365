# SPDX-License-Identifier: Apache-2.0
"""Every config.pbtxt of a repository, from an engine, a tokenizer and what was set by hand.

For a Python engine they are the templates of model_repo_src/, filled. For an engine of
TensorRT-LLM itself `tensorrt_llm` is written from the contract of its release, and the others are
the templates wired to it.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from trellis.contract.model_names import BLS, EMBEDDING, ENSEMBLE, MODELS, served_as
from trellis.contract.placeholder import PlaceholderError, known_placeholders, translate
from trellis.contract.release import Contract, read_contract, release_for
from trellis.data_folders import data_folder
from trellis.engine_files.engine_config import EngineConfig
from trellis.engine_files.engine_folder import EngineFolder
from trellis.repository.ids_ensemble import ids_ensemble
from trellis.repository.model_config import parse_config
from trellis.repository.template import TemplateError, fill, placeholders_in, unknown_key
from trellis.repository.template_source import own_values, read_template
from trellis.repository.trtllm_config import (
    config_text,
    engine_values,
    filled,
    settable,
    trtllm_config,
)
from trellis.repository.wiring import (
    client_types,
    wire_ensemble,
    wire_postprocessing,
    wire_preprocessing,
)

SOURCES = data_folder("model_repo_src")
ENGINE = "tensorrt_llm"  # the part that the engine runs in
GENERATED = "Written by `make repo` for an engine of TensorRT-LLM {version} (contract {release})."
BLS_ALIAS = "bls_alias"
BLS_ABOUT = "`ensemble` under the name that NVIDIA's tools use. Written by `make repo`."
IDS_ABOUT = "`ensemble` without `postprocessing`, for the HTTP gateway. Written by `make repo`."

Texts = dict[str, str]

BYTES_PER_TOKEN = 64  # far above any text's; what is longer costs time and is refused after all
MIN_PROMPT_BYTES = 65536
MIN_CPU_CACHE_TOKENS = 16384  # 64 requests of 256 tokens


def model_configs(
    engine: EngineFolder,
    tokenizer_type: str,
    settings: Mapping[str, str],
    mount: Path,
    name: str = ENSEMBLE,
    parser: str = "",
) -> tuple[Texts, list[str]]:
    """The text of each config.pbtxt, by the part of the model that it is of, and notes.

    The notes are on settings that were not simply used. `mount` is where the repository will be
    served from, absolute; `name` is the model's, `parser` names the formats of its calls. Raises
    TemplateError for a setting that no part has or a value of the wrong type.
    """
    values = {**_found(engine, tokenizer_type), "parser": parser}
    texts, notes = _configs(engine, values, settings, mount / served_as(ENGINE, name))
    return _named(texts, name), notes


def _configs(
    engine: EngineFolder, values: dict[str, str], settings: Mapping[str, str], place: Path
) -> tuple[Texts, list[str]]:
    """The texts of the plain model; `values`: what was found, `place`: of the engine's own part."""
    if engine.embeds:
        return _embedding(values, settings, engine)
    if engine.trtllm is not None:
        return _trtllm(engine.trtllm, values, settings, place)
    templates = {model: read_template(SOURCES, model) for model in MODELS}
    present = [name for text in templates.values() for name in placeholders_in(text)] + [BLS_ALIAS]
    chosen, notes = translate(settings, present)
    _check_known(chosen, present)
    values |= chosen
    texts = {model: _fill(text, values, model) for model, text in templates.items()}
    return _with_ids(texts, values), [*notes, *_own_values(templates)]


def _embedding(
    values: dict[str, str], settings: Mapping[str, str], engine: EngineFolder
) -> tuple[Texts, list[str]]:
    """The text of an embedding model, which is one Triton model under an ensemble's name."""
    template = read_template(SOURCES, EMBEDDING)
    present = placeholders_in(template)
    chosen, notes = translate(settings, present)
    _check_known(chosen, present)
    if engine.pooling:
        values["pooling"] = engine.pooling
    elif "pooling" not in chosen:
        raise TemplateError(
            f"SET: pooling: ENGINE={engine.path} has no 1_Pooling/config.json that says it; add"
            " SET=pooling:mean, cls or last, as the model was trained"
        )
    text = _fill(template, values | chosen, ENSEMBLE)
    return {ENSEMBLE: text}, [*notes, *own_values(SOURCES, EMBEDDING, template)]


def _trtllm(
    engine: EngineConfig, values: dict[str, str], settings: Mapping[str, str], place: Path
) -> tuple[Texts, list[str]]:
    contract = read_contract(release_for(engine.version))
    around = {model: read_template(SOURCES, model) for model in MODELS if model != "tensorrt_llm"}
    present = settable(contract).union([BLS_ALIAS], *map(placeholders_in, around.values()))
    chosen, notes = translate(settings, present, contract.release)
    _check_known(chosen, present)
    values |= engine_values(engine, str(place / "1")) | chosen
    for name in ("decoupled_mode", "exclude_input_in_output", "max_beam_width"):
        values[name] = _filled(name, values)
    if int(values["max_beam_width"]) > engine.max_beam_width:
        raise TemplateError(
            f"SET: max_beam_width: the engine was built for {engine.max_beam_width}, not"
            f" {values['max_beam_width']}; build it with a larger one"
        )
    if "decoding_mode" not in chosen:
        beams = int(values["max_beam_width"])
        values["decoding_mode"] = "top_k_top_p" if beams == 1 else "beam_search"
    return _wired(contract, engine, values, around), [*notes, *_own_values(around)]


def _wired(
    contract: Contract, engine: EngineConfig, values: dict[str, str], around: Texts
) -> Texts:
    """The four configurations of a release as texts; `around` are the templates of three."""
    base = {
        model: parse_config(_fill(text, values, model), model) for model, text in around.items()
    }
    clients = client_types(base["ensemble"], contract)
    try:
        configs = {
            "preprocessing": wire_preprocessing(
                base["preprocessing"], clients, contract, engine, values
            ),
            "tensorrt_llm": trtllm_config(contract, values),
            "postprocessing": wire_postprocessing(
                base["postprocessing"], clients, contract, engine
            ),
            "ensemble": wire_ensemble(clients, contract, values),
        }
    except PlaceholderError as error:
        raise TemplateError(f"SET: {error}") from error
    about = GENERATED.format(version=engine.version, release=contract.release)
    texts = {model: config_text(config, about) for model, config in configs.items()}
    return _with_ids(texts, values)


def _with_ids(texts: Texts, values: Mapping[str, str]) -> Texts:
    """With the ensembles that are made from the others: the gateway's, and the other name's."""
    ensemble, last = (parse_config(texts[model], model) for model in ("ensemble", "postprocessing"))
    made = {**texts}
    if _filled(BLS_ALIAS, values) == "true":
        alias = ModelConfig()
        alias.CopyFrom(ensemble)
        alias.name = BLS
        made[BLS] = config_text(alias, BLS_ABOUT)
        ids = ids_ensemble(alias, last)
        made[ids.name] = config_text(ids, IDS_ABOUT)
    config = ids_ensemble(ensemble, last)
    return {**made, config.name: config_text(config, IDS_ABOUT)}


def _named(texts: Texts, name: str) -> Texts:
    """The texts with the names of the Triton models that they are for, in themselves and in steps.

    Raises TemplateError for a template that does not say its name.
    """
    named = re.compile(rf'\b(name|model_name)(\s*:\s*)"({"|".join(texts)})"')
    made = {
        part: named.sub(lambda found: f'{found[1]}{found[2]}"{served_as(found[3], name)}"', text)
        for part, text in texts.items()
    }
    for part, text in made.items():
        if parse_config(text, part).name != served_as(part, name):
            raise TemplateError(f'{part}/config.pbtxt: its name is not "{part}"; restore the line')
    return made


def _found(engine: EngineFolder, tokenizer_type: str) -> dict[str, str]:
    """What the engine and the tokenizer say of themselves, by placeholder."""
    values = {"engine_type": engine.engine_type, "tokenizer_type": tokenizer_type}
    values["engine_tokenizer_type"] = tokenizer_type
    if engine.max_seq_len:
        values["max_seq_len"] = values["max_tokens_limit"] = str(engine.max_seq_len)
        if engine.engine_type == "openvino":  # which cannot size its cache by free memory
            cache = max(engine.max_seq_len, MIN_CPU_CACHE_TOKENS)
            values["max_tokens_in_paged_kv_cache"] = str(cache)
    if engine.max_input_len:
        values["max_input_len"] = str(engine.max_input_len)
        longest = max(engine.max_input_len * BYTES_PER_TOKEN, MIN_PROMPT_BYTES)
        values["max_prompt_bytes"] = str(longest)
    if engine.vocab_size:
        values["vocab_size"] = str(engine.vocab_size)
    return values


def _own_values(templates: Texts) -> list[str]:
    return [note for model, text in templates.items() for note in own_values(SOURCES, model, text)]


def _fill(template: str, values: Mapping[str, str], model: str) -> str:
    names = placeholders_in(template)
    return fill(template, {name: values[name] for name in names if name in values}, model)


def _filled(name: str, values: Mapping[str, str]) -> str:
    try:
        return filled(name, values)
    except PlaceholderError as error:
        raise TemplateError(f"SET: {error}") from error


def _check_known(settings: Mapping[str, str], present: Collection[str]) -> None:
    for key in settings:
        if key not in present and key in known_placeholders():
            raise TemplateError(f"SET: {key} means nothing to this engine; leave it out")
        if key not in present:
            raise TemplateError(f"SET: {unknown_key(key, present)}")
