"""The product's sources: nothing is unpickled, evaluated, or given to a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.tokenizers import load

FOLDERS = ("src", "tools", "tokenizers", "parsers", "model_repo_src")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "yaml.load"}


def forbidden(tree: ast.AST) -> Iterator[str]:
    """What a module does that it must not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or name.endswith(("torch.load", "np.load")):
                yield name
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in (("shell", True), ("allow_pickle", True)):
                    yield f"{name}({keyword.arg}=True)"


@pytest.mark.promise("shut")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pickle_no_eval_no_shell(source: Path) -> None:
    found = list(forbidden(ast.parse(source.read_text())))
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from marshal import loads", "eval('1')", "os.system('x')",
        "subprocess.run('x', shell=True)", "torch.load('x')", "np.load('x', allow_pickle=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert list(forbidden(ast.parse(text)))


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "os", "core", "core.registry", "tokenizers.evil", "a/b", ""]
)
def test_a_tokenizer_type_is_a_name_in_the_registry_and_no_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('this was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="tokenizer_type"):
        load(name, tmp_path, {})


def test_a_type_of_ones_own_is_copied_into_the_repository(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    engine, tokenizer = demo_engine
    mine = tmp_path / "mine.py"
    lines = [
        "from trellis.tokenizers.registry import type_module",
        'load = type_module("gpt2").load',
    ]
    mine.write_text("\n\n".join(['"""mine: gpt2."""', *lines, ""]))
    assemble(Plan(read_engine(engine), "mine", tokenizer, mine), tmp_path / "repo")
    mine.unlink()  # nothing outside the repository is needed, or read
    for model in ("preprocessing", "tensorrt_llm", "postprocessing"):
        assert (
            tmp_path / "repo" / model / "1" / "trellis" / "data" / "tokenizers" / "mine.py"
        ).is_file()
