"""Whether a chunk costs the same in short and in long streams.

CPU a chunk falls with a stream's length by itself, for a request's own cost goes over more chunks.
Two lengths tell them apart, since CPU a chunk = a chunk's + a request's x requests / chunks:

    10 tokens 70 µs, 100 tokens 25 µs -> a request 500 µs, a chunk 20 µs
"""

from collections.abc import Mapping
from typing import Any

from plan import LENGTHS, of_length
from rich.table import Table

Figures = Mapping[str, Any]


def by_length(cases: Mapping[str, Mapping[str, Figures]]) -> dict[str, dict[str, Any]]:
    """pipeline -> `request_us`, `chunk_us` by length, those of the longest's first and last tenth.

    Of pipelines that were measured at every length.
    """
    measured = [cases.get(of_length(tokens).name, {}) for tokens in LENGTHS]
    names = [name for name in measured[0] if all(name in case for case in measured)]
    return {name: _apart([case[name] for case in measured]) for name in names}


def _apart(figures: list[Figures]) -> dict[str, Any]:
    """Of one pipeline; `figures` are in the order of LENGTHS."""
    requests = [each["requests_per_s"] / each["chunks_per_s"] for each in figures]
    chunks = [each["cpu_us_per_chunk"] for each in figures]
    request = (chunks[0] - chunks[1]) / (requests[0] - requests[1])
    alone = [cpu - request * part for cpu, part in zip(chunks, requests, strict=True)]
    return {
        "request_us": request,
        "chunk_us": dict(zip(map(str, LENGTHS[1:]), alone[1:], strict=True)),
        "first_tenth_us": figures[-1]["first_tenth_us_per_chunk"],
        "last_tenth_us": figures[-1]["last_tenth_us_per_chunk"],
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each pipeline."""
    title = "µs CPU by a stream's length: a request's, and a chunk's without it"
    made = Table(title=title, title_justify="left", title_style="bold")
    longest = f"{LENGTHS[-1]:,}"
    heads = ["pipeline", "a request", *(f"{tokens:,} tokens" for tokens in LENGTHS[1:])]
    heads += [f"x from {LENGTHS[1]:,} to {longest}", f"{longest}: first, last tenth"]
    for head in heads:
        made.add_column(head, justify="left" if head == "pipeline" else "right")
    for name, figures in found.items():
        chunks = [figures["chunk_us"][str(tokens)] for tokens in LENGTHS[1:]]
        cells = [f"{value:.0f}" for value in (figures["request_us"], *chunks)]
        tenths = f"{figures['first_tenth_us']:.0f}, {figures['last_tenth_us']:.0f}"
        made.add_row(name, *cells, f"{chunks[-1] / chunks[0]:.2f}", tenths)
    return made
