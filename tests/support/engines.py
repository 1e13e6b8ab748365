# SPDX-License-Identifier: Apache-2.0
"""Which engine answers the tests of the demo's server: TEST_ENGINE=openvino, vllm or llmapi.

`vllm` serves the demo's weights as a checkpoint, on the CPU. `llmapi` is TensorRT-LLM's LLM API
over the fake of its package: its model goes on with what a prompt repeats and with KNOWN, and all
else that it says is made up; tests run with the Python of `support.fake_venv`.
"""

import json
import os
from pathlib import Path
from typing import Literal, cast, get_args

import pytest

from support.asking import chat
from support.fake_engines import write_checkpoint
from support.fake_gpus import fake_gpus
from support.fake_library import VARIABLE
from trellis.demo.engine import find_demo_model, lay_out
from trellis.engine_files.engine_folder import EngineFolder, read_engine
from trellis.tokenizers import load

Name = Literal["openvino", "vllm", "llmapi"]
NAMES: tuple[Name, ...] = get_args(Name)
ENGINE = cast(Name, os.environ.get("TEST_ENGINE", "openvino"))
assert ENGINE in NAMES, f"TEST_ENGINE={ENGINE}: use one of {', '.join(NAMES)}"

VOCABULARY, CONTEXT, END = 49152, 8192, 2  # SmolLM2's
FAKE_BEHAVIOUR = {"version": "1.2.1", "step_seconds": 0.004, "repeats": True}
# What the demo's model says to the prompts whose answers tests look at.
KNOWN = (
    'The capital of France is Paris.\n\nThe answer to the question "What is the capital of France?"'
    " is:\n\nParis lies in France.",
    chat("What is the capital of France?") + "The capital of France is Paris, capital of France."
    "<|im_end|>\n<|im_end|><|im_start|>system\n<|im_end|>\n<|im_start|>user\n",
    "sportsman in the world? [/INST] The",
)
# A CPU makes 15 to 100 tokens a second with vLLM, and several times as many with OpenVINO.
PATIENCE = 4 if ENGINE == "vllm" else 1

# What some engines lack, and which.
LACKS: dict[str, tuple[Name, ...]] = {
    "search over beams": ("vllm", "llmapi"),
    "library of its own": ("llmapi",),
    "min_tokens beside several ends": ("llmapi",),
    "model that follows guides": ("llmapi",),
    "step in the caller's process": ("vllm", "llmapi"),
}


def lacks(feature: str) -> str:
    """Why a test of a feature of LACKS is skipped; empty where the engine has it."""
    return f"the engine {ENGINE} has no {feature}" if ENGINE in LACKS[feature] else ""


def needs(feature: str) -> pytest.MarkDecorator:
    """Skips a test where the engine lacks a feature of LACKS."""
    return pytest.mark.skipif(bool(lacks(feature)), reason=lacks(feature))


def lay_out_engine(folder: Path, name: Name = ENGINE) -> tuple[Path, Path]:
    """The folders of the demo's engine, as one of that name loads it, and of its tokenizer."""
    engine, tokenizer = folder / "smollm2-out", folder / "smollm2-tokenizer"
    lay_out(find_demo_model(), engine, tokenizer)
    if name == "vllm":
        from ranks.checkpoints import dequantise

        engine = folder / "smollm2-checkpoint"
        dequantise(find_demo_model(), engine)
        (engine / "engine.yaml").write_text("enforce_eager: true\n")  # compiling takes minutes
    elif name == "llmapi":
        knows = [load("gpt2", tokenizer).encode(text) for text in KNOWN]
        os.environ.setdefault(VARIABLE, json.dumps(FAKE_BEHAVIOUR | {"knows": knows}))
        os.environ.update(fake_gpus(folder, 80))  # the launcher looks for one
        sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT}
        engine = write_checkpoint(folder / "smollm2-checkpoint", **sizes)
    return engine, tokenizer


def read_demo_engine(engine: Path) -> EngineFolder:
    """What lies in the folder of `lay_out_engine`, for that engine."""
    return read_engine(engine, "" if ENGINE == "openvino" else ENGINE)
