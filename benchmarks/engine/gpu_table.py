# SPDX-License-Identifier: Apache-2.0
"""What `gpu_vllm.py` measured, as Markdown: medians over all turns of a machine."""

import statistics
from collections.abc import Sequence
from typing import Any

NAMES = {
    "bare": "AsyncLLM alone",
    "trellis": "Trellis",
    "triton": "Trellis, --no-short-way",
    "api": "vLLM's API server",
}
HEAD = (
    "| machine | GPUs | streams | what | tokens/s (each burst) | of bare | first token, p50 ms"
    " | later than bare, ms | between tokens, p50 / p99 ms | µs of CPU a token |"
)
Key = tuple[str, int, str]


def table(results: Sequence[Any]) -> str:
    """Markdown of some files, those of one machine together, and what is to be known beside."""
    groups: dict[tuple[str, int], list[Any]] = {}
    for result in results:
        gpus = result["machine"]["gpus"]
        where = gpus[0] if gpus else f"CPU, {result['machine']['cores']} cores"
        groups.setdefault((where, result["world_size"]), []).append(result)
    lines = [HEAD, "|" + " --- |" * (HEAD.count("|") - 1)]
    notes = []
    for (where, world_size), members in groups.items():
        turns = [turn for member in members for turn in member["turns"]]
        lines += _rows(where, world_size, turns)
        notes += _notes(where, world_size, members, turns)
    return "\n".join([*lines, "", *notes])


def _rows(where: str, world_size: int, turns: Sequence[Any]) -> list[str]:
    rows = []
    sizes = dict.fromkeys(size for turn in turns for size in turn.get("bursts", {}))
    for size in sizes:
        bare = _bursts(turns, "bare", size)
        for what, name in NAMES.items():
            bursts = _bursts(turns, what, size)
            if bursts:
                cells = [where, str(world_size), size, name, *_cells(bursts, bare, what)]
                rows.append(f"| {' | '.join(cells)} |")
    return rows


def _bursts(turns: Sequence[Any], what: str, size: str) -> list[Any]:
    of_kind = [turn for turn in turns if turn["what"] == what]
    return [numbers for turn in of_kind for numbers in turn.get("bursts", {}).get(size, ())]


def _cells(bursts: Sequence[Any], bare: Sequence[Any], what: str) -> list[str]:
    rate, first = _median(bursts, "tokens_per_second"), _median(bursts, "first_token_ms", "median")
    each = ", ".join(f"{numbers['tokens_per_second']:.0f}" for numbers in bursts)
    share = later = ""
    if bare and what != "bare":
        share = f"{rate / _median(bare, 'tokens_per_second'):.1%}"
        later = f"{first - _median(bare, 'first_token_ms', 'median'):.0f}"
    apart = [numbers for numbers in bursts if numbers["gap_ms"]]  # an answer may be one chunk
    gaps = [f"{_median(apart, 'gap_ms', key):.1f}" for key in ("median", "p99") if apart]
    return [
        f"{rate:.0f} ({each})",
        share,
        f"{first:.0f}",
        later,
        " / ".join(gaps),
        f"{_median(bursts, 'cpu_us_per_token'):.1f}",
    ]


def _median(bursts: Sequence[Any], *keys: str) -> float:
    def number(found: Any) -> float:
        for key in keys:
            found = found[key]
        return float(found)

    return statistics.median(map(number, bursts))


def _notes(where: str, world_size: int, members: Sequence[Any], turns: Sequence[Any]) -> list[str]:
    """Texts against the bare engine's, CPU by process, memory as estimated and as vLLM says."""
    lines = [f"{where}, {world_size} GPU(s):", ""]
    texts = [turn["sample_texts"] for turn in turns if turn["what"] == "bare" and _worked(turn)]
    for turn in turns:
        what = NAMES[turn["what"]]
        if not _worked(turn):
            lines.append(f"- {what}: failed: {turn['error'].splitlines()[-1:]}")
        elif texts:
            pairs = zip(turn["sample_texts"], texts[0], strict=True)
            same = sum(got == right for got, right in pairs)
            lines.append(f"- {what}: {same} of {len(texts[0])} texts are those of the bare ids")
    for what, name in NAMES.items():
        for size in dict.fromkeys(size for turn in turns for size in turn.get("bursts", {})):
            bursts = [one for one in _bursts(turns, what, size) if "cpu_us_by_process" in one]
            if bursts:
                parts = bursts[-1]["cpu_us_by_process"]
                said = ", ".join(f"{part} {value:.1f}" for part, value in sorted(parts.items()))
                lines.append(f"- {name}, {size} streams, µs of CPU a token by process: {said}")
    for member in members[:1]:
        for check in member["check"]["checks"]:
            if "GPU" in check["what"]:
                said = f"{check['found']}; needed: {check['needed']}"
                lines.append(f"- preflight, {check['what']}: {said}")
    lines += [f"- vLLM: {line}" for line in _first_memory(turns)]
    return [*lines, ""]


def _worked(turn: Any) -> bool:
    return "error" not in turn


def _first_memory(turns: Sequence[Any]) -> list[str]:
    for turn in turns:
        if turn.get("memory"):
            found: list[str] = turn["memory"]
            return found
    return []
