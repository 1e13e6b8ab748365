"""The gateway stands for the plugins where their code is its own, and asks them where it is not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from support.fake_engines import write_engine
from support.paths import ROOT
from support.shown_config import config_of, model_of
from trellis.engine_files.engine_folder import EngineFolder, read_engine
from trellis.gateway.limits import LONG_BODY
from trellis.gateway.plugin_loading import is_own_engine, load_plugins
from trellis.gateway.plugins import Plugins
from trellis.gateway.routes import Route
from trellis.pipeline.hooks import FILE
from trellis.repository.assemble import Plan, assemble
from trellis.repository.manifest import (
    ENTRY,
    MANIFEST,
    foreign_code,
    read_manifest,
    wired_as_made,
)
from trellis.repository.parser_formats import find_parser
from trellis.tokenizers.fast import FastTokenizer

SOURCES = ROOT / "model_repo_src"


def test_the_entry_of_every_python_model_is_the_one_the_gateway_knows() -> None:
    for model in ("preprocessing", "tensorrt_llm", "postprocessing"):
        assert (SOURCES / model / "1" / "model.py").read_text() == ENTRY.format(model=model)


def test_an_engine_is_its_releases_own_until_its_code_is_edited(
    tmp_path: Path, llama_folder: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.gguf").write_bytes(b"weights")
    files = tuple((tmp_path / "out").iterdir())
    engine = EngineFolder(tmp_path / "out", "openvino", files, max_seq_len=99, vocab_size=32_000)
    repository = tmp_path / "triton_model_repo"
    assemble(Plan(engine, "llama", llama_folder), repository)
    config = config_of(repository, "tensorrt_llm")
    assert is_own_engine(config, repository)
    code = repository / "tensorrt_llm" / "1" / "trellis" / "engine_host" / "queue.py"
    before = code.read_text()
    code.write_text(f"{before}# mine\n")
    assert not is_own_engine(config, repository)
    code.write_text(before)
    adapter = code.parent / "engines" / "openvino.py"
    adapter.write_text(f"{adapter.read_text()}# mine\n")
    assert is_own_engine(config, repository)
    (repository / "tensorrt_llm" / "1" / "numpy.py").touch()  # would be imported in its place
    assert not is_own_engine(config, repository)


@pytest.fixture(params=["python", "0.17.0", pytest.param("0.5.0", marks=pytest.mark.slow)])
def repository(request: pytest.FixtureRequest, tmp_path: Path, llama_folder: Path) -> Path:
    if request.param == "python":
        (tmp_path / "out").mkdir()
        engine = EngineFolder(tmp_path / "out", "openvino", (), max_seq_len=99, vocab_size=32_000)
    else:
        engine = read_engine(write_engine(tmp_path / "out", request.param))
    target = tmp_path / "triton_model_repo"
    assemble(Plan(engine, "llama", llama_folder), target)
    return target


def way_of(repository: Path, **ensemble: Any) -> Route | None:
    return model_of(repository, **ensemble).route


def test_a_repository_as_it_is_made_is_asked_for_ids(repository: Path) -> None:
    way = way_of(repository)
    assert way is not None
    assert way.requests is not None
    assert way.engine is not None
    assert way.ensemble is not None
    assert (way.ensemble.model, way.engine.model) == ("ensemble_ids", "tensorrt_llm")
    loaded = way.requests.preprocessor.tokenizer
    assert loaded.decode == way.texts.decode  # one vocabulary, not two


def test_a_model_whose_ensemble_for_ids_is_not_loaded_has_its_engine_asked(
    repository: Path,
) -> None:
    shutil.rmtree(repository / "ensemble_ids")
    way = way_of(repository)
    assert way is not None
    assert way.ensemble is None
    assert way.engine is not None
    assert way.engine.model == "tensorrt_llm"


OWN_FORMAT = """
from trellis.parsers.registry import load as load_format
import dataclasses


def load():
    return dataclasses.replace(load_format("hermes"), name="mine")
