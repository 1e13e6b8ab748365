# SPDX-License-Identifier: Apache-2.0
"""The engine: its files, what it was built for, and whether the tokenizer is its own.

World size = TP x PP; tensor parallelism gives every rank as many attention heads. How a checkpoint
is split is in checkpoint_gpus.py; any other Python engine has one rank.
"""

from collections.abc import Iterator, Sequence

from trellis.contract.containers import containers_for, image, installed_runtime
from trellis.contract.release import version_numbers
from trellis.engine_files.engine_config import (
    EngineConfig,
    EngineConfigError,
    missing_ranks,
    rank_bytes,
)
from trellis.engine_files.parallel import fitting
from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

PYTHON_ENGINE_FILES = ("*.gguf", "*openvino*model*.xml", "*.safetensors")
# Engines pad their vocabulary: to a multiple of 64 or of the ranks, or to a round number.
MOST_PADDING = 0.05
# Tokens beyond the engine's vocabulary (images, sounds), where the tokenizer does not tell them.
MOST_BEYOND = 0.01
OWN_PACKAGE = "trellis"  # nothing to install: a file of the repository is missing


def check_ranks(repository: Repository) -> Check:
    """Every rank of TensorRT-LLM's engine, or any model file of another."""
    folder = repository.engine_folder
    engine = repository.engine
    remedy = "build or copy what is missing, then `make repo`"
    if engine is None:
        files = [file.name for kind in PYTHON_ENGINE_FILES for file in folder.glob(kind)]
        found = ", ".join(files[:3]) or "none"
        return Check("engine files", found, "a model file", bool(files), "" if files else remedy)
    needed = f"{engine.world_size} (one a rank)"
    try:
        missing = missing_ranks(folder, engine.world_size, engine.tensor_parallel)
    except EngineConfigError as error:
        return Check("engine files", str(error), needed, False, "remove the other build's files")
    if missing:
        ranks = ", ".join(map(str, missing))
        return Check("engine files", f"none or empty for rank {ranks}", needed, False, remedy)
    size = sum(rank_bytes(folder, engine.tensor_parallel).values()) / 2**30
    return Check("engine files", f"{engine.world_size}, {size:.2f} GiB in all", needed, True)


def check_world_size(tensor_parallel: int, pipeline_parallel: int, asked: int) -> Check:
    """World size = TP x PP."""
    built = tensor_parallel * pipeline_parallel
    needed = f"{built} (TP {tensor_parallel} x PP {pipeline_parallel})"
    remedy = "" if asked == built else f"launch with --world_size {built} (WORLD_SIZE={built})"
    return Check("world size", str(asked), needed, asked == built, remedy)


def fitting_sizes(heads: int, kv_heads: int, most: int = 64) -> list[int]:
    """The TP sizes that divide the heads, and divide or repeat the key/value heads.

    >>> fitting_sizes(32, 8)
    [1, 2, 4, 8, 16, 32]
    """
    sizes = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return sorted({tensor for tensor, _ in fitting(sizes, min(heads, most))})


def check_heads(engine: EngineConfig) -> Check:
    """TP divides the heads; if not, which sizes would."""
    sizes = fitting_sizes(engine.heads, engine.kv_heads)
    found = f"TP {engine.tensor_parallel} for {engine.heads} heads, {engine.kv_heads} key/value"
    ok = engine.tensor_parallel in sizes
    needed = f"TP of {', '.join(map(str, sizes))}"
    remedy = "" if ok else "build the engine with one of these"
    return Check("attention heads", found, needed, ok, remedy)


def check_inflight(repository: Repository, engine: EngineConfig) -> Check:
    """Paged KV cache and packed input, where requests are batched in flight."""
    strategy = repository.parameter("tensorrt_llm", "gpt_model_type")
    if not strategy.startswith("inflight"):
        return Check("batching", strategy, "any engine", True)
    lacking = [
        name
        for name, there in (
            ("paged KV cache", engine.paged_kv_cache),
            ("attention plugin with packed input", engine.inflight_batching),
        )
        if not there
    ]
    if not lacking:
        return Check("batching", strategy, "paged KV cache, packed input", True)
    return Check(
        "batching",
        f"{strategy}; the engine has no {' and no '.join(lacking)}",
        "paged KV cache, packed input",
        False,
        "build with --use_inflight_batching --paged_kv_cache --remove_input_padding, or"
        " SET=batching_strategy:V1",
    )


