# SPDX-License-Identifier: Apache-2.0
"""OpenVINO GenAI without a server: one process, its own `step` in a loop, and nothing else.

`python bare_openvino.py MODEL_FILE SCHEDULER` prints `ready`, then answers lines of JSON on stdin,
`{"prompts": [[id, ...], ...], "tokens": n}`, with a line each: the burst's numbers, and the ids.
SCHEDULER: JSON of the library's SchedulerConfig, as the engine has it.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("src", "benchmarks/pipeline")]

from stream_burst import Stream, summary  # noqa: E402

from trellis.engine_host.engines.openvino_pipeline import (  # noqa: E402
    DEVICE,
    device_properties,
)


def main() -> None:
    """Load, then answer what is asked."""
    scheduler = genai.SchedulerConfig()
    for name, value in json.loads(sys.argv[2]).items():
        setattr(scheduler, name, value)
    pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, DEVICE, device_properties())
    keys = itertools.count()
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        streams = _burst(pipeline, keys, task["prompts"], task["tokens"])
        made = summary(streams, task["tokens"])
        print(json.dumps({"numbers": made, "ids": [each.ids for each in streams]}), flush=True)


def _burst(
    pipeline: Any, keys: "itertools.count[int]", prompts: list[list[int]], tokens: int
) -> list[Stream]:
    """All prompts at once, greedy, so many tokens each."""
    running = []
    for ids in prompts:
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = tokens, True
        tensor = openvino.Tensor(np.array([ids], np.int64))
        stream = Stream(time.perf_counter(), [])
        running.append((stream, pipeline.add_request(next(keys), tensor, config)))
    while pipeline.has_non_finished_requests():
        pipeline.step()
        for stream, handle in running:
            if handle.can_read():
                stream.times.append(time.perf_counter())
                for output in handle.read().values():
                    stream.ids += output.generated_ids
    streams = [stream for stream, _ in running]
    if any(len(stream.ids) != tokens for stream in streams):
        raise RuntimeError(f"a stream has not its {tokens} tokens")
    return streams


if __name__ == "__main__":
    main()
