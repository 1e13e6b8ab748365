"""Several ranks under load: a Llama of random weights through Triton, and its engine without.

    python3 benchmarks/gpu_ranks.py make --folder llama7b
    python3 benchmarks/gpu_ranks.py run --folder llama7b --world_size 2 --out two.json
    python3 benchmarks/gpu_ranks.py table one.json two.json

`run` measures by turns on the same GPUs, as often as `--rounds` says: the bare engine (no Triton,
no network) and the whole pipeline, launched as users launch it with as many streams from another
process. Each is started anew and has a round of warming up first; the medians are compared. Random
weights are as fast as trained ones; the text means nothing. `make --size tiny` is for trying the
script itself on a CPU.
"""

import argparse
import asyncio
import functools
import itertools
import json
import os
import platform
import shutil
import statistics
import string
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

VOCAB = 32000
SIZES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": 4},
}
WARM_UP_TOKENS = 32
READY_SECONDS = 300
GIB = 2**30
Numbers = dict[str, Any]


# --- the checkpoint and its repository ----------------------------------------------------------


def make(folder: Path, size: str) -> None:
    """Write checkpoint/ (bfloat16, safetensors), tokenizer/ and the repository of both."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = dict(SIZES[size])
    heads = shape.pop("heads")
    config = LlamaConfig(
        vocab_size=VOCAB,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        dtype="bfloat16",
        **shape,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "checkpoint", max_shard_size="5GB")
    write_tokenizer(folder / "tokenizer")
    command = [sys.executable, str(ROOT / "tools" / "assemble.py")]
    command += ["--engine", str(folder / "checkpoint"), "--tokenizer", "gpt2"]
    command += ["--tokenizer_dir", str(folder / "tokenizer"), "--model_repo", str(folder / "repo")]
    subprocess.run(command, check=True)


def write_tokenizer(folder: Path) -> None:
    """A byte-level vocabulary as large as the model's: the bytes, then Ab and Abc for many letters.

    Nothing that `prompt` writes merges, so that its letters are as many tokens.
    """
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    small = string.ascii_lowercase + string.digits
    pairs = list(itertools.product(string.ascii_uppercase, small))
    triples = itertools.product(map("".join, pairs), small)
    merges = list(itertools.islice((*pairs, *triples), VOCAB - len(letters) - 1))
    tokens = [*letters, *map("".join, merges), "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def prompt(stream: int, length: int) -> str:
    """`length` letters, each one token; no two streams begin alike."""
    return (f"{stream:04d} " + "abcdefghij" * length)[:length]


# --- the engine alone ---------------------------------------------------------------------------


def bare_rank(folder: Path, streams: int, tokens: int, prompt_tokens: int) -> Numbers | None:
    """One rank of the bare engine, its place in the environment; rank 0 has the numbers."""
    import numpy as np

    from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
    from trellis.engine_host.engines.transformers import TransformersEngine

    engine = TransformersEngine(
        EngineSettings(folder / "checkpoint", max_batch_size=64, enable_kv_cache_reuse=False)
    )
    if engine.follows:
        while engine.busy:
            list(engine.step())
        engine.close()
        return None

    def one_round(length: int) -> list[list[float]]:
        """When each token of each stream came."""
        times: list[list[float]] = [[time.perf_counter()] for _ in range(streams)]
        for key in range(streams):
            ids = np.array([ord(letter) - 30 for letter in prompt(key, prompt_tokens)])
            engine.add(key, ids, Sampling(max_tokens=length))
        while engine.busy:
            for event in engine.step():
                assert not isinstance(event, Failure), event
                times[event.key] += [time.perf_counter()] * len(event.ids)
        return times

    one_round(WARM_UP_TOKENS)
    numbers = summary([(stream, len(stream) - 1) for stream in one_round(tokens)])
    numbers["gpu_memory_gib"] = gpu_memory()
    numbers["held_gib"] = held(engine)
    engine.close()
    return numbers


def held(engine: Any) -> Numbers:
    """GiB by what they are for, on this rank's GPU; `step` is the most that a step took beside."""
    import torch

    weights, cache, tokens = engine.footprint
    numbers = {"weights": weights / GIB, "kv_cache": cache / GIB, "kv_tokens": tokens}
    if torch.cuda.is_available():
        numbers["step"] = (torch.cuda.max_memory_allocated() - weights - cache) / GIB
        numbers["reserved"] = torch.cuda.max_memory_reserved() / GIB
    return numbers


