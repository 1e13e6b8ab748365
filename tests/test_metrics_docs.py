"""docs/metrics.md says what the metrics page has."""

import re

from support.paths import ROOT
from trellis.contract.metrics import METRICS, NAMES
from trellis.gateway.metrics.record import REASONS, TOO_LONG

TEXT = (ROOT / "docs" / "metrics.md").read_text()
ROW = re.compile(r"\| `(trellis_\w+)` \| (\w+) \| (\w+) \| (.+?) \| (.+?) \|")


def test_the_table_is_that_of_the_code() -> None:
    rows = [
        (name, kind, where, tuple(re.findall(r"`(\w+)`", labels)), said)
        for name, kind, where, labels, said in ROW.findall(TEXT)
    ]
    assert rows == [(m.name, m.kind, m.where, m.labels, m.help) for m in METRICS]


def test_all_reasons_are_named() -> None:
    for reason in (*REASONS.values(), TOO_LONG, "other"):
        assert f"`{reason}`" in TEXT, reason


def test_others_names_are_named() -> None:
    for name in NAMES:
        assert f"| `{name}` | " in TEXT
    for metric in METRICS:
        if metric.vllm:
            assert f"`{metric.vllm.removeprefix('vllm:')}`" in TEXT, metric.vllm
        if metric.nvidia:
            assert f"`{metric.nvidia.split('/')[0]}`" in TEXT, metric.nvidia
