"""Two runs side by side: what changed by more than both runs' own spread."""

from collections.abc import Iterator, Mapping
from typing import Any

from report import headline
from rich.console import Console
from rich.table import Table

# Figure -> how it is written; for those that are a rate, more is better.
FIGURES = {
    "cpu_us_per_chunk": "{:.0f} µs/chunk",
    "cpu_ms_per_request": "{:.3f} ms/request",
    "tokens_per_s": "{:,.0f} tokens/s",
    "ttft_p50": "{:.1f} ms first",
    "ttft_p50_added": "{:.2f} ms over triton",
    "of_raw_library": "{:.2f} of the raw library",
    "memory_mib": "{:.0f} MiB",
}
MORE_IS_BETTER = ("tokens_per_s", "of_raw_library")
HEADLINES = {"cpu_us_per_chunk", "cpu_ms_per_request"}  # a case is judged by one of them


def show(before: Mapping[str, Any], after: Mapping[str, Any], console: Console) -> None:
    """A table of what both runs measured."""
    table = Table(title=f"since {before['machine']['revision']}, {before['machine']['when']}")
    for head in ("case", "pipeline", "before", "after", "change", ""):
        table.add_column(head)
    for row in changes(before, after):
        table.add_row(*row)
    console.print(table)


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """case, pipeline, before, after, change in %, and `better`, `worse` or nothing."""
    for case, pipelines in after["cases"].items():
        for name, figures in pipelines.items():
            earlier = before["cases"].get(case, {}).get(name)
            if earlier is None:
                continue
            for figure, form in FIGURES.items():
                old, new = earlier.get(figure), figures.get(figure)
                if not old or not new or figure in HEADLINES - {headline(figures)}:
                    continue
                change = f"{100 * (new / old - 1):+.1f} %"
                yield (
                    case,
                    name,
                    form.format(old),
                    form.format(new),
                    change,
                    verdict(earlier, figures, figure),
                )


def verdict(before: Mapping[str, Any], after: Mapping[str, Any], figure: str) -> str:
    """`better` or `worse` where the two runs' rounds do not overlap, else nothing."""
    low, high = before["spread"].get(figure, [0, 0])
    least, most = after["spread"].get(figure, [0, 0])
    if least <= high and low <= most:
        return ""
    more = least > high
    return "better" if more == (figure in MORE_IS_BETTER) else "worse"
