"""Coverage by package: `python -m support.coverage_gate coverage.json [WHAT_RAN]`.

Prints how many of the lines of each package of `src/trellis` ran. Fails where one of GATED lies
below LEAST percent, unless WHAT_RAN says that it was not the unit tests. What is not gated runs
behind real servers, in processes of their own.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

LEAST = 90.0  # percent of lines
GATED = (
    "contract",
    "gateway",
    "engine_files",
    "guides",
    "parsers",
    "pipeline",
    "preflight",
    "repository",
    "tokenizers",
)
PACKAGE = "src/trellis/"


class Lines(NamedTuple):
    """Lines of a package that can run, and those that did."""

    all: int
    ran: int

    @property
    def percent(self) -> float:
        """What ran, of 100; a package without lines is covered."""
        return 100.0 * self.ran / self.all if self.all else 100.0


def by_package(report: Path) -> dict[str, Lines]:
    """The lines of each package, of coverage's JSON report; modules of no package are `.`."""
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, found in json.loads(report.read_text())["files"].items():
        _, _, inside = file.replace("\\", "/").rpartition(PACKAGE)
        package, slash, _ = inside.partition("/")
        lines = counted[package if slash else "."]
        lines[0] += found["summary"]["num_statements"]
        lines[1] += found["summary"]["covered_lines"]
    return {name: Lines(*lines) for name, lines in sorted(counted.items())}


def failures(packages: dict[str, Lines]) -> list[str]:
    """What lies below the gate, a line each."""
    said = [f"{name}: no line of it was measured" for name in GATED if name not in packages]
    return said + [
        f"{name}: {packages[name].percent:.1f} % of its lines ran, fewer than {LEAST:.0f} %;"
        f" add tests to tests/unit/{name}"
        for name in GATED
        if name in packages and packages[name].percent < LEAST
    ]


def main(report: str, ungated: str = "") -> int:
    """Print the table; the exit status is 1 below the gate, unless `ungated` says what ran."""
    packages = by_package(Path(report))
    print(f"lines by package that {ungated or 'the unit tests'} ran (gate: {LEAST:.0f} %)")
    for name, lines in packages.items():
        gate = "gate" if name in GATED else ""
        print(
            f"  {name:15} {lines.percent:6.1f} %  {lines.ran:5} of {lines.all:5}  {gate}".rstrip()
        )
    failed = [] if ungated else failures(packages)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