def bare(options: argparse.Namespace) -> Numbers:
    """The bare engine on all ranks, in processes of their own."""
    from trellis.ranks.options import rank_environment
    from trellis.server.ports import free_ports

    arguments = [f"--{name}={getattr(options, name)}" for name in ("streams", "tokens")]
    arguments += [f"--prompt_tokens={options.prompt_tokens}", f"--folder={options.folder}"]
    local, port = range(options.world_size), free_ports(1)[0]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "bare-rank", *arguments],
            env={
                **os.environ,
                **rank_environment(rank, local, options.world_size, "127.0.0.1", port),
            },
            stdout=subprocess.PIPE if rank == 0 else None,
        )
        for rank in local
    ]
    output = processes[0].communicate()[0].decode()
    if any(process.wait(60) for process in processes):
        raise RuntimeError("a rank of the bare engine failed; see above")
    numbers: Numbers = json.loads(output.splitlines()[-1])
    return numbers


# --- the whole pipeline -------------------------------------------------------------------------


def served(options: argparse.Namespace) -> Numbers:
    """Launch the repository, stream from it as clients do, stop it."""
    from trellis.server.ports import free_ports

    http, grpc, metrics = free_ports(3)
    launch = [sys.executable, str(ROOT / "tools" / "launch_triton_server.py")]
    launch += ["--model_repo", str(options.folder / "repo"), "--world_size"]
    launch += [str(options.world_size), f"--http_port={http}", f"--grpc_port={grpc}"]
    launch += [f"--metrics_port={metrics}", *options.launcher]
    log = options.folder / "launcher.log"
    with log.open("wb") as output:
        launcher = subprocess.Popen(launch, stdout=output, stderr=subprocess.STDOUT)
    try:
        begin = time.monotonic()
        wait_ready(launcher, log)
        ready = time.monotonic() - begin
        asyncio.run(stream_all(http, options, WARM_UP_TOKENS))
        numbers = summary(asyncio.run(stream_all(http, options, options.tokens)))
        numbers["gpu_memory_gib"] = gpu_memory()
        numbers["ready_seconds"] = ready
        return numbers
    finally:
        launcher.terminate()
        launcher.wait(60)


def wait_ready(launcher: "subprocess.Popen[bytes]", log: Path) -> None:
    """Raises RuntimeError with the log's end if it does not come up."""
    end = time.monotonic() + READY_SECONDS
    while "ready after" not in log.read_text(errors="replace"):
        if launcher.poll() is not None or time.monotonic() > end:
            raise RuntimeError(log.read_text(errors="replace")[-6000:])
        time.sleep(0.2)


async def stream_all(port: int, options: argparse.Namespace, tokens: int) -> list[Any]:
    """All streams at once: for each the times of its start and chunks, and its token count."""
    prompts = [prompt(stream, options.prompt_tokens) for stream in range(options.streams)]
    return await asyncio.gather(*(stream_one(port, text, tokens) for text in prompts))


async def stream_one(port: int, text: str, tokens: int) -> tuple[list[float], int]:
    """One /generate_stream on a connection of its own, read without an HTTP library in the way."""
    parameters = {"max_tokens": tokens, "end_id": -1, "return_num_output_tokens": True}
    body = json.dumps({"text_input": text, "stream": True, "parameters": parameters}).encode()
    head = (
        "POST /v2/models/ensemble/generate_stream HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    times = [time.perf_counter()]
    writer.write(head.encode() + body)
    last, made = b"", 0
    while True:
        line = await reader.readline()
        if line.startswith(b"data:"):
            times.append(time.perf_counter())
            last = line
            made += int(json.loads(line[5:]).get("num_output_tokens", 0))
        elif line == b"0\r\n" or not line:
            break
    writer.close()
    answer = json.loads(last[5:])
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return times, made


# --- numbers ------------------------------------------------------------------------------------


def summary(streams: list[Any]) -> Numbers:
    """Of [(times of start and arrivals, tokens)]: rates per second and times in milliseconds.

    `inter_token_ms` is of each stream's mean, `gap_ms` of all times between two arrivals.
    """
    begin = min(times[0] for times, _ in streams)
    end = max(times[-1] for times, _ in streams)
    total = sum(tokens for _, tokens in streams)
    first = [times[1] - times[0] for times, _ in streams]
    between = [(times[-1] - times[1]) / max(tokens - 1, 1) for times, tokens in streams]
    gaps = [
        later - earlier for times, _ in streams for earlier, later in itertools.pairwise(times[1:])
    ]
    return {
        "streams": len(streams),
        "tokens": total,
        "seconds": end - begin,
        "tokens_per_second": total / (end - begin),
        "ttft_ms": spread(first),
        "inter_token_ms": spread(between),
        "arrivals": len(gaps) + len(streams),
        "gap_ms": spread(gaps),
    }


def spread(seconds: list[float]) -> Numbers:
    """Median, 99th percentile and largest, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"median": 1000 * cuts[49], "p99": 1000 * cuts[98], "max": 1000 * max(seconds)}


def gpu_memory() -> list[float]:
    """GiB in use on each GPU, by nvidia-smi; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    return [round(int(line) / 1024, 2) for line in done.stdout.split()]


def machine() -> dict[str, Any]:
    """What it ran on."""
    import torch
    import transformers

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"gpus": gpus, "cores": os.cpu_count(), "python": platform.python_version()} | versions


