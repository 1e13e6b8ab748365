"""Wrong set-ups, each caught before anything is launched, with a message that says what to do."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from support.cli import failing, run
from support.fake_engines import config, write_engine
from support.fake_gpus import fake_gpus
from support.paths import ROOT
from trellis.engine_files.engine_config import read_engine_config
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight.engine import check_heads, check_ids, compare_vocabularies, fitting_sizes
from trellis.preflight.machine import check_shared_memory
from trellis.repository.assemble import Plan, assemble
from trellis.repository.model_config import parameters, parse_config
from trellis.repository.named_file import NamedFileError
from trellis.repository.template import fill, placeholders_in
from trellis.repository.tokenizer_type import find_type
from trellis.server.ports import free_ports

TEMPLATES = ROOT / "model_repo_src"
RELEASE, CONTAINER = "0.9.0", "24.05"


@dataclass
class Place:
    """A folder with an engine, a tokenizer and what else a set-up needs."""

    folder: Path
    tokenizer: Path

    @property
    def engine(self) -> Path:
        return self.folder / "llama-out"

    @property
    def repository(self) -> Path:
        return self.folder / "triton_model_repo"

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file of the repository."""
        path = self.repository / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def gpus(self, *sizes: int, used: int = 0) -> dict[str, str]:
        """An environment with GPUs of these many GiB, and the right container."""
        machine = fake_gpus(self.folder, *sizes, used=used)
        return {**machine, "NVIDIA_TRITON_SERVER_VERSION": CONTAINER}


@pytest.fixture
def place(tmp_path: Path, llama_folder: Path) -> Place:
    write_engine(tmp_path / "llama-out", RELEASE)
    return Place(tmp_path, llama_folder)


# make repo

Breaks = Callable[[Place], dict[str, str]]  # what is broken, and the options that it takes


def options(**changes: str) -> Breaks:
    return lambda place: changes


def no_engine(place: Place) -> dict[str, str]:
    for file in place.engine.iterdir():
        file.unlink()
    return {}


def json_of(text: str) -> Breaks:
    def write(place: Place) -> dict[str, str]:
        (place.engine / "config.json").write_text(text)
        return {}

    return write


def config_of(release: str = RELEASE, **changes: Any) -> Breaks:
    return json_of(json.dumps(config(release, **changes)))


def without(section: str, key: str, release: str = RELEASE) -> Breaks:
    data = config(release)
    del data[section][key]
    return json_of(json.dumps(data))


def file_of(name: str, content: bytes = b"") -> Breaks:
    def write(place: Place) -> dict[str, str]:
        (place.engine / name).write_bytes(content)
        return {}

    return write


def removed(name: str) -> Breaks:
    def remove(place: Place) -> dict[str, str]:
        (place.engine / name).unlink()
        return {}

    return remove


def foreign_folder(place: Place) -> dict[str, str]:
    place.repository.mkdir()
    (place.repository / "thesis.txt").write_text("mine")
    return {}


def edited_repository(place: Place) -> dict[str, str]:
    assemble(Plan(read_engine(place.engine), "llama", place.tokenizer), place.repository)
    place.edit("ensemble/config.pbtxt", "max_batch_size: 64", "max_batch_size: 32")
    return {}


def openvino_engine(place: Place) -> dict[str, str]:
    no_engine(place)
    (place.engine / "openvino_model.xml").write_text("<net/>")
    return {"trtllm": "0.9.0"}


def openvino_setting(place: Place) -> dict[str, str]:
    openvino_engine(place)
    return {"set": "enable_chunked_context:true"}


def two_gguf(place: Place) -> dict[str, str]:
    no_engine(place)
    (place.engine / "a.gguf").write_bytes(b"GGUF")
    (place.engine / "b.gguf").write_bytes(b"GGUF")
    return {}


def broken_gguf(place: Place) -> dict[str, str]:
    no_engine(place)
    (place.engine / "a.gguf").write_bytes(b"not one")
    return {}


def two_halves(place: Place) -> dict[str, str]:
    """As TensorRT-LLM's example of T5 and BART builds them."""
    no_engine(place)
    for half in ("encoder", "decoder"):
        write_engine(place.engine / half, RELEASE, architecture=f"{half.title()}Model")
    return {}


def encoder_in_openvino(place: Place) -> dict[str, str]:
    no_engine(place)
    for half in ("encoder", "decoder"):
        (place.engine / f"openvino_{half}_model.xml").write_text("<net/>")
    return {}


