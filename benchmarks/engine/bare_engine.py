# SPDX-License-Identifier: Apache-2.0
"""vLLM's AsyncLLM without a server: a process of its own that does what it reads on its stdin.

`python bare_engine.py CHECKPOINT RESULT` reads one line of JSON: the library's arguments, the
prompts that are sent one by one, and the bursts. What it measured goes into the file RESULT.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "pipeline")]

from accounting import cpu_seconds  # noqa: E402
from stream_burst import Numbers, Stream, summary  # noqa: E402


def main() -> None:
    """Load, measure, write."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    task = json.loads(sys.stdin.readline())
    begin = time.monotonic()
    arguments = {"model": sys.argv[1], "skip_tokenizer_init": True, **task["arguments"]}
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    result: Numbers = {"ready_seconds": time.monotonic() - begin}
    result |= asyncio.run(_measure(llm, task))
    Path(sys.argv[2]).write_text(json.dumps(result))
    llm.shutdown()


async def _measure(llm: Any, task: dict[str, Any]) -> Numbers:
    bursts: dict[str, list[Numbers]] = {}
    sample_ids = [
        (await _stream(llm, f"sample-{at}", ids, task["sample_tokens"])).ids
        for at, ids in enumerate(task["samples"])
    ]
    for at, (streams, tokens, counts) in enumerate(task["bursts"]):
        prompts = task["prompts"][:streams]
        before = cpu_seconds(os.getpid())
        done = await asyncio.gather(
            *(_stream(llm, f"{at}-{key}", ids, tokens) for key, ids in enumerate(prompts))
        )
        used = cpu_seconds(os.getpid()) - before
        if any(len(stream.ids) != tokens for stream in done):
            raise RuntimeError(f"a stream has not its {tokens} tokens")
        numbers = summary(done, tokens)
        numbers["cpu_us_per_token"] = 1e6 * used / numbers["tokens"]
        if counts:
            bursts.setdefault(str(streams), []).append(numbers)
    return {"bursts": bursts, "sample_ids": sample_ids}


async def _stream(llm: Any, name: str, ids: list[int], tokens: int) -> Stream:
    """One greedy request of exactly so many tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = SamplingParams(
        max_tokens=tokens,
        temperature=0.0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
    stream = Stream(time.perf_counter(), [])
    async for output in llm.generate({"prompt_token_ids": ids}, sampling, name):
        stream.times.append(time.perf_counter())
        stream.ids += output.outputs[0].token_ids
    return stream


if __name__ == "__main__":
    main()
