"""The pipelines that are compared, each as a model repository on the same engine.

All but `ours-python` have the stand-in backend of tests/support/standin behind the configuration
that `make repo` writes for TensorRT-LLM RELEASE, so the engine costs the same everywhere.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkout  # noqa: F401  (first: it says where the next are)
from google.protobuf import text_format
from texts import Texts
from tritonclient.grpc import model_config_pb2 as pb

from support.fake_engines import write_engine
from support.standin import Script, write_contract, write_scripts
from trellis.contract.release import FOLDER
from trellis.engine_files.engine_folder import EngineFolder, read_engine
from trellis.repository.assemble import Plan, assemble, find_tokenizer_dir
from trellis.repository.model_config import parse_config
from trellis.repository.tokenizer_type import find_type
from trellis.tokenizers import load

RELEASE = "0.17.0"  # the oldest whose `preprocessing` has the eleven tensors
ELEVEN = (
    *("INPUT_ID", "REQUEST_INPUT_LEN", "DECODER_INPUT_ID", "REQUEST_DECODER_INPUT_LEN"),
    *("BAD_WORDS_IDS", "STOP_WORDS_IDS", "EMBEDDING_BIAS", "REQUEST_OUTPUT_LEN"),
    *("OUT_END_ID", "OUT_PAD_ID", "OUT_PROMPT_TABLE_EXTRA_IDS"),
)
SIZES = {"max_input_len": 40_000, "max_seq_len": 65_536, "max_batch_size": 64}
MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Setting:
    """What all repositories of one tokenizer are made from."""

    folder: Path
    library: Path  # the stand-in backend
    tokenizer_type: str
    tokenizer_dir: Path
    texts: Texts

    @property
    def scripts(self) -> Path:
        """What the engine answers: English, but to Korean prompts."""
        path = self.folder / "scripts"
        if not path.exists():
            korean = Script(self.texts.answer("ko"), self.texts.tail("ko"))
            write_scripts(path, [korean, Script(self.texts.answer("en"))])
        return path


@dataclass(frozen=True)
class Pipeline:
    """One way from text to text."""

    name: str
    about: str
    build: Callable[[Setting, Path], None]
    takes_text: bool = True  # else token ids
    pace_in_seed: bool = False  # where the engine reads its pace; else in the request's id
    exact: bool = False  # whether the joined chunks must be the text of the tokens
    checked: bool = True  # whether what it answers is known
    front: bool = False  # whether HTTP comes through Trellis' own front, or straight to Triton


def trt_repository(setting: Setting, target: Path) -> None:
    """What `make repo` makes for an engine of TensorRT-LLM, with the stand-in for its backend."""
    engine = setting.folder / "llama-out"
    if not engine.exists():
        write_engine(engine, RELEASE, vocab_size=setting.texts.tokenizer.vocab_size, **SIZES)
    plan = Plan(read_engine(engine), setting.tokenizer_type, setting.tokenizer_dir)
    assemble(plan, target)
    contract = write_contract(setting.folder / "contract", _contract()["tensorrt_llm"])
    _use_standin(setting, target, contract=str(contract))


def keyed_repository(setting: Setting, target: Path) -> None:
    """What `make repo` makes for a Python engine, with the stand-in for that engine."""
    python_engine(setting, target)
    shutil.rmtree(target / "tensorrt_llm" / "1")
    (target / "tensorrt_llm" / "1").mkdir()
    _use_standin(setting, target)


def python_repository(setting: Setting, target: Path) -> None:
    """What `make repo` makes for a Python engine, with one that answers at once."""
    python_engine(setting, target, triton_max_batch_size="256")  # a place for every stream
    version = target / "tensorrt_llm" / "1"
    shutil.copy(
        MODELS / "instant" / "openvino.py",
        version / "trellis" / "engine_host" / "engines" / "openvino.py",
    )
    (version / "scripts").symlink_to(setting.scripts)


def triton_alone(setting: Setting, target: Path) -> None:
    """An ensemble of the engine and nothing else: ids in, ids out."""
    _engine_of(setting, target)
    ensemble = _ensemble()
    names = ("input_ids", "input_lengths", "request_output_len", "streaming")
    for tensor in _contract()["tensorrt_llm"]["inputs"]:
        if tensor["name"] in names:
            ensemble.input.append(_input(tensor))
    outputs = [("output_ids", [-1, -1]), ("sequence_length", [-1])]
    ensemble.output.extend(
        pb.ModelOutput(name=name, data_type=pb.TYPE_INT32, dims=dims) for name, dims in outputs
    )
    step = ensemble.ensemble_scheduling.step.add(model_name="tensorrt_llm", model_version=-1)
    step.input_map.update({name: name for name in names})
    step.output_map.update({name: name for name, _ in outputs})
    _write(target, ensemble)


def plugins(folder: str) -> Callable[[Setting, Path], None]:
    """The widely used wiring of RELEASE around the two models in `models/folder`."""

    def build(setting: Setting, target: Path) -> None:
        _engine_of(setting, target)
        contract = _contract()
        for name in ("preprocessing", "postprocessing"):
            _write(target, _plugin(contract[name]))
            version = target / name / "1"
            shutil.copytree(MODELS / folder / name, version, dirs_exist_ok=True)
            shutil.copytree(setting.tokenizer_dir, version / "tokenizer")
        _write(target, _wired(contract))

    return build


PIPELINES = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline("triton", "Triton alone: the engine in an ensemble", triton_alone, False),
        Pipeline("do-nothing", "Python models that return constants", plugins("do_nothing")),
        Pipeline("reference", "AutoTokenizer, batch_decode", plugins("reference")),
        Pipeline("ours", "make repo, for TensorRT-LLM", trt_repository, exact=True),
        Pipeline(
            "ours-front",
            "ours as launched: HTTP through the gateway, which makes the texts",
            trt_repository,
            exact=True,
            front=True,
        ),
        Pipeline("ours-keyed", "make repo, Python engine's wiring", keyed_repository, exact=True),
        Pipeline(
            "ours-python",
            "make repo, with a Python engine, as launched",
            python_repository,
            pace_in_seed=True,
            exact=True,
            front=True,
        ),
    )
}


def real_engine(
    engine: Path, tokenizer_type: str, tokenizer_dir: str
) -> tuple[Callable[[Setting, Path], None], Texts]:
    """What makes the repository of a real engine, and the texts to ask it with."""
    given = Path(tokenizer_dir) if tokenizer_dir else None
    name, file = find_type(tokenizer_type)
    folder = find_tokenizer_dir(name, engine, given)
    plan = Plan(read_engine(engine), name, folder, type_file=file)

    def make(_: Setting, target: Path) -> None:
        assemble(plan, target)

    return make, Texts(load(name, folder))


def python_engine(setting: Setting, target: Path, **settings: str) -> None:
    """What `make repo SET=settings` makes for an engine of Python's, without its model."""
    engine = setting.folder / "python-out"
    engine.mkdir(exist_ok=True)
    described = EngineFolder(
        engine,
        "openvino",
        (),
        max_seq_len=SIZES["max_seq_len"],
        vocab_size=setting.texts.tokenizer.vocab_size,
    )
    plan = Plan(described, setting.tokenizer_type, setting.tokenizer_dir, settings=settings)
    assemble(plan, target)


