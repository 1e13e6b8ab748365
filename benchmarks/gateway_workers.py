# SPDX-License-Identifier: Apache-2.0
"""What several processes of the gateway carry, on a machine with many cores; by turns.

    python benchmarks/gateway_workers.py --workers 1,2,4 --out workers.json

Engines that replay ids, so that the pipeline is what limits:

    whole       the wiring of the C++ backend (its stand-in), unstreamed: requests/s
    streams     the same, as many streams as fit at full speed: chunks/s
    python      a Python engine by the short way, streams at full speed: tokens/s; tokens that wait
                leave together as one chunk

Of each, what the gateway's processes make of a second of CPU is beside it. Several load generators
share the work; what they take is not counted. Every text is checked for its length in tokens.
Needs gcc, and more cores than `--workers` and `--loads` together.
"""

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("src", "benchmarks/engine", "benchmarks/pipeline")]

import bench_requests  # noqa: E402
import machine  # noqa: E402
from engine_servers import Running, trellis  # noqa: E402
from jobs import Job, Load  # noqa: E402
from measure import generate  # noqa: E402
from plan import Case  # noqa: E402
from repositories import PIPELINES, Setting  # noqa: E402
from rounds import bench  # noqa: E402

Numbers = dict[str, Any]
CASES = {
    "whole": ("ours-front", Case("whole", 128, tokens=20, streamed=False)),
    "streams": ("ours-front", Case("streams", 128, tokens=200)),
    "python": ("ours-python", Case("python", 128, tokens=400)),
}
EVENT = b"data:"


def measure(running: Running, setting: Setting, pipeline: str, case: Case, loads: int) -> Numbers:
    """One turn: what came, and the CPU that it took."""
    names = running.names()
    job = Job(
        protocol="http",
        host="127.0.0.1",
        port=running.port,
        requests=bench_requests.requests(case, PIPELINES[pipeline], setting.texts),
        streams=case.streams // loads,
        warm_seconds=case.warm_seconds,
        seconds=case.seconds,
        pids=list(names),
        drain_seconds=30.0,
    )
    with ThreadPoolExecutor(loads) as pool:
        made = list(pool.map(generate, [job] * loads))
    lengths = bench_requests.lengths(case)
    requests = chunks = tokens = 0.0
    for load in made:
        whole, inside, share = _counts(load, lengths)
        seconds = load.end - load.begin
        requests, chunks, tokens = (
            requests + whole / seconds,
            chunks + inside / seconds,
            tokens + share / seconds,
        )
    cores: dict[str, float] = {}
    first = made[0]
    for pid, name in names.items():
        used = (first.cpu_end[pid] - first.cpu_begin[pid]) / (first.end - first.begin)
        cores[name] = cores.get(name, 0.0) + used
    return {
        "requests_per_second": requests,
        "chunks_per_second": chunks,
        "tokens_per_second": tokens,
        "tokens_per_gateway_cpu_second": tokens / cores["gateway"],
        "load_generator_cores": [load.own_cpu / (load.end - load.begin) for load in made],
        "cores": cores,
    }


def _counts(load: Load, lengths: Sequence[int]) -> tuple[int, int, float]:
    """Of the window: requests that ended in it, chunks, tokens. Raises RuntimeError."""
    wrong = [sent.wrong for sent in load.sent if sent.wrong or not sent.pieces]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(load.sent)} requests failed: {wrong[0]}")
    ended, chunks, tokens = 0, 0, 0.0
    for sent in load.sent:
        bodies = [(when, data) for when, data in sent.pieces]
        if not bodies[0][1].startswith(b"HTTP/1.1 200"):
            raise RuntimeError(bodies[0][1][:200].decode("utf-8", "replace"))
        length = lengths[sent.request]
        ended += load.begin <= bodies[-1][0] < load.end
        inside = [data for when, data in bodies if load.begin <= when < load.end]
        every = sum(data.count(EVENT) for _, data in bodies)
        some = sum(data.count(EVENT) for data in inside)
        chunks += some
        if every:
            tokens += length * some / every
        else:
            tokens += length * bool(inside)
    return ended, chunks, tokens


def run(options: argparse.Namespace) -> Numbers:
    """All numbers of workers side by side, a turn each in every round."""
    found: dict[str, dict[str, list[Numbers]]] = {}
    with bench(1, lambda text: print(text, file=sys.stderr)) as it, contextlib.ExitStack() as stack:
        setting = it.setting("llama")
        running = {}
        for pipeline in dict.fromkeys(CASES[name][0] for name in options.cases):
            repository = it.folder / pipeline
            PIPELINES[pipeline].build(setting, repository)
            for workers in options.workers:
                log = it.folder / f"{pipeline}-{workers}.log"
                arguments = ("--no-check", "--gateway_workers", str(workers))
                server = stack.enter_context(trellis(repository, log, *arguments))
                running[pipeline, workers] = server
        for at in range(-1, options.rounds):  # the first warms up
            for name in options.cases:
                pipeline, case = CASES[name]
                case = replace(case, seconds=options.seconds)
                for workers in options.workers:
                    server = running[pipeline, workers]
                    numbers = measure(server, setting, pipeline, case, options.loads)
                    print(f"{name}, {workers}: {numbers}", file=sys.stderr, flush=True)
                    if at >= 0:
                        found.setdefault(name, {}).setdefault(str(workers), []).append(numbers)
    return {"machine": machine.describe(), "cases": found}


def table(result: Numbers) -> str:
    """Markdown: medians of the rounds."""
    lines = [
        "| case | workers | requests/s | chunks/s | tokens/s | tokens a CPU second of the gateway"
        " | cores by process |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, by_workers in result["cases"].items():
        for workers, rounds in by_workers.items():
            requests, chunks, tokens, rate = (
                f"{statistics.median(one[key] for one in rounds):,.0f}"
                for key in (
                    "requests_per_second",
                    "chunks_per_second",
                    "tokens_per_second",
                    "tokens_per_gateway_cpu_second",
                )
            )
            cores = ", ".join(
                f"{part} {value:.2f}"
                for part, value in sorted(rounds[-1]["cores"].items())
                if value >= 0.01
            )
            lines.append(
                f"| {name} | {workers} | {requests} | {chunks} | {tokens} | {rate} | {cores} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measured window")
    parser.add_argument("--loads", type=int, default=4, help="load generators")
    parser.add_argument(
        "--workers", type=lambda text: [*map(int, text.split(","))], default=[1, 2, 4]
    )
    parser.add_argument("--cases", type=lambda text: text.split(","), default=[*CASES])
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes")
    options = parser.parse_args()
    result = run(options)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