"""


@pytest.mark.parametrize(
    ("parser", "every", "reasoning"),
    [
        ("none", None, None),
        ("hermes", "hermes", None),
        ("think", "think", "think"),
        ("think+hermes", "think+hermes", "think"),
        ("harmony", "harmony", "harmony"),
        ("think+mine.py", "think+mine", "think"),
    ],
)
def test_answers_are_read_by_the_formats_that_the_repository_names(
    tmp_path: Path, llama_folder: Path, parser: str, every: str | None, reasoning: str | None
) -> None:
    (tmp_path / "mine.py").write_text(OWN_FORMAT)
    (tmp_path / "out").mkdir()
    engine = EngineFolder(tmp_path / "out", "openvino", (), max_seq_len=99, vocab_size=32_000)
    formats = find_parser(parser.replace("mine.py", str(tmp_path / "mine.py")), llama_folder)
    target = tmp_path / "triton_model_repo"
    assemble(Plan(engine, "llama", llama_folder, parser=formats), target)
    plugins = plugins_of(target)
    assert not plugins.why_not
    found = (plugins.formats.all, plugins.formats.reasoning)
    assert tuple(each and each.name for each in found) == (every, reasoning)


def test_a_tokenizer_of_the_type_auto_is_read_as_the_type_that_owns_its_files(
    tmp_path: Path, llama_folder: Path
) -> None:
    target = assembled_auto(tmp_path, llama_folder)
    plugins = plugins_of(target)
    assert plugins.preprocessor is not None
    assert plugins.texts is not None
    assert not plugins.why_not


def test_a_tokenizer_of_transformers_stays_with_its_model(
    tmp_path: Path, llama_folder: Path
) -> None:
    target = assembled_auto(tmp_path, llama_folder)
    for model in ("preprocessing", "postprocessing"):
        for file in (target / model / "1" / "tokenizer").iterdir():
            file.unlink()  # what is left is for AutoTokenizer to say
    plugins = plugins_of(target)
    assert plugins.texts is None
    assert plugins.why_not == "its tokenizer is one of transformers"


def assembled_auto(folder: Path, tokenizer: Path) -> Path:
    (folder / "out").mkdir()
    engine = EngineFolder(folder / "out", "openvino", (), max_seq_len=99, vocab_size=32_000)
    target = folder / "triton_model_repo"
    assemble(Plan(engine, "auto", tokenizer), target)
    return target


def plugins_of(repository: Path) -> Plugins:
    before, last = (config_of(repository, name) for name in ("preprocessing", "postprocessing"))
    return load_plugins(before, last, repository)


def edit(file: Path) -> None:
    text = file.read_text()
    file.unlink()  # it may be a link
    file.write_text(text + "\n# text.replace('damn', '****')\n")


CODE = ("model.py", "trellis/pipeline/streams.py", "trellis/tokenizers/fast.py")


@pytest.mark.parametrize("file", CODE)
def test_a_postprocessing_of_ones_own_is_asked(repository: Path, file: str) -> None:
    edit(repository / "postprocessing" / "1" / file)
    assert way_of(repository) is None
    plugins = plugins_of(repository)
    assert plugins.why_not == f"{file}: not as `make repo` of this release makes it"


@pytest.mark.parametrize("file", [*CODE, "trellis/pipeline/prompts.py"])
def test_a_preprocessing_of_ones_own_is_asked(repository: Path, file: str) -> None:
    edit(repository / "preprocessing" / "1" / file)
    way = way_of(repository)
    assert way is not None
    assert way.requests is None


def test_a_module_that_was_added_is_an_edit(repository: Path) -> None:
    (repository / "postprocessing" / "1" / "sentencepiece.py").write_text("")
    assert way_of(repository) is None


def test_byte_code_and_parameters_are_no_edits(repository: Path) -> None:
    cache = repository / "postprocessing" / "1" / "trellis" / "__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"")
    file = repository / "preprocessing" / "config.pbtxt"
    file.write_text(file.read_text() + "# mine\n")
    way = way_of(repository)
    assert way is not None
    assert way.requests is not None


HOOKS = """
def prompt(text):
    return text.upper()

class Answer:
    def push(self, text):
        return f"<{text}>"
"""


@pytest.mark.slow
def test_hooks_are_no_edit_and_are_run_here(
    repository: Path, tmp_path: Path, llama_folder: Path
) -> None:
    """The short way stays open, and what goes it is hooked."""
    plain = way_of(repository)
    file = tmp_path / "my.py"
    file.write_text(HOOKS)
    engine = EngineFolder(tmp_path / "x", "openvino", (), max_seq_len=99, vocab_size=32_000)
    engine.path.mkdir()
    hooked = tmp_path / "hooked"
    assemble(Plan(engine, "llama", llama_folder, hooks=file), hooked)
    for model in ("preprocessing", "postprocessing"):
        assert (hooked / model / "1" / FILE).read_text() == HOOKS
        assert f"{model}/1/{FILE}" in read_manifest(hooked)
        assert foreign_code(hooked / model / "1") == []
        shutil.copy(file, repository / model / "1" / FILE)
    for made in (repository, hooked):
        way = way_of(made)
        assert plain is not None
        assert way is not None
        assert way.requests is not None
        (ids,) = way.requests.preprocessor.encode(["hello"])
        assert isinstance(ids, list)
        assert ids == plain.requests.preprocessor.encode(["HELLO"])[0]  # type: ignore[union-attr]
        assert way.texts.whole(ids) == "<HELLO>"
        assert way.texts.sequence().add(ids, ended=False) == "<HELLO>"


def test_an_ensemble_of_ones_own_is_asked(repository: Path) -> None:
    config = config_of(repository, "ensemble")
    another = {"name": "mine", "data_type": "TYPE_STRING", "dims": ["1"], "optional": True}
    assert way_of(repository, input=[*config["input"], another]) is None
    steps = config["ensemble_scheduling"]["step"]
    more = [*steps, {**steps[2], "model_name": "filter"}]
    shutil.copytree(repository / "postprocessing", repository / "filter")
    assert way_of(repository, ensemble_scheduling={"step": more}) is None
    other = [{**steps[0], "model_name": "filter"}, *steps[1:]]
    assert way_of(repository, ensemble_scheduling={"step": other}) is None


def shows(config: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The outputs of an ensemble, and one more."""
    return [*config["output"], {"name": name, "data_type": "TYPE_INT32", "dims": ["-1"]}]