def checkpoint_of_t5(place: Place) -> dict[str, str]:
    no_engine(place)
    config = {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    (place.engine / "config.json").write_text(json.dumps(config))
    (place.engine / "model.safetensors").write_bytes(b"")
    return {}


def gguf_of_t5(place: Place) -> dict[str, str]:
    no_engine(place)
    writer = GGUFWriter(place.engine / "t5.gguf", "t5")
    writer.add_context_length(512)
    writer.add_tokenizer_model("t5")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return {}


HALF = "an encoder-decoder model ({}), which is not served: its prompt goes to the encoder and"
TWO_RANKS: dict[str, Any] = {"mapping": {"world_size": 2, "tp_size": 2, "pp_size": 1}}

REPO_SETUPS: dict[str, tuple[Breaks, str]] = {
    "no such engine": (options(engine="llama-aus"), "ENGINE=llama-aus: no such folder"),
    "empty engine folder": (no_engine, "found no engine; looked for config.json with *.engine"),
    "unreadable json": (json_of('{"version": '), "config.json: not readable as JSON: "),
    "json that is a list": (json_of("[]"), "config.json: not an object but list"),
    "config of a checkpoint": (
        json_of('{"model_type": "llama"}'),
        "not an engine's config.json: neither builder_config (0.5 to 0.7) nor pretrained_config",
    ),
    "key missing, new form": (
        without("pretrained_config", "num_attention_heads"),
        "config.json: pretrained_config.num_attention_heads: Field required",
    ),
    "key missing, old form": (
        without("builder_config", "precision", "0.5.0"),
        "config.json: builder_config.precision: Field required",
    ),
    "key of a wrong type": (
        config_of(max_batch_size="eight"),
        "config.json: build_config.max_batch_size: Input should be a valid integer",
    ),
    "no config.json": (removed("config.json"), "*.engine without config.json"),
    "rank file missing": (config_of(**TWO_RANKS), "no engine file for rank 1 of 2 (TP 2 x PP 1)"),
    "rank file empty": (file_of("rank0.engine"), "no engine file for rank 0 of 1"),
    "encoder and decoder": (two_halves, HALF.format("it holds encoder/ and decoder/")),
    "a decoder alone": (
        config_of(architecture="DecoderModel"),
        HALF.format("config.json says pretrained_config.architecture DecoderModel"),
    ),
    "cross attention": (
        config_of("0.7.2", cross_attention=True),
        HALF.format("config.json says builder_config.cross_attention"),
    ),
    "an encoder for OpenVINO": (
        encoder_in_openvino,
        HALF.format("it holds openvino_encoder_model.xml"),
    ),
    "a checkpoint of T5": (
        checkpoint_of_t5,
        HALF.format("config.json says is_encoder_decoder"),
    ),
    "a GGUF of T5": (gguf_of_t5, HALF.format("t5.gguf says general.architecture t5")),
    "release too old": (options(trtllm="0.4.1"), "TensorRT-LLM 0.4.1 is not supported; known:"),
    "release too new": (options(trtllm="2.0.0"), "TensorRT-LLM 2.0.0 is not supported; known:"),
    "no release at all": (options(trtllm="newest"), "'newest' is no TensorRT-LLM release; known:"),
    "release of another engine": (openvino_engine, "TRTLLM=0.9.0: ENGINE="),
    "setting of another engine": (
        openvino_setting,
        "SET: enable_chunked_context means nothing to this engine; leave it out",
    ),
    "unknown backend": (options(backend="tgi"), "BACKEND=tgi: not known; known: tensorrtllm"),
    "two models": (two_gguf, "more than one GGUF file (a.gguf, b.gguf); keep one"),
    "no real model": (broken_gguf, "a.gguf: not a readable GGUF file"),
    "mistyped tokenizer": (
        options(tokenizer="lama"),
        "TOKENIZER=lama: no such tokenizer_type; did you mean llama?",
    ),
    "tokenizer file missing": (options(tokenizer="mine.py"), "TOKENIZER=mine.py: no such file"),
    "tokenizer folder missing": (
        options(tokenizer_dir="nowhere"),
        "TOKENIZER_DIR=nowhere: no such folder",
    ),
    "mistyped key": (
        options(set="kv_cache_free_gpu_mem_fractoin:0.2"),
        "SET: no placeholder kv_cache_free_gpu_mem_fractoin; did you mean"
        " kv_cache_free_gpu_mem_fraction?",
    ),
    "no number": (
        options(set="triton_max_batch_size:many"),
        "triton_max_batch_size: 'many' does not fit; it takes a whole number of 1 or more",
    ),
    "fraction above 1": (
        options(set="kv_cache_free_gpu_mem_fraction:90"),
        "kv_cache_free_gpu_mem_fraction: '90' does not fit; it takes a number from 0 to 1",
    ),
    "neither true nor false": (
        options(set="decoupled_mode:yes"),
        "decoupled_mode: 'yes' does not fit; it takes true or false",
    ),
    "unknown policy": (
        options(set="batch_scheduler_policy:guarantee"),
        "it takes guaranteed_completion, max_utilization, static_batch",
    ),
    "no value": (options(set="max_beam_width"), "'max_beam_width' has no value; write"),
    "key twice": (
        options(set="max_beam_width:1,max_beam_width:2"),
        "max_beam_width is given twice; give it once",
    ),
    "more beams than built for": (
        options(set="max_beam_width:9"),
        "SET: max_beam_width: the engine was built for 4, not 9; build it with a larger one",
    ),
    "wrong dtype": (
        options(trtllm="0.17.0", set="logits_datatype:TYPE_FP23"),
        "logits_datatype: 'TYPE_FP23' does not fit; it takes TYPE_FP32, TYPE_FP16, TYPE_BF16",
    ),
    "placeholder as a value": (
        options(set="gpu_device_ids:${gpus}"),
        "gpu_device_ids: '${gpus}' does not fit",
    ),
    "unknown way to copy": (
        options(engine_copy="hardlink"),
        "ENGINE_COPY=hardlink: not known; known: link, copy, symlink",
    ),
    "relative mount": (
        options(mount="triton_model_repo"),
        "MOUNT=triton_model_repo: give an absolute path, such as /triton_model_repo",
    ),
    "somebody else's folder": (foreign_folder, "exists and was not made by `make repo`"),
    "edited repository": (
        edited_repository,
        "edited since it was made: ensemble/config.pbtxt; keep your changes with SET=key:value",
    ),
}


@pytest.mark.parametrize("setup", REPO_SETUPS)
def test_make_repo_refuses(place: Place, setup: str) -> None:
    breaks, message = REPO_SETUPS[setup]
    given = {"engine": str(place.engine), "tokenizer": "llama"}
    given |= {"tokenizer_dir": str(place.tokenizer), "model_repo": str(place.repository)}
    given |= breaks(place)
    before = sorted(place.folder.rglob("*"))
    done = run("assemble", *(f"--{name}={value}" for name, value in given.items()))
    assert done.status == 1
    assert message in done.output
    assert sorted(place.folder.rglob("*")) == before, "something half-written was left behind"


@dataclass
class Checkout:
    """A copy of what `make repo` reads, with templates that a test may change."""

    folder: Path

    def template(self, model: str) -> Path:
        return self.folder / "model_repo_src" / model / "config.pbtxt"

    def run(self, tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A tool of the copy."""
        command = [sys.executable, self.folder / "tools" / f"{tool}.py", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def assemble(self, place: Place) -> subprocess.CompletedProcess[str]:
        """The repository of the place's engine."""
        given = {"engine": place.engine, "tokenizer": "llama", "tokenizer_dir": place.tokenizer}
        given |= {"model_repo": place.repository}
        return self.run("assemble", *(f"--{name}={value}" for name, value in given.items()))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "checkout"
    for name in ("model_repo_src", "tokenizers", "parsers", "tools", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Checkout(folder)


def filled_in_place(checkout: Checkout, model: str) -> str:
    """Fill a template as a copy is filled, and put it in the template's place; what it was."""
    template = checkout.template(model)
    before = template.read_text()
    values = {name: "gpt2" for name in placeholders_in(before) if name == "tokenizer_type"}
    template.write_text(fill(before, values))
    return before


@pytest.mark.slow
@pytest.mark.parametrize("model", ["preprocessing", "postprocessing", "ensemble"])
def test_make_repo_refuses_a_template_that_was_filled_in_place(
    place: Place, checkout: Checkout, model: str
) -> None:
    before = filled_in_place(checkout, model)
    done = checkout.assemble(place)
    assert done.returncode == 1
    name = f"model_repo_src/{model}/config.pbtxt"
    assert f"assemble: {name}: was filled in place: no ${{...}} is left" in done.stderr
    assert f"(git checkout {name})" in done.stderr
    assert not place.repository.exists()
    checkout.template(model).write_text(before)
    done = checkout.assemble(place)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_engines_own_template_counts_where_it_is_used(place: Place, checkout: Checkout) -> None:
    filled_in_place(checkout, "tensorrt_llm")
    assert checkout.assemble(place).returncode == 0  # TensorRT-LLM's is written by its release
    no_engine(place)
    (place.engine / "openvino_model.xml").write_text("<net/>")
    shutil.rmtree(place.repository)
    assert (
        "model_repo_src/tensorrt_llm/config.pbtxt: was filled in" in checkout.assemble(place).stderr
    )


@pytest.mark.slow
def test_a_literal_of_ones_own_in_a_template_is_kept_and_said(
    place: Place, checkout: Checkout
) -> None:
    template = checkout.template("preprocessing")
    template.write_text(template.read_text().replace("${max_words}", "8"))
    done = checkout.assemble(place)
    assert done.returncode == 0
    assert done.stderr == (
        'assemble: model_repo_src/preprocessing/config.pbtxt: max_words is "8" there, whatever'
        " ENGINE=, TOKENIZER= and SET= say\n"
    )
    made = parse_config((place.repository / "preprocessing" / "config.pbtxt").read_text())
    assert parameters(made)["max_words"] == "8"


# tools/fill_template.py


@pytest.mark.slow
def test_fill_template_does_not_fill_what_make_repo_reads(checkout: Checkout) -> None:
    template = checkout.template("preprocessing")
    before = template.read_text()
    done = checkout.run("fill_template", "-i", template, "tokenizer_type:llama")
    assert done.returncode == 1
    assert "`make repo` reads this template, which has to keep its placeholders" in done.stderr
    assert template.read_text() == before
    assert checkout.run("fill_template", template, "tokenizer_type:llama").returncode == 0
    kept = checkout.run("fill_template", "-i", "--allow-unfilled", template, "max_words:8")
    assert kept.returncode == 0  # a fork's own value
    assert "${tokenizer_type}" in template.read_text()


TEMPLATE_SETUPS = {
    "mistyped key": (
        "preprocessing",
        "tokenizer_tipe:llama",
        "no placeholder tokenizer_tipe; did you mean tokenizer_type?",
    ),
    "key of another model": (
        "preprocessing",
        "tokenizer_type:llama,kv_cache_free_gpu_mem_fraction:0.2",
        "kv_cache_free_gpu_mem_fraction is no placeholder of this file, but of another model's",
    ),
    "nothing for a key without default": (
        "postprocessing",
        "tokenizer_dir:/llama-tokenizer",
        "no value for tokenizer_type; add tokenizer_type:value",
    ),
    "empty where there is no default": (
        "postprocessing",
        "tokenizer_type:",
        "tokenizer_type: is empty; a file of tokenizers/",
    ),
    "negative size": (
        "tensorrt_llm",
        "triton_max_batch_size:-4",
        "triton_max_batch_size: '-4' does not fit; it takes a whole number of 1 or more",
    ),
    "more than Triton can read": (
        "tensorrt_llm",
        "triton_max_batch_size:3000000000",
        "Value out of range: 3000000000",
    ),
    "backend that needs another template": (
        "tensorrt_llm",
        "triton_backend:tensorrtllm",
        "triton_backend: 'tensorrtllm' does not fit; it takes python",
    ),
}


@pytest.mark.parametrize("setup", TEMPLATE_SETUPS)
def test_fill_template_refuses(tmp_path: Path, setup: str) -> None:
    model, substitutions, message = TEMPLATE_SETUPS[setup]
    file = tmp_path / "config.pbtxt"
    text = (TEMPLATES / model / "config.pbtxt").read_text()
    file.write_text(text)
    done = run("fill_template", "--in_place", file, substitutions)
    assert done.status == 1
    assert message in done.output
    assert file.read_text() == text


# make check


def made(place: Place, release: str = RELEASE, **settings: str) -> Place:
    """The repository of the place's engine."""
    plan = Plan(
        read_engine(place.engine, release=release), "llama", place.tokenizer, settings=settings
    )
    assemble(plan, place.repository)
    return place


def test_a_sound_setup_passes_every_check(place: Place) -> None:
    assert failing(made(place).repository, *ports(), env=place.gpus(80)) == []


def ports() -> list[str]:
    http, grpc, metrics = free_ports(3)
    return [f"--http_port={http}", f"--grpc_port={grpc}", f"--metrics_port={metrics}"]


def leftover(place: Place) -> None:
    place.edit("tensorrt_llm/config.pbtxt", "guaranteed_completion", "${batch_scheduler_policy}")


def broken_line(place: Place) -> None:
    place.edit("ensemble/config.pbtxt", "max_batch_size: 64", "max_batch_size 64")


def second_instance(place: Place) -> None:
    place.edit("postprocessing/config.pbtxt", "count: 1", "count: 2")


def lost_engine(place: Place) -> None:
    (place.repository / "tensorrt_llm" / "1" / "rank0.engine").unlink()


def broken_config(place: Place) -> None:
    file = place.repository / "tensorrt_llm" / "1" / "config.json"
    file.unlink()  # it is a link to the engine's own
    file.write_text("{")


def lost_model(place: Place) -> None:
    (place.repository / "postprocessing" / "config.pbtxt").unlink()


def lost_tokenizer(place: Place) -> None:
    for file in (place.repository / "preprocessing" / "1" / "tokenizer").iterdir():
        file.unlink()


def moved(place: Place) -> None:
    again = place.folder / "again"
    again.mkdir()
    place.repository.rename(again / place.repository.name)
    place.folder = again


CHECK_SETUPS: dict[str, tuple[Callable[[Place], None], str, str]] = {
    "leftover placeholder": (
        leftover,
        "configuration",
        "tensorrt_llm: ${batch_scheduler_policy}; needed: no ${...} left; fill it with",
    ),
    "unreadable configuration": (
        broken_line,
        "repository",
        "ensemble/config.pbtxt: 4:16 : 'max_batch_size 64'",
    ),
    "a model missing": (lost_model, "repository", "postprocessing/config.pbtxt is missing"),
    "two instances of postprocessing": (
        second_instance,
        "configuration",
        "postprocessing: 2 instances; needed: one, since the state of streams",
    ),
    "engine file lost": (lost_engine, "engine files", "none or empty for rank 0; needed: 1"),
    "engine's json broken": (broken_config, "repository", "config.json: not readable as JSON"),
    "tokenizer's files lost": (lost_tokenizer, "tokenizer", "choose TOKENIZER= and TOKENIZER_DIR="),
    "moved to another place": (moved, "engine path", "/tensorrt_llm/1: no engine there"),
}


@pytest.mark.parametrize("setup", CHECK_SETUPS)
def test_make_check_finds(place: Place, setup: str) -> None:
    breaks, what, message = CHECK_SETUPS[setup]
    env = made(place).gpus(80)
    breaks(place)
    (found,) = failing(place.repository, *ports(), env=env)
    assert found["what"] == what
    assert message in f"{found['found']}; needed: {found['needed']}; {found['remedy']}"
    assert found["remedy"]


def test_another_world_size_than_built_for(place: Place) -> None:
    (found,) = failing(made(place).repository, "--world_size=2", *ports(), env=place.gpus(80, 80))
    assert (found["what"], found["found"]) == ("world size", "2")
    assert found["needed"] == "1 (TP 1 x PP 1)"
    assert found["remedy"] == "launch with --world_size 1 (WORLD_SIZE=1)"


@pytest.mark.slow
def test_tensor_parallelism_that_does_not_divide_the_heads(place: Place) -> None:
    mapping = {"world_size": 3, "tp_size": 3, "pp_size": 1}
    write_engine(place.engine, RELEASE, 3, mapping=mapping)
    env = made(place).gpus(80, 80, 80)
    (found,) = failing(place.repository, "--world_size=3", *ports(), env=env)
    assert found["found"] == "TP 3 for 32 heads, 32 key/value"
    assert found["needed"] == "TP of 1, 2, 4, 8, 16, 32"
    assert found["remedy"] == "build the engine with one of these"


def test_key_value_heads_are_divided_or_repeated(place: Place) -> None:
    assert fitting_sizes(9, 3) == [1, 3, 9]
    write_engine(place.engine, RELEASE, num_key_value_heads=8)
    assert check_heads(read_engine_config(place.engine / "config.json")).ok


def test_an_engine_that_was_not_built_for_inflight_batching(place: Place) -> None:
    data = config("0.5.0")
    data["plugin_config"] |= {"paged_kv_cache": False, "remove_input_padding": False}
    (place.engine / "rank0.engine").unlink()
    write_engine(place.engine, "0.5.0")
    (place.engine / "config.json").write_text(json.dumps(data))
    env = made(place, "0.5.0").gpus(80) | {"NVIDIA_TRITON_SERVER_VERSION": "23.10"}
    (found,) = failing(place.repository, *ports(), env=env)
    assert found["what"] == "batching"
    assert "no paged KV cache and no attention plugin with packed input" in found["found"]
    assert "--use_inflight_batching --paged_kv_cache --remove_input_padding" in found["remedy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import no_such_package\nprompt = str", "cannot be imported: ModuleNotFoundError: No mod"),
        ("class Answer: ...", "Answer has no push(text)"),
    ],
)
def test_hooks_that_cannot_be_loaded(place: Place, text: str, found: str) -> None:
    file = place.folder / "my.py"
    file.write_text(text)
    engine = read_engine(place.engine, release=RELEASE)
    assemble(Plan(engine, "llama", place.tokenizer, hooks=file), place.repository)
    (check,) = failing(place.repository, *ports(), env=place.gpus(80))
    assert check["what"] == "hooks"
    assert check["found"].startswith(f"hooks.py: {found}")
    assert check["remedy"] == "correct your file and make the repository again with HOOKS="


def test_a_missing_file_of_hooks_is_said_in_one_line(place: Place) -> None:
    made = {"--engine": place.engine, "--tokenizer_dir": place.tokenizer, "--tokenizer": "llama"}
    made |= {"--trtllm": RELEASE, "--model_repo": place.repository, "--hooks": "no.py"}
    done = run("assemble", *(str(word) for option in made.items() for word in option))
    assert done.status == 1
    assert done.output == "assemble: HOOKS=no.py: No such file or directory\n"


@pytest.mark.slow
def test_the_container_of_another_release(place: Place) -> None:
    env = made(place).gpus(80) | {"NVIDIA_TRITON_SERVER_VERSION": "24.10"}
    (found,) = failing(place.repository, *ports(), env=env)
    assert found["found"] == "TensorRT-LLM 0.14.0 (Triton container 24.10)"
    assert found["needed"] == "TensorRT-LLM 0.9.0, which built the engine"
    assert "serve in nvcr.io/nvidia/tritonserver:24.05-trtllm-python-py3" in found["remedy"]


@pytest.mark.slow
def test_a_container_that_is_not_in_the_table(place: Place) -> None:
    env = made(place).gpus(80) | {"NVIDIA_TRITON_SERVER_VERSION": "22.01"}
    (found,) = failing(place.repository, *ports(), env=env)
    assert found["found"] == "none known (Triton container 22.01)"


@pytest.mark.slow
def test_a_release_that_no_container_has(place: Place) -> None:
    write_engine(place.engine, "0.7.2")
    (place.engine / "rank0.engine").unlink()
    env = made(place, "0.7.2").gpus(80)
    (found,) = failing(place.repository, *ports(), env=env)
    assert (
        "no container of the table has TensorRT-LLM 0.7.2: build the engine again"
        in (found["remedy"])
    )


@pytest.mark.slow
def test_a_machine_with_nothing_on_it(place: Place) -> None:
    env = made(place).gpus() | {"NVIDIA_TRITON_SERVER_VERSION": ""}
    found = {check["what"]: check for check in failing(place.repository, *ports(), env=env)}
    assert sorted(found) == ["GPU memory", "GPUs", "release"]
    assert found["release"]["found"] == "no TensorRT-LLM here"
    assert found["GPU memory"]["needed"] == "more than 9.19 GiB (estimated)"


@pytest.mark.slow
def test_fewer_gpus_than_ranks(place: Place) -> None:
    write_engine(place.engine, RELEASE, 2, **TWO_RANKS)
    (found,) = failing(made(place).repository, "--world_size=2", *ports(), env=place.gpus(80))
    assert (found["what"], found["found"]) == ("GPUs", "1: A GPU")
    assert found["needed"] == "2, one a rank"


@pytest.mark.slow
def test_only_the_ranks_of_this_host_need_a_gpu_here(place: Place) -> None:
    mapping = {"world_size": 4, "tp_size": 4, "pp_size": 1}
    write_engine(place.engine, RELEASE, 4, mapping=mapping)
    made(place)
    here_and_there = ["--world_size=4", "--nodes=localhost:2,192.0.2.7:2", *ports()]
    assert failing(place.repository, *here_and_there, env=place.gpus(80, 80)) == []
    (found,) = failing(place.repository, *here_and_there, env=place.gpus(80))
    assert (found["what"], found["found"]) == ("GPUs", "1: A GPU")
    assert found["needed"] == "2, one a rank of this host (4 in all)"
    assert found["remedy"] == "give this host more GPUs, or fewer of the ranks"
    there = ["--world_size=4", "--nodes=192.0.2.7:4", *ports()]
    assert failing(place.repository, *there, env=place.gpus()) == []


@pytest.mark.slow
def test_the_launcher_counts_the_ranks_of_this_host_alone(place: Place) -> None:
    write_engine(place.engine, RELEASE, 2, **TWO_RANKS)
    hosts = place.folder / "hosts"
    hosts.write_text("192.0.2.7 slots=1\n127.0.0.1 slots=1\n")
    launcher: list[str | Path] = [
        sys.executable,
        ROOT / "tools" / "launch_triton_server.py",
        "--world_size=2",
    ]
    command = [*launcher, f"--model_repo={made(place).repository}", f"--hostfile={hosts}", *ports()]
    environment = {**os.environ, **place.gpus()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "GPUs: none (nvidia-smi); needed: 1, one a rank of this host (2 in all)" in done.stderr


def test_hosts_that_cannot_be_are_no_question_of_gpus(place: Place) -> None:
    made(place)
    done = run("check", "--model_repo", place.repository, "--world_size=2", "--hostfile=/no/such")
    assert done.status == 1
    assert "check: --hostfile /no/such: no such file" in done.output


@pytest.mark.slow
def test_a_gpu_that_is_too_small(place: Place) -> None:
    (found,) = failing(made(place).repository, *ports(), env=place.gpus(8))
    assert (found["what"], found["found"]) == ("GPU memory", "8.00 GiB free")
    assert found["remedy"].startswith("a larger GPU")


@pytest.mark.slow
def test_a_gpu_that_others_use(place: Place) -> None:
    (found,) = failing(made(place).repository, *ports(), env=place.gpus(80, used=75))
    assert (found["what"], found["found"]) == ("GPU memory", "5.00 GiB free")


@pytest.mark.slow
def test_a_kv_cache_too_small_for_one_request(place: Place) -> None:
    made(place, max_tokens_in_paged_kv_cache="100")
    (found,) = failing(place.repository, *ports(), env=place.gpus(80))
    assert "too small for one request of 2560 tokens" in found["remedy"]


# As Python begins, it makes a package one that is not installed.
HIDE = """
import importlib.machinery, sys
class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == {package!r} else super().find_spec(name, path, target)
sys.meta_path = [Hiding if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def hidden(place: Place, package: str) -> dict[str, str]:
    """An environment in which Python does not find this package."""
    folder = place.folder / "hiding"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE.format(package=package))
    return {"PYTHONPATH": str(folder)}


def of_type(place: Place, tokenizer: str) -> Place:
    """The repository with a tokenizer_type of this name, or in this file."""
    kind, file = find_type(tokenizer)
    assemble(Plan(read_engine(place.engine), kind, place.tokenizer, file), place.repository)
    return place


@pytest.mark.slow
def test_a_tokenizer_type_whose_package_is_not_installed(place: Place) -> None:
    env = of_type(place, "auto").gpus(80) | hidden(place, "transformers")
    assert failing(place.repository, *ports(), env=env) == []  # these files need no transformers
    for file in (place.repository / "preprocessing" / "1" / "tokenizer").iterdir():
        file.unlink()  # what is left is for AutoTokenizer to say
    (found,) = failing(place.repository, *ports(), env=env)
    assert (found["what"], found["found"]) == (
        "tokenizer",
        f"no package transformers for {sys.executable}",
    )
    assert found["needed"] == "transformers, which the tokenizer_type auto imports"
    assert found["remedy"] == (
        f"install it ({sys.executable} -m pip install transformers), or choose another TOKENIZER="
    )


def test_a_package_that_a_type_of_ones_own_imports(place: Place) -> None:
    file = place.folder / "mine.py"
    file.write_text("import sandpiper.ids\n")
    env = of_type(place, str(file)).gpus(80)
    (found,) = failing(place.repository, *ports(), env=env)
    assert found["found"].startswith("no package sandpiper for ")


def test_code_in_a_tokenizer_folder_runs_only_when_it_is_named(place: Place) -> None:
    folder = place.folder / "llama-tokenizer"
    shutil.copytree(place.tokenizer, folder)
    config_file = {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config_file))
    place.tokenizer = folder
    env = of_type(place, "auto").gpus(80)
    (found,) = failing(place.repository, *ports(), env=env)
    assert "SET=trust_remote_code:true, for a folder that you trust" in found["found"]
    assert found["remedy"] == "`make repo SET=trust_remote_code:true`, if you trust it"


def test_a_type_of_ones_own_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NamedFileError, match=r"no mine\.py in this folder"):
        find_type("mine")
    (tmp_path / "mine.py").touch()
    assert find_type("mine") == ("mine", Path("mine.py"))
    (tmp_path / "llama.py").touch()
    assert find_type("llama") == ("llama", None)  # one of tokenizers/ comes first


def test_a_file_that_a_type_of_ones_own_imports_is_no_package(place: Place) -> None:
    file = place.folder / "mine.py"
    file.write_text("import trellis.more\n")
    env = of_type(place, str(file)).gpus(80)
    (found,) = failing(place.repository, *ports(), env=env)
    assert "No module named 'trellis.more'" in found["found"]
    assert "pip" not in found["remedy"]


@pytest.mark.slow
def test_a_large_file_that_was_cut_short_is_named(place: Place) -> None:
    (engine,) = place.engine.glob("*.engine")
    os.truncate(engine, 20 << 20)
    env = made(place).gpus(80)
    assert failing(place.repository, *ports(), env=env) == []
    os.truncate(engine, 1 << 20)  # a hard link of the one in the repository
    (found,) = failing(place.repository, *ports(), env=env)
    assert found["what"] == "large files"
    assert found["found"] == f"tensorrt_llm/1/{engine.name}: {1 << 20} bytes"
    assert found["needed"] == f"{20 << 20} bytes, as it was made"
    assert found["remedy"] == "copy the repository again, or `make repo`"


def test_the_check_leaves_nothing_in_the_repository(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    env = made(place).gpus(80)
    before = sorted(place.repository.rglob("*"))
    assert failing(place.repository, *ports(), env=env) == []
    assert sorted(place.repository.rglob("*")) == before


@pytest.mark.slow
def test_what_only_makes_a_tokenizer_faster_is_not_needed(place: Place) -> None:
    env = of_type(place, "llama").gpus(80) | hidden(place, "sentencepiece")
    assert failing(place.repository, *ports(), env=env) == []


@pytest.mark.slow
def test_packages_are_looked_for_where_the_server_will_import_them(place: Place) -> None:
    env = made(place).gpus(80)
    python = place.folder / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without its site-packages
    python.chmod(0o755)
    (found,) = failing(place.repository, "--tritonserver=/bin/true", *ports(), env=env)
    assert found["found"] in (f"no package {name} for {python}" for name in ("tokenizers", "numpy"))
    assert failing(place.repository, *ports(), env=env) == []  # the embedded server: by this Python


@pytest.mark.parametrize(
    ("vocabulary", "needed"),
    [(29000, "29000 ids, but for added tokens"), (128256, "128256 ids, or a few less")],
)
def test_the_tokenizer_of_another_model(place: Place, vocabulary: int, needed: str) -> None:
    write_engine(place.engine, RELEASE, vocab_size=vocabulary)
    (found,) = failing(made(place).repository, *ports(), env=place.gpus(80))
    assert (found["what"], found["found"]) == ("vocabulary", "32000 ids (llama)")
    assert found["needed"] == needed
    assert found["remedy"].startswith("this is another model's tokenizer")


def test_a_padded_vocabulary_is_no_other_model() -> None:
    assert compare_vocabularies("gpt2", 50257, 51200).ok


def test_tokens_of_images_beyond_the_engines_vocabulary_are_no_other_model() -> None:
    assert compare_vocabularies("auto", 262_145, 262_144, 262_144).ok  # Gemma 3, as published
    assert compare_vocabularies("auto", 262_145, 262_144).ok
    assert not compare_vocabularies("llama3", 128_256, 100_000, 128_000).ok
    assert not compare_vocabularies("auto", 40_000, 32_000, 1_000).ok
    assert not compare_vocabularies("auto", 40_000, 32_000).ok


def test_a_tokenizer_without_an_end_is_named() -> None:
    found = check_ids([], 0, 32_000)
    assert not found.ok
    assert "answers would go on to max_tokens" in str(found)
    assert check_ids([128_009, 128_001], None, 128_256).found == "end_id 128009, 128001"


def test_special_ids_outside_the_vocabulary() -> None:
    found = check_ids([2], 32000, 32000)
    assert not found.ok
    assert str(found) == (
        "special ids: end_id 2, pad_id 32000; needed: 0 to 31999;"
        " pad_id: choose the tokenizer of the engine's model"
    )


def test_a_taken_port(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = made(place).gpus(80)
        (found,) = failing(place.repository, *ports(), f"--http_port={port}", env=env)
    assert found["found"].startswith(f"--http_port {port} is taken by ")


def test_two_equal_ports(place: Place) -> None:
    (found,) = failing(made(place).repository, "--http_port=8001", env=place.gpus(80))
    assert found["found"] == "--grpc_port and --http_port are both 8001"


def test_too_little_shared_memory() -> None:
    found = check_shared_memory(2, free=64 << 20)
    assert not found.ok
    assert found.remedy == "start the container with --shm-size=3g"
    assert check_shared_memory(1, free=64 << 20).ok


def test_a_server_binary_that_is_not_there(place: Place) -> None:
    no_engine(place)
    (place.engine / "openvino_model.xml").write_text("<net/>")
    assemble(Plan(read_engine(place.engine), "llama", place.tokenizer), place.repository)
    (found,) = failing(place.repository, "--tritonserver=/no/server", *ports(), env={})
    assert found["found"] == "--tritonserver /no/server: no such file"


def test_no_repository_at_all(tmp_path: Path) -> None:
    (found,) = failing(tmp_path / "nowhere", *ports(), env={})
    assert found["remedy"] == "make it with `make repo`"


def test_the_table_shows_what_json_says(place: Place) -> None:
    done = run(
        "check", "--model_repo", made(place).repository, env=place.gpus(8) | {"COLUMNS": "240"}
    )
    assert done.status == 1
    assert "8.00 GiB free" in done.output
    assert "a larger GPU, more tensor parallelism" in done.output


@pytest.mark.slow
def test_the_launcher_checks_first_and_starts_nothing(place: Place) -> None:
    made(place)
    env = {**os.environ, **place.gpus(8), "TMPDIR": str(place.folder)}
    before = sorted(place.folder.rglob("*"))
    launcher = ROOT / "tools" / "launch_triton_server.py"
    done = subprocess.run(
        [sys.executable, launcher, "--model_repo", place.repository, *ports()],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
    )
    assert done.returncode == 1
    assert "launch_triton_server: GPU memory: 8.00 GiB free; needed: weights 0.00" in done.stderr
    assert "checks failed; --no-check launches all the same" in done.stderr
    assert done.stderr.count("launch_triton_server: ") == 2
    assert sorted(place.folder.rglob("*")) == before


# make engine, make serve-docker


def test_a_release_without_a_container(tmp_path: Path) -> None:
    done = run("build_engine", f"--checkpoint={tmp_path}", "--out=o", "--trtllm=0.7.2", "--run=0")
    assert done.status == 1
    assert "TRTLLM=0.7.2: no container with it is known; give IMAGE=" in done.output


def test_a_linked_engine_cannot_go_into_a_container(place: Place) -> None:
    plan = Plan(read_engine(place.engine), "llama", place.tokenizer, copy="symlink")
    assemble(plan, place.repository)
    done = run("serve_docker", "--model_repo", place.repository, "--run=0")
    assert done.status == 1
    assert "its engine is a symbolic link, which leads nowhere in a container" in done.output


@pytest.mark.slow
def test_an_engine_whose_packages_are_not_installed(place: Place) -> None:
    no_engine(place)
    (place.engine / "openvino_model.xml").write_text("<net/>")
    assemble(Plan(read_engine(place.engine), "llama", place.tokenizer), place.repository)
    assert failing(place.repository, *ports(), env={}) == []
    env = hidden(place, "openvino_genai")
    (found,) = failing(place.repository, *ports(), env=env)
    assert (found["what"], found["found"]) == (
        "packages",
        f"no openvino-genai for {sys.executable}",
    )
    assert found["remedy"] == f"{sys.executable} -m pip install openvino-genai"
