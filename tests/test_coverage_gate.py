"""The gate of `ci/unit`: what it counts as one package, and where it fails."""

import json
from pathlib import Path

import pytest

from support.coverage_gate import GATED, Lines, by_package, failures, main
from support.paths import ROOT


def report(folder: Path, **lines: tuple[int, int]) -> Path:
    """A report of coverage's: a module of each package, with so many lines, and so many ran."""
    files = {
        f"{ROOT}/src/trellis/{name}/module.py": {
            "summary": {"num_statements": every, "covered_lines": ran}
        }
        for name, (every, ran) in lines.items()
    }
    path = folder / "coverage.json"
    path.write_text(json.dumps({"files": files}))
    return path


def test_modules_of_a_package_and_of_its_folders_are_counted_together(tmp_path: Path) -> None:
    counted = {"num_statements": 10, "covered_lines": 4}
    files = {
        f"src/trellis/{name}": {"summary": counted}
        for name in ("files.py", "engine_host/queue.py", "engine_host/engines/gpus.py")
    }
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"files": files}))
    assert by_package(path) == {".": Lines(10, 4), "engine_host": Lines(20, 8)}


def test_a_gated_package_below_the_gate_fails_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enough = dict.fromkeys(GATED, (100, 90))
    assert main(str(report(tmp_path, **enough))) == 0
    low = enough | {"pipeline": (1000, 899)}
    assert main(str(report(tmp_path, **low))) == 1
    assert "pipeline: 89.9 % of its lines ran, fewer than 90 %" in capsys.readouterr().err


def test_a_package_that_was_not_measured_fails_and_one_without_a_gate_does_not(
    tmp_path: Path,
) -> None:
    packages = by_package(report(tmp_path, soak=(100, 0)))
    assert failures(packages) == [f"{name}: no line of it was measured" for name in GATED]


def test_every_gated_package_is_one() -> None:
    assert all((ROOT / "src" / "trellis" / name / "__init__.py").is_file() for name in GATED)