def run(options: argparse.Namespace) -> None:
    """Bare and served by turns; the JSON and the table."""
    result: Numbers = {
        "estimate_gib": None,  # of results from before the engine's estimates went
        "machine": machine(),
        "world_size": options.world_size,
        "prompt_tokens": options.prompt_tokens,
        "bare": [],
        "served": [],
    }
    for _ in range(options.rounds):
        for name, measure in (("bare", bare), ("served", served)):
            result[name].append(measure(options))
            print(name, round(result[name][-1]["tokens_per_second"]), "tokens/s", flush=True)
    rates = {name: median(result[name], "tokens_per_second") for name in ("bare", "served")}
    result["served_share"] = rates["served"] / rates["bare"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table([result]))


def median(rounds: list[Numbers], *keys: str) -> float:
    """The median over the rounds of one number, found by its keys."""

    def number(found: Any) -> float:
        return float(functools.reduce(lambda found, key: found[key], keys, found))

    return statistics.median(map(number, rounds))


def table(results: list[Any]) -> str:
    """Markdown, one line for the medians of each measurement."""
    lines = [
        "| machine | ranks | what | tokens/s (each round) | first token, p50 / p99 ms"
        " | between tokens, p50 / p99 ms | GPU memory, GiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        gpus = result["machine"]["gpus"]
        where = gpus[0] if gpus else f"CPU, {result['machine']['cores']} cores"
        for name in ("bare", "served"):
            rounds = result[name]
            rates = ", ".join(f"{numbers['tokens_per_second']:.0f}" for numbers in rounds)
            times = [
                f"{median(rounds, key, 'median'):.0f} / {median(rounds, key, 'p99'):.0f}"
                for key in ("ttft_ms", "gap_ms")
            ]
            memory = ", ".join(map(str, rounds[-1]["gpu_memory_gib"][: result["world_size"]]))
            lines.append(
                f"| {where} | {result['world_size']} | {name}"
                f" | {median(rounds, 'tokens_per_second'):.0f} ({rates})"
                f" | {' | '.join(times)} | {memory} |"
            )
        held, expected = "", result["estimate_gib"]
        if expected:
            held = f"estimated {expected['held']:.1f}, steps up to {expected['steps']:.1f} more"
        lines.append(f"| | | served / bare | {result['served_share']:.1%} | | | {held} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--size", choices=SIZES, default="7b")
    for name in ("run", "bare-rank"):
        measuring = commands.add_parser(name)
        measuring.add_argument("--world_size", type=int, default=1)
        measuring.add_argument("--streams", type=int, default=64)
        measuring.add_argument("--tokens", type=int, default=256)
        measuring.add_argument("--prompt_tokens", type=int, default=128)
        measuring.add_argument("--rounds", type=int, default=3)
        measuring.add_argument("--out", type=Path, default=Path("gpu_ranks.json"))
        measuring.add_argument("--launcher", nargs="*", default=["--no-mpi"])
    for command in (making, *(commands.choices[name] for name in ("run", "bare-rank"))):
        command.add_argument("--folder", type=Path, required=True)
    commands.add_parser("table").add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "make":
        make(options.folder, options.size)
    elif options.command == "run":
        run(options)
    elif options.command == "bare-rank":
        numbers = bare_rank(options.folder, options.streams, options.tokens, options.prompt_tokens)
        if numbers is not None:
            print(json.dumps(numbers))
    else:
        print(table([json.loads(file.read_text()) for file in options.files]))


if __name__ == "__main__":
    main()
