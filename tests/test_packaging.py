"""The folder tokenizers/ never shadows Hugging Face's package of that name."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.paths import ROOT

PLUGINS = sorted((ROOT / "model_repo_src").glob("*/1"))
FIND = "import tokenizers; print(tokenizers.Tokenizer.__module__, tokenizers.__file__)"


def found(cwd: Path, code: str = FIND) -> str:
    """What `import tokenizers` gives with this folder first on sys.path."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    ).stdout


def test_from_the_repository_root() -> None:
    assert "site-packages" in found(ROOT)


@pytest.mark.slow
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
    """What is imported by its bare name: the first found wins."""
    folders = [ROOT / "tests", ROOT / "benchmarks" / "pipeline", *PLUGINS]
    found_names = [path.stem for folder in folders for path in folder.glob("*.py")]
    found_names += [path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")]
    names = Counter([*found_names, "tokenizers", "trellis"])
    assert {name for name, times in names.items() if times > 1} == {"model"}, "Triton's name"


def test_every_folder_of_tests_is_a_package() -> None:
    """So that two tests in two folders may have one name, for pytest and for mypy."""
    for test in (ROOT / "tests").glob("*/**/test_*.py"):
        assert (test.parent / "__init__.py").exists(), test