def rewired(config: dict[str, Any], step: int, **wires: str) -> dict[str, Any]:
    """The steps of an ensemble, in which outputs of one go elsewhere."""
    steps = [dict(one) for one in config["ensemble_scheduling"]["step"]]
    steps[step]["output_map"] = {**steps[step]["output_map"], **wires}
    return {"step": steps}


def test_an_ensemble_that_shows_more_is_asked(repository: Path) -> None:
    config = config_of(repository, "ensemble")
    more = shows(config, "token_ids")  # the ids themselves, which the gateway takes for its text
    steps = rewired(config, 1, output_ids="token_ids")
    last = steps["step"][2] = dict(steps["step"][2])
    last["input_map"] = {**last["input_map"], "TOKENS_BATCH": "token_ids"}
    assert way_of(repository, output=more, ensemble_scheduling=steps) is None
    more = shows(config, "latency")  # of the engine, but not in the ensemble beside
    assert (
        way_of(repository, output=more, ensemble_scheduling=rewired(config, 1, x="latency")) is None
    )
    more = shows(config, "prompt_tokens")  # of `preprocessing`
    steps = rewired(config, 0, REQUEST_INPUT_LEN="prompt_tokens")
    assert way_of(repository, output=more, ensemble_scheduling=steps) is None


def test_versions_that_are_chosen_are_asked(repository: Path) -> None:
    steps = [dict(one) for one in config_of(repository, "ensemble")["ensemble_scheduling"]["step"]]
    steps[1]["model_version"] = "1"
    assert way_of(repository, ensemble_scheduling={"step": steps}) is None
    file = repository / "tensorrt_llm" / "config.pbtxt"
    file.write_text(file.read_text() + "version_policy { all { } }\n")
    assert way_of(repository) is None


def test_a_tokenizer_that_is_not_for_threads_encodes_in_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FastTokenizer, "thread_safe", False)
    way = way_of(repository)
    assert way is not None
    assert way.requests is not None
    values = {"text_input": "Hello", "max_tokens": 4}
    assert way.requests.body(values, "7", LONG_BODY) is not None
    assert way.requests.body(values, "7", LONG_BODY + 1) is None


def test_two_tokenizers_are_two(repository: Path) -> None:
    edit(repository / "postprocessing" / "1" / "trellis" / "data" / "tokenizers" / "llama.py")
    way = way_of(repository)
    assert way is not None
    assert way.requests is not None
    loaded = way.requests.preprocessor.tokenizer
    assert loaded.decode != way.texts.decode


EDITS = [
    ('name: "max_tokens"', 'name: "maxtokens"'),
    ("max_batch_size: 64", "max_batch_size: 32"),
    ('model_name: "tensorrt_llm"', 'model_name: "preprocessing"'),
    ("model_version: -1", "model_version: 1"),
]


@pytest.mark.parametrize("model", ["ensemble", "ensemble_ids"])
@pytest.mark.parametrize(("old", "new"), EDITS)
def test_an_ensemble_whose_file_was_edited_is_asked(
    repository: Path, model: str, old: str, new: str
) -> None:
    assert wired_as_made(repository, config_of(repository, model))
    file = repository / model / "config.pbtxt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert not wired_as_made(repository, config_of(repository, model))
    assert way_of(repository) is None


def test_a_comment_is_no_edit_of_an_ensemble(repository: Path) -> None:
    file = repository / "ensemble" / "config.pbtxt"
    file.write_text(file.read_text() + "# mine\n")
    assert way_of(repository) is not None


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {}}', '{"wirings": {}}', None])
def test_a_manifest_that_does_not_say_how_it_was_wired_is_no_proof(
    repository: Path, manifest: str | None
) -> None:
    (repository / MANIFEST).unlink()
    if manifest is not None:
        (repository / MANIFEST).write_text(manifest)
    assert way_of(repository) is None
