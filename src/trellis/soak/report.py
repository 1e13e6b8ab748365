# SPDX-License-Identifier: Apache-2.0
"""The tables that a soak ends with."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from trellis.soak.measure import Held, rows, slopes
from trellis.soak.traffic import FAILED, HUNG, RIGHT, WRONG, Tally


def show(
    console: Console,
    tally: Tally,
    start: Held,
    end: Held,
    looks: Sequence[tuple[float, Held]],
    left: list[str],
) -> None:
    """Requests by kind and outcome; errors by kind; what was held at the start and the end.

    looks: seconds and what was held then, from time to time under load.
    """
    requests = Table("kind", RIGHT, WRONG, HUNG, FAILED, title="requests")
    kinds = sorted({kind for kind, _ in tally.counts})
    for kind in kinds:
        counts = [tally.counts[kind, outcome] for outcome in (RIGHT, WRONG, HUNG, FAILED)]
        requests.add_row(kind, *map(str, counts))
    totals = [
        sum(tally.counts[kind, outcome] for kind in kinds)
        for outcome in (RIGHT, WRONG, HUNG, FAILED)
    ]
    requests.add_row("all", *map(str, totals), style="bold")
    console.print(requests)
    for error, count in tally.errors.most_common(20):
        console.print(f"{count} x {error}", markup=False)
    held = Table("held by the server", "start", "end", "an hour, by the later half", title="leaks")
    for row in rows(start, end, slopes(looks)):
        held.add_row(*row)
    held.add_row("left after it was stopped", "", ", ".join(left) or "nothing")
    console.print(held)
