# SPDX-License-Identifier: Apache-2.0
"""µs of CPU that a paced chunk costs outside the engine, by the ways that it can go; by turns.

    python benchmarks/engine_chunks.py --rounds 3 --out chunks.json

The streams get a token each in every step, 3,200 in all a second. What is counted is every process
of a server but the library's engine core and the launcher:

    python, python-triton  a Python engine that replays ids, as launched, and with --no-short-way
    python-chat            the same as launched, asked by /v1/chat/completions
    cpp                    the wiring of the C++ backend, the stand-in of tests/support/standin
    vllm, vllm-triton      vLLM with a small Llama of random weights whose steps are drawn out to
                           the pace, as launched, and with --no-short-way
    vllm-completions       the same as launched, asked by /v1/completions as the next is
    api                    vLLM's own API server over the same

Those of vLLM need it (`make setup-vllm`, and that Python), and are left out where it is not
there. Of a launcher that does not know --no-short-way only `python-triton` and `vllm-triton` are
asked, without it. Needs gcc.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = [str(ROOT / path) for path in ("src", "benchmarks/engine", "benchmarks/pipeline")]
sys.path[:0] = PARTS

import bench_requests  # noqa: E402
import machine  # noqa: E402
from engine_servers import (  # noqa: E402
    NO_SHORT_WAY,
    Running,
    by_name,
    knows_short_way,
    outside,
    trellis,
    trellis_request,
    vllm_api,
    vllm_request,
)
from http_stream import post  # noqa: E402
from jobs import Job, Load  # noqa: E402
from llama_folder import MOST_TOKENS, prompt, write_llama  # noqa: E402
from measure import generate  # noqa: E402
from plan import Case, paced  # noqa: E402
from repositories import PIPELINES, Setting  # noqa: E402
from rounds import bench  # noqa: E402

from trellis.engine_files.engine_folder import read_engine  # noqa: E402
from trellis.repository.assemble import Plan, assemble  # noqa: E402
from trellis.tokenizers import load  # noqa: E402

CHAT, COMPLETIONS, TRITON = "-chat", "-completions", "-triton"  # how a server is asked
OF_VLLM = ("vllm", "vllm-triton", "vllm-completions", "api")
WAYS = ("python", "python-chat", "python-triton", "cpp", *OF_VLLM)
ENGINES = Path("trellis", "engine_host", "engines")  # of a model's version folder
PACE = ROOT / "benchmarks" / "engine" / "pace_logits.py"
PROMPT_TOKENS = 45
MOST_STREAMS = 256
EVENT = b"data:"
Requests = Callable[[Case], list[bytes]]
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """A server that runs, and what it is sent in a case."""

    running: Running
    requests: Requests


class Ways:
    """Starts the servers; what several share is made once."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting = setting
        self._folder = folder
        self._short_way = knows_short_way()
        self._llama: tuple[Path, Path] | None = None

    def possible(self, wanted: Sequence[str]) -> list[str]:
        """Those of them that can be asked here."""
        found = list(wanted)
        if importlib.util.find_spec("vllm") is None:
            found = [name for name in found if name not in OF_VLLM]
        if not self._short_way:
            found = [name for name in found if name + TRITON not in WAYS]
        return found

    @contextlib.contextmanager
    def start(self, name: str) -> Iterator[Way]:
        """A ready server."""
        log = self._folder / f"{name}.log"
        if name == "api":
            checkpoint, tokenizer = self._checkpoint()
            arguments = {**self._arguments(PACE.stem), "max_num_seqs": MOST_STREAMS}
            arguments |= {"dtype": "bfloat16", "enable_prefix_caching": False}
            arguments["max_model_len"] = MOST_TOKENS
            with vllm_api(checkpoint, tokenizer, log, arguments) as running:
                yield Way(running, self._of_vllm(str(checkpoint)))
            return
        kind = name.partition("-")[0]
        repository = self._folder / f"{kind}-repository"
        if not repository.exists():
            self._make(kind, repository)
        off = name.endswith(TRITON) and self._short_way
        with trellis(repository, log, "--no-check", *([NO_SHORT_WAY] if off else [])) as running:
            if name.endswith(COMPLETIONS):
                yield Way(running, self._of_vllm("ensemble"))
            elif kind == "vllm":
                yield Way(running, self._of_vllm(""))
            else:
                asked = self._of_pipeline(kind)
                yield Way(running, _as_chat(asked) if name.endswith(CHAT) else asked)

    def _make(self, kind: str, repository: Path) -> None:
        if kind != "vllm":
            PIPELINES[_pipeline(kind)].build(self._setting, repository)
            return
        checkpoint, tokenizer = self._checkpoint()
        settings = {"triton_max_batch_size": str(MOST_STREAMS), "max_seq_len": str(MOST_TOKENS)}
        settings["enable_kv_cache_reuse"] = "false"
        plan = Plan(read_engine(checkpoint, "vllm"), "gpt2", tokenizer, settings=settings)
        assemble(plan, repository)
        # A file of the engine's is no edit of what serves its steps: see is_own_engine.
        shutil.copy(PACE, repository / "tensorrt_llm" / "1" / ENGINES)

    def _checkpoint(self) -> tuple[Path, Path]:
        if self._llama is None:
            module = ".".join((*ENGINES.parts, PACE.stem))
            self._llama = write_llama(self._folder / "llama", "tiny", **self._arguments(module))
        return self._llama

    def _arguments(self, module: str) -> Numbers:
        """vLLM's; `module`: where it finds the processor that draws its steps out."""
        return {
            "load_format": "dummy",
            "enforce_eager": True,
            "logits_processors": [f"{module}:Pace"],
        }

    def _of_pipeline(self, kind: str) -> Requests:
        pipeline = PIPELINES[_pipeline(kind)]
        return lambda case: bench_requests.requests(case, pipeline, self._setting.texts)

    def _of_vllm(self, model: str) -> Requests:
        """By OpenAI's API if a model is named."""
        tokenizer = load("gpt2", self._checkpoint()[1])

        def requests(case: Case) -> list[bytes]:
            made = []
            for at, tokens in enumerate(bench_requests.lengths(case)):
                text = prompt(at, PROMPT_TOKENS)
                if model:
                    made.append(vllm_request(model, tokenizer.encode(text), tokens))
                else:
                    made.append(trellis_request(text, tokens))
            return made

        return requests


