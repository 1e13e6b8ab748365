# SPDX-License-Identifier: Apache-2.0
"""The demo's engine behind Trellis, beside its bare library and what others would serve it with.

    make bench-engine                                     # BENCH="--rounds 1 --streams 1,16"
    .venv-vllm/bin/python benchmarks/embedded_engine.py --llama-server PATH --out engine

SmolLM2-135M on a CPU; bursts of 1, 4, 16 and 32 streams, 64 tokens of prompt and 128 of answer,
greedy. All servers stand side by side and take turns in every round:

    bare         OpenVINO GenAI's own `step` in a loop, in one process and nothing else
    http         Trellis as it is launched, /generate_stream
    chat         the same server, /v1/chat/completions
    grpc         the same server's gRPC port
    grpc-keys    a server that asks for API keys, by gRPC, which the gateway answers there
    llama.cpp    its server on the same GGUF file, /v1/completions; with --llama-server
    vllm         vLLM's API server on the same weights in bfloat16; where vLLM is installed

No prompt is sent twice, so that no prefix is cached; a short answer before each turn wakes the
engine. Texts of a single stream must be those of the bare library's ids. CPU is of every process of
a server but the engine's own and the launcher; llama.cpp's is one process, whose parts cannot be
told apart.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("src", "tests", "benchmarks/engine", "benchmarks/pipeline")
sys.path[:0] = [str(ROOT / part) for part in PARTS]

import bench_requests  # noqa: E402
import machine  # noqa: E402
from engine_servers import (  # noqa: E402
    Running,
    by_name,
    llama_cpp,
    outside,
    trellis,
    trellis_request,
    trellis_text,
    vllm_api,
    vllm_request,
    vllm_text,
)
from http_stream import post  # noqa: E402
from stream_burst import Numbers, burst, grpc_burst, summary  # noqa: E402
from texts import Texts  # noqa: E402

from support.engines import lay_out_engine  # noqa: E402
from trellis.engine_files.engine_folder import read_engine  # noqa: E402
from trellis.engine_host.engines.openvino_queue import cache_blocks  # noqa: E402
from trellis.gateway.access.key_file import KeyEntry, digest, new_key, write_keys  # noqa: E402
from trellis.repository.assemble import Plan, assemble  # noqa: E402
from trellis.tokenizers import Tokenizer, load  # noqa: E402

BARE, HTTP, CHAT, GRPC, LLAMA, VLLM = "bare", "http", "chat", "grpc", "llama.cpp", "vllm"
GRPC_KEYS = "grpc-keys"
ALL = (BARE, HTTP, CHAT, GRPC, LLAMA, VLLM)  # and GRPC_KEYS, if it is asked for
TRELLIS = (HTTP, CHAT, GRPC)
ENGINE_PROCESS = "engine process"
WARM_TOKENS = 4  # before each turn: else whoever follows another engine wakes its own for the rest
MOST_TOKENS = 512  # of a prompt and its answer, chat template included
Prompts = Sequence[str]


class Contender(Protocol):
    """What answers bursts."""

    def burst(self, prompts: Prompts, tokens: int) -> tuple[Numbers, list[str]]:
        """Its numbers, and the texts; [] where they are not read."""


class Bare:
    """The library in a process that is asked by lines."""

    def __init__(self, process: "subprocess.Popen[str]", tokenizer: Tokenizer) -> None:
        self._process = process
        self._tokenizer = tokenizer

    def burst(self, prompts: Prompts, tokens: int) -> tuple[Numbers, list[str]]:
        """See Contender."""
        task = {"prompts": [self._tokenizer.encode(text) for text in prompts], "tokens": tokens}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        made = json.loads(self._process.stdout.readline())
        return made["numbers"], [self._tokenizer.decode(ids) for ids in made["ids"]]


class Served:
    """A server, and how it is asked."""

    def __init__(
        self,
        running: Running,
        request: Callable[[str, int], bytes],
        text_of: Callable[[Any], str],
        counted: bool = True,
    ) -> None:
        """`counted`: whether what is not the engine can be told apart."""
        self._running = running
        self._request = request
        self._text_of = text_of
        self._counted = counted

    def burst(self, prompts: Prompts, tokens: int) -> tuple[Numbers, list[str]]:
        """See Contender."""
        names = self._running.names()
        asked = [self._request(text, tokens) for text in prompts]
        done = burst(self._running.port, asked, list(names), self._text_of)
        numbers = summary(done.streams, tokens)
        if self._counted:
            used = by_name(done.cpu, names)
            used.pop(ENGINE_PROCESS, 0.0)
            numbers["cpu_us_per_token"] = 1e6 * outside(used) / numbers["tokens"]
        return numbers, [stream.text for stream in done.streams]


class ByGrpc:
    """Trellis over gRPC."""

    def __init__(self, running: Running, key: str = "") -> None:
        self._running = running
        self._key = key

    def burst(self, prompts: Prompts, tokens: int) -> tuple[Numbers, list[str]]:
        """See Contender."""
        names = self._running.names()
        values = {"max_tokens": tokens, "stream": True, "end_id": -1}
        asked = [
            bench_requests.grpc_request(f"{at}", {"text_input": text, **values})
            for at, text in enumerate(prompts)
        ]
        done = grpc_burst(self._running.grpc, asked, list(names), self._key)
        numbers = summary(done.streams, tokens)
        used = by_name(done.cpu, names)
        used.pop(ENGINE_PROCESS, 0.0)
        numbers["cpu_us_per_token"] = 1e6 * outside(used) / numbers["tokens"]
        return numbers, []


class Bench:
    """The folders that all are served from."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.engine, self.tokenizer_dir = lay_out_engine(folder, "openvino")
        self.tokenizer = load("gpt2", self.tokenizer_dir)
        self._texts = Texts(self.tokenizer)
        self._seeds = itertools.count()

    def prompts(self, count: int) -> list[str]:
        """So many that were not sent before."""
        return [
            self._texts.prompt("en", self.options.prompt_tokens, next(self._seeds))
            for _ in range(count)
        ]

    @contextlib.contextmanager
    def contenders(self, wanted: Sequence[str]) -> Iterator[dict[str, Contender]]:
        """Those of them that there are here, ready."""
        with contextlib.ExitStack() as stack:
            found: dict[str, Contender] = {}
            if BARE in wanted:
                found[BARE] = Bare(stack.enter_context(self._bare()), self.tokenizer)
            if any(name in wanted for name in TRELLIS):
                running = stack.enter_context(self._trellis())
                made: dict[str, Contender] = {
                    HTTP: Served(running, trellis_request, trellis_text),
                    CHAT: Served(running, chat_request, chat_text),
                    GRPC: ByGrpc(running),
                }
                found |= {name: made[name] for name in TRELLIS if name in wanted}
            if GRPC_KEYS in wanted:
                keys, key = self.folder / "keys.yaml", new_key()
                write_keys(keys, {"bench": KeyEntry(sha256=digest(key))})
                found[GRPC_KEYS] = ByGrpc(stack.enter_context(self._trellis(keys)), key)
            if LLAMA in wanted and self.options.llama_server:
                running = stack.enter_context(self._llama_cpp())
                found[LLAMA] = Served(running, llama_request, vllm_text, counted=False)
            if VLLM in wanted and importlib.util.find_spec("vllm"):
                checkpoint, tokenizer = lay_out_engine(self.folder, "vllm")
                running = stack.enter_context(self._vllm(checkpoint, tokenizer))

                def ask(text: str, tokens: int) -> bytes:
                    return vllm_request(str(checkpoint), self.tokenizer.encode(text), tokens)

                found[VLLM] = Served(running, ask, vllm_text)
            yield {name: found[name] for name in wanted if name in found}

    @property
    def _most(self) -> int:
        return int(max(self.options.streams))

    @contextlib.contextmanager
    def _bare(self) -> Iterator["subprocess.Popen[str]"]:
        scheduler = {
            "max_num_seqs": self._most,
            "num_kv_blocks": cache_blocks(self._most * MOST_TOKENS),
            "enable_prefix_caching": True,
        }
        script = ROOT / "benchmarks" / "engine" / "bare_openvino.py"
        model = next(self.engine.glob("*.gguf"))
        process = subprocess.Popen(
            [sys.executable, str(script), str(model), json.dumps(scheduler)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) != "ready\n":
                if not line:
                    raise RuntimeError("OpenVINO could not load the model")
            yield process
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def _trellis(self, keys: Path | None = None) -> Iterator[Running]:
        repository = self.folder / ("repository" if keys is None else "keyed")
        settings = {
            "triton_max_batch_size": str(self._most),
            "max_tokens_in_paged_kv_cache": str(self._most * MOST_TOKENS),
            "enable_kv_cache_reuse": "true",
        }
        assemble(
            Plan(read_engine(self.engine), "gpt2", self.tokenizer_dir, settings=settings),
            repository,
        )
        more = () if keys is None else ("--api-keys", str(keys))
        log = repository.with_suffix(".log")
        with trellis(repository, log, "--no-check", *more) as running:
            yield running

    @contextlib.contextmanager
    def _llama_cpp(self) -> Iterator[Running]:
        model = next(self.engine.glob("*.gguf"))
        log = self.folder / "llama.log"
        size = self._most * MOST_TOKENS
        with llama_cpp(self.options.llama_server, model, log, self._most, size) as running:
            yield running

    @contextlib.contextmanager
    def _vllm(self, checkpoint: Path, tokenizer: Path) -> Iterator[Running]:
        arguments = {
            "max_model_len": MOST_TOKENS,
            "max_num_seqs": self._most,
            "dtype": "bfloat16",
            "enforce_eager": True,
        }
        with vllm_api(checkpoint, tokenizer, self.folder / "vllm.log", arguments) as running:
            yield running


def chat_request(text: str, tokens: int) -> bytes:
    """A chat of one message, exactly so many tokens of answer."""
    values = {"max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True}
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": "ensemble", "messages": messages, **values})
    return post("/v1/chat/completions", body.encode())


def chat_text(event: Any) -> str:
    """The text in one event of a chat completion."""
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def llama_request(text: str, tokens: int) -> bytes:
    """The same of llama.cpp's server, which encodes the prompt itself."""
    values = {"max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True}
    body = json.dumps({"prompt": text, "cache_prompt": False, **values})
    return post("/v1/completions", body.encode())


def run(options: argparse.Namespace) -> Numbers:
    """A turn each in every round; the first round warms up."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result: Numbers = {"machine": machine.describe(), "cases": {}, "wrong": []}
    with tempfile.TemporaryDirectory(prefix="trellis-bench-") as folder:
        bench = Bench(Path(folder).resolve(), options)
        with bench.contenders(options.contenders) as contenders:
            for at in range(-1, options.rounds):
                for streams in options.streams:
                    for name, contender in contenders.items():
                        contender.burst(bench.prompts(1), WARM_TOKENS)
                        numbers, _ = contender.burst(bench.prompts(streams), options.tokens)
                        print(_line(at, name, streams, numbers), file=sys.stderr, flush=True)
                        if at >= 0:
                            case = result["cases"].setdefault(str(streams), {})
                            case.setdefault(name, []).append(numbers)
            result["wrong"] = _wrong(bench, contenders, options.tokens)
    return result


def _wrong(bench: Bench, contenders: dict[str, Contender], tokens: int) -> list[str]:
    """Texts that are not the bare library's, one prompt at a time."""
    if BARE not in contenders or HTTP not in contenders:
        return []
    found = []
    for text in bench.prompts(4):
        _, expected = contenders[BARE].burst([text], tokens)
        _, got = contenders[HTTP].burst([text], tokens)
        if got != expected:
            found.append(f"{text!r}: {got[0]!r}, not {expected[0]!r}")
    return found


def _line(at: int, name: str, streams: int, numbers: Numbers) -> str:
    rate, first = numbers["tokens_per_second"], numbers["first_token_ms"]["median"]
    return f"{at}: {name}, {streams}: {rate:.0f} tokens/s, first token {first:.0f} ms"


def table(result: Numbers) -> str:
    """Markdown: medians of the rounds."""
    lines = [
        "| streams | what | tokens/s (each round) | of bare | first token, ms | gap p99, ms"
        " | µs of CPU a token beside the engine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for streams, case in result["cases"].items():
        for name, rounds in case.items():
            each = [one["tokens_per_second"] for one in rounds]
            lines.append(
                f"| {streams} | {name} | {statistics.median(each):.0f}"
                f" ({', '.join(f'{value:.0f}' for value in each)}) | {_of_bare(case, name)}"
                f" | {_median(rounds, 'first_token_ms', 'median'):.0f}"
                f" | {_median(rounds, 'gap_ms', 'p99'):.0f} | {_cpu(rounds)} |"
            )
    lines += ["", f"wrong: {'; '.join(result['wrong']) or 'none'}"]
    return "\n".join(lines)


def _of_bare(case: Numbers, name: str) -> str:
    """The median of the rounds' ratios."""
    if BARE not in case or name == BARE:
        return "–"
    pairs = zip(case[name], case[BARE], strict=True)
    ratio = statistics.median(
        one["tokens_per_second"] / bare["tokens_per_second"] for one, bare in pairs
    )
    return f"{ratio:.3f}"


def _median(rounds: Sequence[Numbers], name: str, what: str) -> float:
    values: list[float] = [one[name][what] for one in rounds]
    return statistics.median(values)


def _cpu(rounds: Sequence[Numbers]) -> str:
    found = [one["cpu_us_per_token"] for one in rounds if "cpu_us_per_token" in one]
    return f"{statistics.median(found):.0f}" if found else "–"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--streams", type=lambda text: [*map(int, text.split(","))], default=[1, 4, 16, 32]
    )
    parser.add_argument("--prompt_tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=[*ALL])
    parser.add_argument("--llama-server", default="", help="the program of llama.cpp")
    parser.add_argument("--out", type=Path, default=None, help="OUT.json and OUT.png")
    options = parser.parse_args()
    result = run(options)
    if options.out:
        from engine_plots import draw

        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, options.out.with_suffix(".png"))
    print(table(result))
    sys.exit(bool(result["wrong"]))


if __name__ == "__main__":
    main()
