"""What the pipeline costs on top of the engine: `make bench`, or python benchmarks/pipeline --help.

Pipelines stand side by side on one engine, take turns, and are charged for every CPU second that
the operating system booked on any process of their server. `benchmarks/README.md` says the rest.
"""

import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import checkout  # noqa: F401  (first: it says where the next are)
import compare as comparison
import lengths
import machine
import plan
import report
import typer
from plan import Case
from repositories import chosen
from rich.console import Console
from rounds import Bench, bench

KINDS = ("llama", "gpt2", "llama3", "mistral", "t5", "auto")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="three cases, a minute or two")] = False,
    tokenizers: Annotated[
        bool, typer.Option("--tokenizers", help="also each tokenizer_type, in both languages")
    ] = False,
    pipelines: Annotated[str, typer.Option(help="some of them: a,b,c")] = "",
    cases: Annotated[str, typer.Option(help="only cases whose name matches: a|b")] = "",
    rounds: Annotated[int, typer.Option(help="turns of each pipeline")] = 3,
    out: Annotated[Path, typer.Option(help="where results go: OUT.json, OUT-*.png")] = Path(
        "benchmarks/results/pipeline"
    ),
    compare: Annotated[
        Path | None, typer.Option(help="an earlier run's JSON to compare with")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="measure a real engine's pipeline instead: a folder, as in make repo"),
    ] = "",
    tokenizer: Annotated[str, typer.Option(help="the tokenizer_type of --engine")] = "gpt2",
    tokenizer_dir: Annotated[str, typer.Option(help="its files, as in make repo")] = "",
    triton: Annotated[
        str, typer.Option(help="options for every tritonserver, separated by spaces")
    ] = "",
    list_cases: Annotated[bool, typer.Option("--list", help="only list the cases")] = False,
) -> None:
    """Measure, print tables, write JSON and pictures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the servers end, too
    console = Console(width=int(os.environ.get("COLUMNS", "170")))
    before = json.loads(compare.read_text()) if compare else None
    todo = plan.quick() if quick else plan.default()
    todo += plan.tokenizers(KINDS) if tokenizers else []
    todo = [case for case in todo if re.search(cases, case.name)]
    if list_cases:
        for case in todo:
            console.print(f"{case.name}: {', '.join(case.pipelines)}", highlight=False)
        return
    if not todo:
        sys.exit(f"bench: no case matches {cases!r}; --list lists them")
    try:
        names = [p.name for p in chosen([*filter(None, pipelines.split(","))] or plan.ALL)]
    except ValueError as error:
        sys.exit(f"bench: {error}")
    about = machine.describe()
    with bench(
        rounds, lambda text: print(text, file=sys.stderr), extra=tuple(triton.split())
    ) as it:
        if engine:
            it.real(engine, tokenizer, tokenizer_dir)
            todo = [
                replace(c, tokenizer=tokenizer) for c in plan.real() if re.search(cases, c.name)
            ]
            names = ["engine"]
        results = _results(it, todo, names, about)
    report.show(results, console)
    if before:
        comparison.show(before, results, console)
    _write(results, out, console)


def _results(
    it: Bench, todo: list[Case], names: list[str], about: dict[str, Any]
) -> dict[str, Any]:
    measured = it.run(todo, names)
    return {
        "machine": about | {"load_average_after": os.getloadavg()[0]},
        "rounds": it.rounds,
        "pipelines": names,
        "cases": measured,
        "by_length": lengths.by_length(measured),
        "ready_seconds": it.ready_seconds,
        "raw_tokenizer": it.raw,
    }


def _write(results: dict[str, Any], out: Path, console: Console) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f"{out.name}.json")
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    try:
        from plots import draw
    except ImportError:
        console.print(f"{file}; no pictures: matplotlib is missing (`make bench` installs it)")
        return
    console.print(", ".join(map(str, [file, *draw(results, out)])))


if __name__ == "__main__":
    typer.run(main)