def _pipeline(kind: str) -> str:
    return {"python": "ours-python", "cpp": "ours-front"}[kind]


def _as_chat(requests: Requests) -> Requests:
    """The same prompts as chats; the pace goes where the engine finds it, in the seed."""

    def asked(case: Case) -> list[bytes]:
        made = []
        for request in requests(case):
            values = json.loads(request.partition(b"\r\n\r\n")[2])
            body = {
                "model": "ensemble",
                "messages": [{"role": "user", "content": values["text_input"]}],
                "max_tokens": values["max_tokens"],
                "seed": values.get("random_seed", 0),
                "stream": True,
                "user": values["id"],
            }
            made.append(post("/v1/chat/completions", json.dumps(body).encode()))
        return made

    return asked


def measure(way: Way, case: Case) -> Numbers:
    """One turn: CPU a chunk, by process."""
    names = way.running.names()
    job = Job(
        protocol="http",
        host="127.0.0.1",
        port=way.running.port,
        requests=way.requests(case),
        streams=case.streams,
        warm_seconds=case.warm_seconds,
        seconds=case.seconds,
        pids=list(names),
        drain_seconds=case.drain_seconds,
    )
    load_ = generate(job)
    wrong = [sent.wrong for sent in load_.sent if sent.wrong or not _is_fine(sent.pieces)]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(load_.sent)} streams failed: {wrong[0]}")
    used = {pid: load_.cpu_end[pid] - load_.cpu_begin[pid] for pid in load_.cpu_end}
    parts = by_name(used, names)
    chunks = _chunks(load_)
    return {
        "us_per_chunk": 1e6 * outside(parts) / chunks,
        "us_by_process": {name: 1e6 * seconds / chunks for name, seconds in parts.items()},
        "chunks_per_second": chunks / (load_.end - load_.begin),
    }


def _is_fine(pieces: Sequence[tuple[float, bytes]]) -> bool:
    return bool(pieces) and pieces[0][1].startswith(b"HTTP/1.1 200")


def _chunks(load_: Load) -> int:
    return sum(
        data.count(EVENT) - data.count(b"[DONE]")
        for sent in load_.sent
        for when, data in sent.pieces
        if load_.begin <= when < load_.end
    )


def table(result: Numbers) -> str:
    """Markdown: the median of the rounds, and each."""
    lines = [
        "| streams | way | µs of CPU a chunk (each round) | by process | chunks/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for streams, ways in result["cases"].items():
        for name, rounds in ways.items():
            each = [one["us_per_chunk"] for one in rounds]
            last = sorted(rounds[-1]["us_by_process"].items())
            parts = ", ".join(f"{part} {value:.0f}" for part, value in last if value >= 0.5)
            rate = statistics.median(one["chunks_per_second"] for one in rounds)
            lines.append(
                f"| {streams} | {name} | {statistics.median(each):.0f}"
                f" ({', '.join(f'{value:.0f}' for value in each)}) | {parts} | {rate:.0f} |"
            )
    return "\n".join(lines)


def run(options: argparse.Namespace) -> Numbers:
    """All ways side by side, a turn each in every round."""
    cases = [
        replace(paced(streams), seconds=options.seconds, drain_seconds=30.0)
        for streams in options.streams
    ]
    if options.tokens:
        cases = [replace(case, tokens=options.tokens) for case in cases]
    with bench(1, lambda text: print(text, file=sys.stderr)) as it, contextlib.ExitStack() as stack:
        ways = Ways(it.setting("llama"), it.folder)
        names = ways.possible(options.ways)
        running = {}
        for name in names:
            print(f"starting {name}", file=sys.stderr, flush=True)
            running[name] = stack.enter_context(ways.start(name))
        found: dict[str, dict[str, list[Numbers]]] = {
            str(case.streams): {name: [] for name in names} for case in cases
        }
        for at in range(-1, options.rounds):  # the first warms up
            for case in cases:
                for name in names:
                    numbers = measure(running[name], case)
                    if at >= 0:
                        found[str(case.streams)][name].append(numbers)
    return {"machine": machine.describe(), "short_way": knows_short_way(), "cases": found}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measured window")
    parser.add_argument(
        "--streams", type=lambda text: [*map(int, text.split(","))], default=[16, 64]
    )
    parser.add_argument(
        "--tokens", type=int, default=0, help="of a stream; 0: as many as last a second"
    )
    parser.add_argument("--ways", type=lambda text: text.split(","), default=[*WAYS])
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes")
    options = parser.parse_args()
    # For pace_logits, in the processes of vLLM's API server.
    inherited = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACE.parent), inherited])
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "0")  # two would spin for one another
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result = run(options)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
