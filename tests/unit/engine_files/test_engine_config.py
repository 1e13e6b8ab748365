"""An engine's config.json in every form, and the contract that it leads to."""

import json
from pathlib import Path

import pytest

from support.fake_engines import RELEASES, VERSIONS, config, write_engine
from trellis.contract.release import (
    ReleaseError,
    has_engines,
    read_contract,
    release_for,
    release_order,
    releases,
)
from trellis.engine_files.engine_config import (
    EngineConfig,
    missing_ranks,
    rank_files,
    read_engine_config,
)
from trellis.engine_files.engine_folder import EngineFolderError, read_engine
from trellis.repository.model_config import parse_config
from trellis.repository.model_configs import model_configs
from trellis.repository.trtllm_config import settable


def read(folder: Path, data: object) -> EngineConfig:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))
    return read_engine_config(folder / "config.json")


@pytest.mark.parametrize("release", RELEASES)
def test_the_sizes_are_found_in_every_form(tmp_path: Path, release: str) -> None:
    engine = read(tmp_path, config(release))
    assert engine.version == VERSIONS.get(release, release)
    assert release_for(engine.version) == release
    assert (engine.dtype, engine.vocab_size) == ("bfloat16", 32000)
    assert (engine.tensor_parallel, engine.pipeline_parallel, engine.world_size) == (1, 1, 1)
    assert (engine.max_batch_size, engine.max_input_len, engine.max_seq_len) == (8, 2048, 2560)
    assert (engine.max_beam_width, engine.heads, engine.kv_heads, engine.head_size) == (
        4, 32, 32, 128,
    )  # fmt: skip
    assert engine.tokens_at_once == 16384
    assert engine.inflight_batching


def test_ranks_and_quantization_of_the_new_form(tmp_path: Path) -> None:
    mapping = {"world_size": 8, "tp_size": 4, "pp_size": 2}
    data = config("0.9.0", mapping=mapping, num_key_value_heads=8)
    data["pretrained_config"]["quantization"]["kv_cache_quant_algo"] = "FP8"
    engine = read(tmp_path, data)
    assert (engine.tensor_parallel, engine.pipeline_parallel, engine.world_size) == (4, 2, 8)
    assert (engine.kv_heads, engine.kv_dtype) == (8, "fp8")


def test_ranks_and_quantization_of_the_old_form(tmp_path: Path) -> None:
    data = config("0.5.0", tensor_parallel=2, pipeline_parallel=2, quant_mode=1 << 5)
    engine = read(tmp_path, data)
    assert (engine.world_size, engine.kv_dtype) == (4, "int8")


def test_the_release_is_only_guessed_from_the_keys_of_the_old_form(tmp_path: Path) -> None:
    engine = read_engine(write_engine(tmp_path / "a", "0.6.1"))
    assert engine.notes == (
        "config.json does not name its TensorRT-LLM release; its keys look like 0.6.1: set TRTLLM="
        " if it is another",
    )
    assert read_engine(tmp_path / "a", release="0.7.2").notes == ()


def test_inside_an_old_container_the_release_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_engine(tmp_path / "old", "0.7.2")
    new = write_engine(tmp_path / "new", "0.9.0")
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "23.10")
    engine = read_engine(old).trtllm
    assert engine is not None
    assert engine.version == "0.5.0"
    assert read_engine(old).notes == ()
    engine = read_engine(new).trtllm
    assert engine is not None
    assert engine.version == "0.9.0"


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.5.0", "0.5.0"),
        ("0.7.0", "0.7.2"),
        ("0.10.0.dev2024050700", "0.10.0"),
        ("0.17.0.post1", "0.17.0"),
        ("0.18.0", "0.18.2"),
        ("0.21.0", "0.19.0"),
        ("1.0.0rc4", "1.x"),
        ("1.2.1", "1.x"),
        ("1.x", "1.x"),
    ],
)
def test_a_version_leads_to_the_newest_contract_that_is_not_newer(
    version: str, release: str
) -> None:
    assert release_for(version) == release


def test_a_version_between_contracts_is_noted(tmp_path: Path) -> None:
    engine = read_engine(write_engine(tmp_path, "0.19.0"), release="0.21.0")
    assert engine.notes == ("no contract of TensorRT-LLM 0.21.0 is known; took that of 0.19.0",)


@pytest.mark.parametrize("version", ["0.4.9", "2.0", "x", ""])
def test_other_versions_are_refused_with_those_that_are_known(version: str) -> None:
    with pytest.raises(ReleaseError, match=r"0\.5\.0, 0\.6\.1, .* 1\.x"):
        release_for(version)


