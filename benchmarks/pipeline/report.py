"""Results as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import lengths
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Results = Mapping[str, Any]
FLOOR, NOTHING = "triton", "do-nothing"
# Column -> (how a figure is written, figures). Where all are None the cell is empty, and a column
# of nothing else is left out.
STREAMED = {
    "µs CPU/chunk": ("{:.0f}", "cpu_us_per_chunk"),
    "chunks/s": ("{:,.0f}", "chunks_per_s"),
    "tokens/s": ("{:,.0f}", "tokens_per_s"),
    "first p50, p99 ms": ("{:.2f}", "ttft_p50", "ttft_p99"),
    "over triton ms": ("{:+.2f}", "ttft_p50_added", "ttft_p99_added"),
    "gap p50, p99 ms": ("{:.1f}", "itl_p50", "itl_p99"),
    "MiB": ("{:.0f}", "memory_mib"),
}
UNSTREAMED = {
    "ms CPU/request": ("{:.3f}", "cpu_ms_per_request"),
    "requests/s": ("{:,.0f}", "requests_per_s"),
    "prompt tokens/s": ("{:,.0f}", "prompt_tokens_per_s"),
    "pre x raw library": ("{:.2f}", "of_raw_library"),
    "p50 ms": ("{:.1f}", "request_p50"),
    "MiB": ("{:.0f}", "memory_mib"),
}
KINDS_SHOWN, FAULT_WIDTH = 3, 60  # of what was wrong; the JSON has all of it
MODELS = ("tritonserver", "front", "preprocessing", "tensorrt_llm", "postprocessing")


def show(results: Results, console: Console) -> None:
    """One table for each case, and what went wrong."""
    raw = results.get("raw_tokenizer", {})
    for case, pipelines in results["cases"].items():
        about = (
            f" (raw library: {raw[case]:,.0f} prompt tokens a CPU second)" if case in raw else ""
        )
        console.print(_table(case, pipelines, about))
    if results.get("by_length"):
        console.print(lengths.table(results["by_length"]))
    if results.get("ready_seconds"):
        ready = ", ".join(f"{name} {s:.1f}" for name, s in results["ready_seconds"].items())
        console.print(f"seconds to ready: {ready}")


def headline(figures: Mapping[str, Any]) -> str:
    """The figure that a case is judged by: CPU a chunk where it streams, else CPU a request."""
    streamed = figures["cpu_us_per_chunk"] is not None
    return "cpu_us_per_chunk" if streamed else "cpu_ms_per_request"


def ratio(pipelines: Mapping[str, Any], name: str, to: str) -> float | None:
    """A pipeline's headline figure over another's, if both have one."""
    if to not in pipelines:
        return None
    figure = headline(pipelines[name])
    own, others = pipelines[name][figure], pipelines[to][figure]
    return own / others if own and others else None


def _table(case: str, pipelines: Mapping[str, Any], about: str = "") -> Table:
    streamed = headline(next(iter(pipelines.values()))) == "cpu_us_per_chunk"
    table = Table(title=case + about, title_justify="left", title_style="bold")
    table.add_column("pipeline", no_wrap=True)
    columns = {
        head: [_cells(figures, wanted, form) for figures in pipelines.values()]
        for head, (form, *wanted) in (STREAMED if streamed else UNSTREAMED).items()
    }
    columns = {head: cells for head, cells in columns.items() if any(cells)}
    heads = [*columns, "x floor", "x do-nothing", "±%", "CPU: server, front, pre, engine, post"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=head in columns)
    table.add_column("wrong")
    for at, (name, figures) in enumerate(pipelines.items()):
        cells = [column[at] for column in columns.values()]
        cells += [_cell(ratio(pipelines, name, to), "{:.2f}") for to in (FLOOR, NOTHING)]
        cells += [_cell(_spread(figures), "{:.0f}"), _shares(figures), _faults(figures)]
        table.add_row(name, *cells)
    return table


def _cells(figures: Mapping[str, Any], wanted: Sequence[str], form: str) -> str:
    """`1.5, 2.0`: those of the figures that there are."""
    return ", ".join(form.format(figures[name]) for name in wanted if figures.get(name) is not None)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _spread(figures: Mapping[str, Any]) -> float | None:
    """Half of what lies between the rounds' least and most, in % of the median."""
    figure = headline(figures)
    ends = figures["spread"].get(figure)
    return 50 * (ends[1] - ends[0]) / figures[figure] if ends and figures[figure] else None


def _shares(figures: Mapping[str, Any]) -> str:
    """How the CPU divides over the processes, in %."""
    cores = figures["cores_by_process"]
    return " ".join(
        f"{100 * cores[model] / figures['cores']:.0f}" if cores.get(model) else "-"
        for model in MODELS
    )


def _faults(figures: Mapping[str, Any]) -> str:
    """`5 chunks lost, 2 no end came, 9 of 4 other kinds`: the most frequent first."""
    kinds = sorted(figures["wrong"].items(), key=lambda kind: -kind[1])
    faults = [f"{count} {_shortened(fault)}" for fault, count in kinds[:KINDS_SHOWN]]
    if rest := kinds[KINDS_SHOWN:]:
        faults.append(f"{sum(count for _, count in rest)} of {len(rest)} other kinds")
    if figures["lost_chunks"]:
        faults.append(f"({figures['lost_chunks']} chunks)")
    return ", ".join(faults)


def _shortened(fault: str) -> str:
    shown = fault if len(fault) <= FAULT_WIDTH else f"{fault[: FAULT_WIDTH - 1]}…"
    return escape(shown)  # Triton's begin with [request id: 7]
