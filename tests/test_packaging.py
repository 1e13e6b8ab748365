"""The folder tokenizers/ never shadows Hugging Face's package of that name."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIND = "import tokenizers; print(tokenizers.Tokenizer.__module__, tokenizers.__file__)"


def found(cwd: Path, code: str = FIND) -> str:
    """What `import tokenizers` gives with this folder first on sys.path."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    ).stdout


def test_from_the_repository_root() -> None:
    assert "site-packages" in found(ROOT)


@pytest.mark.parametrize("model", ["preprocessing", "tensorrt_llm", "postprocessing"])
def test_inside_an_assembled_model(demo_repo: Path, model: str) -> None:
    version = demo_repo / model / "1"
    assert "site-packages" in found(version)
    where = "import trellis.tokenizers as core; print(core.__file__)"
    assert str(version) in found(version, where)


def test_the_registry_loads_without_heavy_imports() -> None:
    code = (
        "import sys, trellis.tokenizers; "
        "print([n for n in ('torch', 'transformers', 'pydantic') if n in sys.modules])"
    )
    assert found(ROOT / "tests", code).strip() == "[]"


def test_no_two_modules_on_the_path_of_the_tests_share_a_name() -> None:
    """Helpers and the code under test are imported by their bare names: the first found wins."""
    folders = [path for path in (ROOT / "tests").iterdir() if not (path / "__init__.py").exists()]
    folders += [
        ROOT / "tests",
        ROOT / "benchmarks" / "pipeline",
        ROOT / "model_repo_src" / "shared",
    ]
    folders += (ROOT / "model_repo_src").glob("*/1")
    names = Counter(path.stem for folder in folders for path in folder.glob("*.py"))
    twice = {name for name, times in names.items() if times > 1}
    assert twice == {"conftest", "model"}, "pytest and Triton name these; rename the others"
