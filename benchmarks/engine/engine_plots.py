# SPDX-License-Identifier: Apache-2.0
"""The results of embedded_engine.py as a picture: tokens a second, first token, CPU."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt

COLOURS = {
    "bare": "#7f7f7f",
    "http": "#9467bd",
    "chat": "#e377c2",
    "grpc": "#1f77b4",
    "llama.cpp": "#d62728",
    "vllm": "#ff7f0e",
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with a panel for each."""
    panels: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "tokens a second": lambda one: one["tokens_per_second"],
        "first token, median, ms": lambda one: one["first_token_ms"]["median"],
        "µs of CPU a token beside the engine": lambda one: one.get("cpu_us_per_token"),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(14, 4.2))
    cases = result["cases"]
    streams = [int(name) for name in cases]
    names = list(dict.fromkeys(name for case in cases.values() for name in case))
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for name in names:
            points = []
            for number in streams:
                found = [value(one) for one in cases[str(number)].get(name, [])]
                known = [each for each in found if each is not None]
                if known:
                    points.append((number, statistics.median(known)))
            if points:
                axis.plot(*zip(*points, strict=True), "o-", label=name, color=COLOURS.get(name))
        axis.set(xscale="log", title=title, xlabel="streams", ylim=(0, None))
        axis.set_xticks(streams, [str(number) for number in streams])
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
