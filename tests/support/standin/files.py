"""The files that go to the stand-in and come back: contract, scripts, journal.

Their formats are in README.md, and at the top of src/contract.h, script.h and journal.h.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tensor = Mapping[str, Any]
Model = Mapping[str, Any]

# A contract's `${...}` types, and what TensorRT-LLM lets an engine choose for them.
OPEN_TYPE = "TYPE_FP32|TYPE_FP16|TYPE_BF16"

# What Trellis adds for its own Python engines, and the stand-in passes through.
STREAM_KEY: Tensor = {"name": "stream_key", "dtype": "TYPE_UINT64", "dims": [1]}
STREAM_END: Tensor = {"name": "stream_end", "dtype": "TYPE_BOOL", "dims": [1]}


@dataclass(frozen=True)
class Script:
    """One scripted answer: prompts that end with `prompt` get the ids of `answer`.

    An empty `prompt` fits every request. After `answer` the model "samples" end_id, or fails
    with `failure` if there is one.

    >>> Script(prompt=[15043], answer=[1, 2, 3]).line()
    '15043 -> 1 2 3'
    """

    answer: Sequence[int]
    prompt: Sequence[int] = ()
    failure: str | None = None

    def line(self) -> str:
        """The script as the stand-in reads it."""
        fields = [*map(str, self.prompt), "->", *map(str, self.answer)]
        if self.failure is not None:
            fields += ["!", " ".join(self.failure.split())]
        return " ".join(fields)


def write_scripts(path: Path, scripts: Iterable[Script]) -> Path:
    """Write a file for the parameter `standin_tokens`; the first script that fits is taken."""
    path.write_text("".join(script.line() + "\n" for script in scripts))
    return path


def write_contract(path: Path, model: Model, *, stream_key: bool = False) -> Path:
    """Write a file for the parameter `standin_contract`.

    `model` is the `tensorrt_llm` section of one contract JSON. `stream_key` allows Trellis' own
    tensors beside the release's.
    """
    inputs, outputs = list(model["inputs"]), list(model["outputs"])
    if stream_key:
        inputs.append(STREAM_KEY)
        outputs += [STREAM_KEY, STREAM_END]
    lines = [f"parameter {key}" for key in model["parameters"]]
    lines += [tensor_line("input", tensor) for tensor in inputs]
    lines += [tensor_line("output", tensor) for tensor in outputs]
    path.write_text("\n".join(lines) + "\n")
    return path


def tensor_line(kind: str, tensor: Tensor) -> str:
    """One contract line.

    >>> tensor_line("input", {"name": "end_id", "dtype": "TYPE_INT32", "dims": [1],
    ...                       "reshape": [], "optional": True})
    'input end_id TYPE_INT32 [1] [] optional uniform'
    """
    dtype = OPEN_TYPE if tensor["dtype"].startswith("${") else tensor["dtype"]
    reshape = dims_text(tensor["reshape"]) if "reshape" in tensor else "-"
    presence = "optional" if tensor.get("optional") else "required"
    batch = "ragged" if tensor.get("allow_ragged_batch") else "uniform"
    return (
        f"{kind} {tensor['name']} {dtype} {dims_text(tensor['dims'])} {reshape} {presence} {batch}"
    )


def dims_text(dims: Sequence[int]) -> str:
    """`[2, -1]` -> `"[2,-1]"`: without spaces."""
    return "[" + ",".join(map(str, dims)) + "]"


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Every event of a `standin_log` file, in order; [] if nothing was logged yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]