def check_release(engine: EngineConfig) -> Check:
    """Same major, minor and patch: engines are read by the release that built them."""
    fitting = containers_for(engine.version)
    where = f"serve in {image(fitting[0])} (`make serve-docker`)" if fitting else ""
    rebuild = "build the engine again with the release that is here"
    none = f"no container of the table has TensorRT-LLM {engine.version}: {rebuild}"
    runtime = installed_runtime()
    needed = f"TensorRT-LLM {engine.version}, which built the engine"
    if not runtime.version:
        found = f"none known ({runtime.source})" if runtime.source else "no TensorRT-LLM here"
        return Check("release", found, needed, False, where or none)
    found = f"TensorRT-LLM {runtime.version} ({runtime.source})"
    if version_numbers(runtime.version) == version_numbers(engine.version):
        return Check("release", found, needed, True)
    return Check("release", found, needed, False, f"{where}, or {rebuild}" if where else none)


def check_vocabulary(repository: Repository) -> Iterator[Check]:
    """The tokenizer loads, its ids are the engine's, and so are end_id and pad_id."""
    kind = repository.parameter("preprocessing", "tokenizer_type")
    facts = repository.tokenizer
    package = facts.get("missing", "").partition(".")[0]
    if package not in ("", OWN_PACKAGE):
        yield missing_package(kind, package, repository.python)
        return
    if "error" in facts:
        yield Check(
            "tokenizer",
            facts["error"],
            f"a tokenizer of type {kind}",
            False,
            "`make repo SET=trust_remote_code:true`, if you trust it"
            if "SET=trust_remote_code:true" in facts["error"]
            else "choose TOKENIZER= and TOKENIZER_DIR= for the engine's model",
        )
        return
    text = repository.parameter("preprocessing", "vocab_size")
    engine = int(text) if text.isdigit() else None
    yield compare_vocabularies(kind, int(facts["vocab_size"]), engine, facts["text_vocab_size"])
    yield check_ids(facts["end_ids"], facts["pad_id"], engine)


def missing_package(kind: str, package: str, python: str) -> Check:
    """What the tokenizer_type imports is not installed for the interpreter that will serve."""
    return Check(
        "tokenizer",
        f"no package {package} for {python}",
        f"{package}, which the tokenizer_type {kind} imports",
        False,
        f"install it ({python} -m pip install {package}), or choose another TOKENIZER=",
    )


def compare_vocabularies(
    kind: str, tokenizer: int, engine: int | None, text: int | None = None
) -> Check:
    """Every id that a text can have is the engine's, and the engine has few others.

    Args:
        tokenizer: how many ids the tokenizer has.
        engine: how many the engine has, None if it does not say.
        text: how many the tokenizer has without added tokens, None if it does not say. Tokens of
            images and sounds may lie beyond the engine's vocabulary: a prompt that names one is
            refused, and nothing else makes them.
    """
    found = f"{tokenizer} ids ({kind})"
    if engine is None:
        return Check("vocabulary", found, "the engine does not say", True)
    if tokenizer <= engine:
        ok = tokenizer >= engine * (1 - MOST_PADDING)
        needed = f"{engine} ids, or a few less"
    else:
        ok = tokenizer <= engine * (1 + MOST_BEYOND) if text is None else text <= engine
        ok = ok and (text is None or text >= engine * (1 - MOST_PADDING))
        needed = f"{engine} ids, but for added tokens"
    remedy = "" if ok else "this is another model's tokenizer: set TOKENIZER= and TOKENIZER_DIR="
    return Check("vocabulary", found, needed, ok, remedy)


def check_ids(ends: Sequence[int], pad: int | None, engine: int | None) -> Check:
    """There is an id that ends an answer, and special ids are ids of the engine.

    Args:
        ends: what ends an answer.
        pad: what fills a batch, if the tokenizer has it.
        engine: how many ids the engine has, None if it does not say.
    """
    if not ends:
        remedy = (
            "answers would go on to max_tokens: name eos_token in tokenizer_config.json, or add"
            " generation_config.json with eos_token_id"
        )
        return Check("special ids", "no end_id", "an id that ends an answer", False, remedy)
    named = {"end_id": list(ends), **({} if pad is None else {"pad_id": [pad]})}
    found = ", ".join(f"{name} {', '.join(map(str, ids))}" for name, ids in named.items())
    if engine is None:
        return Check("special ids", found, "the engine does not say", True)
    outside = [name for name, ids in named.items() if not all(0 <= i < engine for i in ids)]
    remedy = f"{', '.join(outside)}: choose the tokenizer of the engine's model" if outside else ""
    return Check("special ids", found, f"0 to {engine - 1}", not outside, remedy)