def _engine_of(setting: Setting, target: Path) -> None:
    """The `tensorrt_llm` of `ours`, whatever is around it."""
    ours = setting.folder / "engine-of-ours"
    if not ours.exists():
        trt_repository(setting, ours)
    shutil.copytree(ours / "tensorrt_llm", target / "tensorrt_llm", symlinks=True)


def _use_standin(setting: Setting, target: Path, **more: str) -> None:
    model = target / "tensorrt_llm"
    (model / setting.library.name).symlink_to(setting.library)
    config = parse_config((model / "config.pbtxt").read_text())
    standin = {"tokens": str(setting.scripts), "delay_from_id": "true", "steps": "true", **more}
    config.backend = "tensorrtllm"
    for key, value in standin.items():
        config.parameters[f"standin_{key}"].string_value = value
    _write(target, config)


def _contract() -> dict[str, Any]:
    contract: dict[str, Any] = json.loads((FOLDER / f"{RELEASE}.json").read_text())
    return contract


def _plugin(contract: dict[str, Any]) -> pb.ModelConfig:
    """The configuration of a plugin: text only, batches as Triton finds them."""
    config = pb.ModelConfig(name=contract["name"], backend="python", max_batch_size=64)
    config.dynamic_batching.SetInParent()
    config.input.extend(
        _input(tensor) for tensor in contract["inputs"] if not tensor["name"].startswith("IMAGE")
    )
    for tensor in contract["outputs"]:
        if contract["name"] == "postprocessing" or tensor["name"] in ELEVEN:
            dtype = pb.DataType.Value(tensor["dtype"])
            config.output.add(name=tensor["name"], data_type=dtype, dims=tensor["dims"])
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    return config


def _wired(contract: dict[str, Any]) -> pb.ModelConfig:
    ensemble = _ensemble()
    ensemble.input.extend(_input(tensor) for tensor in contract["ensemble"]["inputs"])
    used: set[str] = set()
    for step in contract["ensemble"]["steps"]:
        message = ensemble.ensemble_scheduling.step.add(model_name=step["model"], model_version=-1)
        message.input_map.update(step["input_map"])
        outputs = step["output_map"]
        if step["model"] == "preprocessing":
            outputs = {name: outputs[name] for name in ELEVEN}
        message.output_map.update(outputs)
        used.update(outputs.values())
    for tensor in contract["ensemble"]["outputs"]:
        if tensor["name"] in used:
            dtype = "TYPE_FP32" if tensor["dtype"].startswith("${") else tensor["dtype"]
            ensemble.output.add(
                name=tensor["name"], data_type=pb.DataType.Value(dtype), dims=tensor["dims"]
            )
    return ensemble


def _ensemble() -> pb.ModelConfig:
    return pb.ModelConfig(name="ensemble", platform="ensemble", max_batch_size=64)


def _input(tensor: dict[str, Any]) -> pb.ModelInput:
    """A tensor as clients or plugins have it: what is optional there is optional here."""
    return pb.ModelInput(
        name=tensor["name"],
        data_type=pb.DataType.Value(tensor["dtype"]),
        dims=tensor["dims"],
        optional=tensor.get("optional", False),
        allow_ragged_batch=tensor["name"].endswith(("_DICT", "_WORDS", "_WEIGHTS")),
    )


def _write(target: Path, config: pb.ModelConfig) -> None:
    model = target / config.name
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))


def chosen(names: Sequence[str]) -> list[Pipeline]:
    """Pipelines by name. Raises ValueError for one that is not known."""
    unknown = [name for name in names if name not in PIPELINES]
    if unknown:
        raise ValueError(f"no pipeline {', '.join(unknown)}; known: {', '.join(PIPELINES)}")
    return [PIPELINES[name] for name in names]
