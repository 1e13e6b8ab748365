# SPDX-License-Identifier: Apache-2.0
"""The charts of docs/benchmarks.md, each of the JSON file of its name in benchmarks/results/.

    .venv/bin/python benchmarks/charts.py          # writes benchmarks/results/*.png

| JSON                | made by                                                        |
| ---                 | ---                                                            |
| chunks.json         | engine_chunks.py --streams 1,16,64 --out ...                   |
| engine.json         | make bench-engine BENCH="--out benchmarks/results/engine"      |
| vllm_h200_1.json    | gpu_vllm.py run --turns bare,trellis,api,trellis,bare          |
| workers.json        | gateway_workers.py --out ...                                   |

A chart whose JSON is not there is left out. The pipeline's own charts are drawn by `make bench`.
"""

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks" / part) for part in ("engine", "pipeline")]

import matplotlib  # noqa: E402

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt  # noqa: E402
from engine_plots import draw as draw_engine  # noqa: E402
from gpu_table import NAMES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("engine process", "tensorrt_llm", "gateway", "tritonserver", "API server")
COLOURS = ("#7f7f7f", "#1f77b4", "#9467bd", "#17becf", "#ff7f0e", "#2ca02c", "#d62728")
WAYS = {
    "python": "Python engine",
    "python-chat": "Python engine, chat",
    "python-triton": "Python engine, --no-short-way",
    "cpp": "C++ wiring",
    "vllm": "vLLM behind Trellis",
    "vllm-completions": "vLLM behind Trellis, /v1/completions",
    "vllm-triton": "vLLM, --no-short-way",
    "api": "vLLM's own API server",
}


def read(name: str) -> Any:
    """A result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def chunks() -> None:
    """Where the CPU of a paced chunk goes, by way and by process."""
    result = read("chunks")
    cases = result["cases"]
    figure, axes = plt.subplots(1, len(cases), figsize=(5 * len(cases), 3.6), squeeze=False)
    for axis, (streams, ways) in zip(axes[0], cases.items(), strict=True):
        names = [WAYS.get(name, name) for name in ways]
        left = [0.0] * len(names)
        for part, colour in zip(PARTS, COLOURS, strict=False):
            values = [
                statistics.median(one["us_by_process"].get(part, 0.0) for one in rounds)
                for rounds in ways.values()
            ]
            axis.barh(names, values, left=left, color=colour, label=part)
            left = [before + value for before, value in zip(left, values, strict=True)]
        axis.bar_label(axis.containers[-1], [f" {value:.0f}" for value in left], fontsize=8)
        axis.invert_yaxis()
        axis.set_title(f"{streams} streams: CPU of a paced chunk, µs", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
    save(figure, "chunks", axes[0][0])


def engine() -> None:
    """The embedded engine beside its bare library and its peers."""
    draw_engine(read("engine"), RESULTS / "engine.png")


def gpu() -> None:
    """vLLM on one H200: alone, behind Trellis, behind its own API server."""
    turns = read("vllm_h200_1")["turns"]
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.2))
    panels: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "tokens a second": lambda one: one["tokens_per_second"],
        "first token of a burst, median, ms": lambda one: one["first_token_ms"]["median"],
        "µs of CPU a token beside the engine core": lambda one: one["cpu_us_per_token"],
    }
    kinds = [what for what in NAMES if any(turn["what"] == what for turn in turns)]
    for axis, (title, value) in zip(list(axes), panels.items(), strict=True):
        for at, what in enumerate(kinds):
            bursts = [turn["bursts"] for turn in turns if turn["what"] == what]
            sizes = list(bursts[0])
            heights = [
                statistics.median(value(one) for burst in bursts for one in burst[size])
                for size in sizes
            ]
            places = [number + 0.27 * (at - 1) for number in range(len(sizes))]
            bars = axis.bar(places, heights, 0.25, label=NAMES[what], color=COLOURS[at])
            axis.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=8)
        axis.set_xticks(range(len(sizes)), [f"{size} streams" for size in sizes])
        axis.set_title(title, fontsize=9)
        axis.margins(y=0.12)
    save(figure, "gpu", axes[0])


def workers() -> None:
    """What several processes of the gateway carry."""
    cases: Mapping[str, Any] = read("workers")["cases"]
    units = {
        "whole": ("requests_per_second", "whole answers a second"),
        "streams": ("chunks_per_second", "C++ wiring: chunks a second"),
        "python": ("tokens_per_second", "Python engine: tokens a second"),
    }
    figure, axes = plt.subplots(1, len(cases), figsize=(4.6 * len(cases), 3.2), squeeze=False)
    for axis, (name, by_workers) in zip(axes[0], cases.items(), strict=True):
        key, title = units[name]
        numbers = [int(each) for each in by_workers]
        rounds: Sequence[Any] = list(by_workers.values())
        heights = [statistics.median(one[key] for one in each) for each in rounds]
        bars = axis.bar([str(number) for number in numbers], heights, color=COLOURS[2])
        axis.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=8)
        axis.set(xlabel="processes of the gateway")
        axis.set_title(title, fontsize=9)
        axis.margins(y=0.12)
    save(figure, "workers")


def save(figure: Any, name: str, legend_of: Any = None) -> None:
    """As benchmarks/results/NAME.png; the legend of one panel below all."""
    figure.tight_layout()
    if legend_of is not None:
        handles, labels = legend_of.get_legend_handles_labels()
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
        figure.legend(handles, labels, ncol=len(labels), fontsize=8, **place)
    figure.savefig(RESULTS / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    print(RESULTS / f"{name}.png")


def main() -> None:
    """Draw all that there is a result of."""
    for draw in (chunks, engine, gpu, workers):
        try:
            draw()
        except FileNotFoundError as error:
            print(f"left out: {error.filename}", file=sys.stderr)


if __name__ == "__main__":
    main()
