# SPDX-License-Identifier: Apache-2.0
"""Guides and LoRA adapters of a real vLLM on a GPU, with models of random weights.

    PYTHONPATH=src:tests:benchmarks/engine python3 tests/vllm_engine/on_gpu.py --out figures.json

Three steps, each with an engine process of its own:

    guides    answers drawn at temperature 1, 64 at a time: each that ends is what its guide says
    adapters  greedy ids with an adapter are those of a checkpoint with its weights added
    speed     tokens/s of 64 streams of a 7B shape, free and held to an expression, by turns

Needs what `make setup-vllm` installs, jsonschema and safetensors. `--size tiny` and no `speed` are
for trying it on a CPU.
"""

import argparse
import itertools
import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from llama_folder import write_llama
from safetensors.numpy import save_file

from support.lora_adapters import merge, write_adapter
from trellis.engine_files.checkpoint import read_checkpoint
from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, EngineSettings
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.guides.translate import translate
from trellis.tokenizers import load
from vllm_engine.engine_texts import EngineTexts, Made

STREAMS, TOKENS, ROUNDS = 64, 128, 3
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"type": "array", "items": {"enum": ["x", "y", 1, None]}, "minItems": 1, "maxItems": 4},
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "on": {"type": "boolean"}},
        "required": ["name", "on"],
        "additionalProperties": False,
    },
]
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
TAG = {
    "type": "structural_tag",
    "format": {
        "type": "tag",
        "begin": "<call>",
        "content": {"type": "json_schema", "json_schema": SCHEMAS[2]},
        "end": "</call>",
    },
}
FREE = "[a-z ]{1000}"


