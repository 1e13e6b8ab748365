"""Results as pictures: CPU a chunk and latency over streams, CPU of every case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt
from report import headline

COLOURS = {
    "triton": "#7f7f7f",
    "do-nothing": "#bcbd22",
    "reference": "#d62728",
    "ours": "#1f77b4",
    "ours-front": "#9467bd",
    "ours-keyed": "#17becf",
    "ours-python": "#2ca02c",
}


def draw(results: Mapping[str, Any], stem: Path) -> list[Path]:
    """Write `stem`-streams.png, -cases.png and return their paths."""
    made = []
    over_streams = [name for name in results["cases"] if name.endswith("streams, paced")]
    if len(over_streams) > 1:
        made.append(
            _over_streams(results, over_streams, stem.with_name(f"{stem.name}-streams.png"))
        )
    made.append(_cases(results, stem.with_name(f"{stem.name}-cases.png")))
    return made


def _over_streams(results: Mapping[str, Any], cases: list[str], path: Path) -> Path:
    panels = {
        "CPU a chunk, µs": "cpu_us_per_chunk",
        "time to first token, p50, ms": "ttft_p50",
        "between tokens, p99, ms": "itl_p99",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(14, 4.2))
    streams = [int(case.split()[0]) for case in cases]
    for axis, (title, key) in zip(axes, panels.items(), strict=True):
        for name in results["pipelines"]:
            values = [results["cases"][case].get(name, {}).get(key) for case in cases]
            points = [(x, y) for x, y in zip(streams, values, strict=True) if y is not None]
            axis.plot(*zip(*points, strict=True), "o-", label=name, color=COLOURS.get(name))
        axis.set(xscale="log", title=title, xlabel="streams", ylim=(0, None))
        axis.set_xticks(streams, [str(x) for x in streams])
    axes[0].legend()
    return _saved(figure, path)


def _cases(results: Mapping[str, Any], path: Path) -> Path:
    cases = list(results["cases"])
    figure, axes = plt.subplots(
        (len(cases) + 3) // 4, 4, figsize=(16, 2.6 * ((len(cases) + 3) // 4)), squeeze=False
    )
    for axis, case in zip(axes.flat, cases, strict=False):
        pipelines = results["cases"][case]
        key = headline(next(iter(pipelines.values())))
        values = [figures[key] or 0 for figures in pipelines.values()]
        colours = [COLOURS.get(name, "#1f77b4") for name in pipelines]
        bars = axis.barh(list(pipelines), values, color=colours)
        axis.bar_label(bars, [f" {value:.3g}" for value in values], fontsize=8)
        axis.invert_yaxis()
        unit = "µs/chunk" if key == "cpu_us_per_chunk" else "ms/request"
        axis.set_title(f"{case}: CPU, {unit}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
    for axis in list(axes.flat)[len(cases) :]:
        axis.remove()
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
