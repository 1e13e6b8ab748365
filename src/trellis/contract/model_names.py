# SPDX-License-Identifier: Apache-2.0
"""What the Triton models of a repository are called.

A model that clients ask is an ensemble of three steps. The first of a repository is plain:
`ensemble` of `preprocessing`, `tensorrt_llm` and `postprocessing`. A further one has a name:
`qwen` of `qwen_preprocessing`, `qwen_tensorrt_llm` and `qwen_postprocessing`.
"""

import re

from trellis.contract.wiring_names import IDS_SUFFIX

ENSEMBLE = "ensemble"
STEPS = ("preprocessing", "tensorrt_llm", "postprocessing")
MODELS = (*STEPS, ENSEMBLE)
EMBEDDING = "embedding"  # the folder of the template; the model itself is called as an ensemble is
BLS = "tensorrt_llm_bls"  # the ensemble under the name that NVIDIA's tools use
# With what its parts add it has to fit into the 64 bytes that a path takes.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
RESERVED = ("stats",)
_PARTS = (*STEPS, BLS, BLS + IDS_SUFFIX)


def served_as(part: str, name: str = ENSEMBLE) -> str:
    """What a part is called in the model of a name.

    >>> served_as("tensorrt_llm", "qwen"), served_as("ensemble_ids", "qwen")
    ('qwen_tensorrt_llm', 'qwen_ids')
    >>> served_as("tensorrt_llm")
    'tensorrt_llm'
    """
    if name == ENSEMBLE:
        return part
    if part.startswith(ENSEMBLE):
        return name + part.removeprefix(ENSEMBLE)
    return f"{name}_{part}"


def step_of(served: str) -> str:
    """Which of STEPS a Triton model is, "" for none.

    >>> step_of("qwen_tensorrt_llm"), step_of("preprocessing"), step_of("ensemble")
    ('tensorrt_llm', 'preprocessing', '')
    """
    return next((step for step in STEPS if served == step or served.endswith(f"_{step}")), "")


def model_of(served: str) -> str:
    """Which model a Triton model is a step of; what is called otherwise counts as of `ensemble`.

    >>> model_of("qwen_tensorrt_llm"), model_of("preprocessing")
    ('qwen', 'ensemble')
    """
    step = step_of(served)
    return served.removesuffix(step).removesuffix("_") or ENSEMBLE if step else ENSEMBLE


def check_name(name: str) -> None:
    """Raise ValueError for what is no name of a model, or one of those that its parts have."""
    if not NAME.fullmatch(name):
        raise ValueError("use a-z, 0-9, _ and -, a letter or digit first, at most 40 characters")
    if name in RESERVED:
        raise ValueError(f"Triton has a path of its own at /v2/models/{name}; choose another")
    for part in (*_PARTS, IDS_SUFFIX.removeprefix("_")):
        if name == part or name.endswith(f"_{part}"):
            raise ValueError(f"a part of a model is called {part}; choose a name without it")