def main() -> None:
    """Run the steps, and print what came of them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", default="guides,adapters,speed")
    parser.add_argument("--size", default="7b", help="of the step speed: 7b or tiny")
    parser.add_argument("--answers", type=int, default=400, help="of the step guides")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for step in asked.steps.split(","):
            folder = Path(name, step)
            if step == "guides":
                figures[step] = guides(folder, asked.answers)
            elif step == "adapters":
                figures[step] = adapters(folder)
            else:
                figures[step] = speed(folder, asked.size)
            print(json.dumps(figures), flush=True)
            if asked.out:
                asked.out.write_text(json.dumps(figures, indent=1) + "\n")


@contextmanager
def engine(checkpoint: Path, tokenizer: Path, **more: Any) -> Iterator[EngineTexts]:
    """An engine process of a checkpoint."""
    texts = load("gpt2", tokenizer)
    settings = EngineSettings(
        checkpoint,
        max_batch_size=STREAMS,
        max_seq_len=2048,
        tokenizer=tokenizer,
        tokenizer_sample=tuple(texts.encode(TOKENIZER_SAMPLE)),
        **more,
    )
    process = EngineProcess("vllm", settings)
    try:
        yield EngineTexts(process, texts)
    finally:
        process.close()


def random_llama(folder: Path) -> tuple[Path, Path]:
    """A small checkpoint whose weights are there, in float32: its greedy ids can be compared."""
    checkpoint, tokenizer = write_llama(folder, "tiny", enforce_eager=True)
    config = json.loads((checkpoint / "config.json").read_text()) | {"dtype": "float32"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "engine.yaml").write_text("enforce_eager: true\n")
    random = np.random.default_rng(7)
    shapes = {tensor.name: tensor.shape for tensor in read_checkpoint(checkpoint).tensors()}
    weights = {
        name: np.ones(shape, np.float32)
        if name.endswith("norm.weight")
        else random.normal(0, 0.08, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return checkpoint, tokenizer


def guides(folder: Path, answers: int) -> dict[str, int]:
    """How many answers ended as their guide says; fails for one that ended otherwise."""
    kinds = [("json_schema", json.dumps(schema)) for schema in SCHEMAS]
    kinds += [("regex", DATE), ("ebnf_grammar", 'root ::= "yes" | "no"'), ("json", "")]
    kinds.append(("structural_tag", json.dumps(TAG)))
    ended = 0
    with engine(*random_llama(folder)) as texts:
        end = texts.tokenizer.eos_id
        asked = []
        for seed, (kind, guide) in zip(range(answers), itertools.cycle(kinds), strict=False):
            form = translate(kind, guide)
            drawn = {"sample": True, "temperature": 1.0, "seed": seed, "max_tokens": 200}
            held = {"guide_type": form.kind, "guide": form.text, "end_id": end}
            asked.append((f"{seed} is", drawn | held))
        for start in range(0, answers, STREAMS):
            batch = texts.ask(*asked[start : start + STREAMS])
            for at, made in enumerate(batch, start):
                ended += check(made, *kinds[at % len(kinds)], end=end)
    return {"answers": answers, "ended": ended}


def check(made: Made, kind: str, guide: str, end: int | None) -> bool:
    """Whether an answer ended; fails if what ended is not what its guide says."""
    assert made.failure is None, made
    if made.finish != "stop":
        assert made.finish == "length", made
        return False
    text = made.text.removesuffix("<|endoftext|>")
    if kind == "json_schema":
        jsonschema.validate(json.loads(text), json.loads(guide))
    elif kind == "json":
        assert isinstance(json.loads(text), dict), text
    elif kind == "regex":
        assert re.fullmatch(guide, text), text
    elif kind == "structural_tag":
        inner = text.removeprefix("<call>").removesuffix("</call>")
        jsonschema.validate(json.loads(inner), SCHEMAS[2])
    else:
        assert text in ("yes", "no"), text
    return True


def adapters(folder: Path) -> dict[str, Any]:
    """How many of an adapter's greedy answers are those of the merged checkpoint."""
    checkpoint, tokenizer = random_llama(folder / "base")
    shapes = {tensor.name: tensor.shape for tensor in read_checkpoint(checkpoint).tensors()}
    modules = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.split(".")[-2] in ("q_proj", "v_proj", "down_proj")
    }
    adapter = write_adapter(folder / "north", modules, rank=8)
    prompts = [f"{number} and so on" for number in range(32)]
    ids: dict[str, list[list[int]]] = {}
    halves = {"dtype": "bfloat16"}  # the adapters of vLLM on a GPU take no float32
    with engine(checkpoint, tokenizer, lora_adapters={"north": str(adapter)}, **halves) as texts:
        both = texts.ask(
            *((prompt, {"max_tokens": 16, "lora_name": "north"}) for prompt in prompts),
            *((prompt, {"max_tokens": 16}) for prompt in prompts),
        )
        ids["adapter"] = [made.ids for made in both[: len(prompts)]]
        ids["base"] = [made.ids for made in both[len(prompts) :]]
    merged = merge(checkpoint, adapter, folder / "merged")
    (merged / "engine.yaml").write_text("enforce_eager: true\n")
    with engine(merged, tokenizer, **halves) as texts:
        alone = texts.ask(*((prompt, {"max_tokens": 16}) for prompt in prompts))
        ids["merged"] = [made.ids for made in alone]
    pairs = zip(ids["adapter"], ids["merged"], ids["base"], strict=True)
    same = [(one == two, one == base) for one, two, base in pairs]
    return {
        "prompts": len(prompts),
        "as merged": sum(merged for merged, _ in same),
        "as without": sum(base for _, base in same),
    }


def speed(folder: Path, size: str) -> dict[str, list[float]]:
    """Tokens/s of free and of held streams, a round each by turns."""
    made = translate("regex", FREE)
    held = {"guide_type": made.kind, "guide": made.text}
    found: dict[str, list[float]] = {"free": [], "held": []}
    checkpoint, tokenizer = write_llama(folder, size)
    with engine(checkpoint, tokenizer) as texts:
        for number in range(ROUNDS + 1):  # the first warms up
            for name, more in (("free", {}), ("held", held)):
                drawn = {"sample": True, "temperature": 1.0, "max_tokens": TOKENS, "end_id": -1}
                asked = [(f"{seed} is", drawn | more | {"seed": seed}) for seed in range(STREAMS)]
                begun = time.monotonic()
                answers = texts.ask(*asked)
                took = time.monotonic() - begun
                assert all(each.failure is None for each in answers), answers[0]
                if number:
                    found[name].append(round(sum(len(each.ids) for each in answers) / took, 1))
    return found


if __name__ == "__main__":
    main()