@pytest.mark.parametrize(
    ("version", "there"),
    [
        ("0.5.0", True),
        ("1.2.1", True),
        ("1.x", True),
        ("1.3.0rc20", True),
        ("1.3.0rc20.post1", True),
        ("1.3.0rc21", False),
        ("1.3.0rc21.post1", False),
        ("1.3.0", False),
        ("1.4.0rc1", False),
        ("1.3", False),
    ],
)
def test_the_c_plus_plus_backend_is_gone_from_one_candidate_on(version: str, there: bool) -> None:
    assert has_engines(version) == there


def test_a_version_is_after_its_candidates() -> None:
    ordered = ["1.2.1", "1.3.0rc4", "1.3.0rc21", "1.3.0rc21.post1", "1.3.0", "1.3.0.post1", "1.4"]
    assert sorted({*ordered}, key=release_order) == ordered


@pytest.mark.parametrize("version", ["1.3.0", "1.3.0rc21", "1.4.0rc1"])
def test_a_release_without_engines_is_told_both_ways_on(tmp_path: Path, version: str) -> None:
    folder = write_engine(tmp_path, "1.x")
    with pytest.raises(EngineFolderError) as error:
        read_engine(folder, release=version)
    message = str(error.value)
    assert message.startswith(f"TRTLLM={version}: TensorRT-LLM has no engine files and no C++")
    assert "serve it in a container up to 26.07" in message
    assert "ENGINE=<checkpoint> BACKEND=llmapi" in message
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"version": version}))
    with pytest.raises(EngineFolderError, match=f"config.json names {version}: TensorRT-LLM has"):
        read_engine(folder)


def test_every_release_is_tested() -> None:
    assert releases() == RELEASES
    assert len(RELEASES) == 16


def test_rank_files_of_both_forms(tmp_path: Path) -> None:
    old = write_engine(tmp_path / "old", "0.5.0", 2)
    new = write_engine(tmp_path / "new", "0.9.0", 2)
    assert [file.name for file in rank_files(old).values()] == [
        "llama_bfloat16_tp2_rank0.engine",
        "llama_bfloat16_tp2_rank1.engine",
    ]
    assert missing_ranks(new, 4) == [2, 3]


@pytest.mark.parametrize("release", RELEASES)
def test_the_configuration_has_the_tensors_and_parameters_of_the_contract(
    tmp_path: Path, release: str
) -> None:
    contract = read_contract(release)
    engine = read_engine(write_engine(tmp_path, release))
    configs, _ = model_configs(engine, "llama", {}, Path("/triton_model_repo"))
    config = parse_config(configs["tensorrt_llm"])
    assert [tensor.name for tensor in config.input] == [spec.name for spec in contract.inputs]
    assert [tensor.name for tensor in config.output] == [spec.name for spec in contract.outputs]
    assert sorted(config.parameters) == sorted(contract.parameters)


@pytest.mark.parametrize("release", RELEASES)
def test_every_placeholder_of_the_release_can_be_set(tmp_path: Path, release: str) -> None:
    contract = read_contract(release)
    # Left out: the backend's name, which decides all else, and the tokenizer of its own.
    own = contract.placeholders - {"triton_backend", "tokenizer_dir"}
    unsettable = own - settable(contract)
    # A template of a later release may still name what its model no longer has.
    assert unsettable <= {"enable_trt_overlap"}


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "1.x"])
def test_the_published_settings_reach_every_release(tmp_path: Path, release: str) -> None:
    engine = read_engine(write_engine(tmp_path, release))
    settings = {"triton_max_batch_size": "128", "max_num_sequences": "4"}
    settings |= {"kv_cache_free_gpu_mem_fraction": "0.2", "enable_trt_overlap": "true"}
    configs, notes = model_configs(engine, "llama", settings, Path("/r"))
    config = parse_config(configs["tensorrt_llm"])
    assert all(f"max_batch_size: {128}" in text for text in configs.values())
    assert config.parameters["kv_cache_free_gpu_mem_fraction"].string_value == "0.2"
    told = [note.split(" has no effect")[0] for note in notes]
    assert told == {"0.5.0": [], "0.9.0": ["max_num_sequences"]}.get(
        release, ["max_num_sequences", "enable_trt_overlap"]
    )
    if release == "0.5.0":
        assert config.parameters["max_num_sequences"].string_value == "4"
