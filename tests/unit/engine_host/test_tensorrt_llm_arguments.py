# SPDX-License-Identifier: Apache-2.0
"""What of the settings, of `engine.yaml` and of a request becomes which argument of LLM's."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from support.fake_library import VERSIONS, import_adapter
from support.lora_adapters import write_adapter
from trellis.engine_host.engines.engine import EngineSettings, Sampling
from trellis.engine_host.engines.words_grammar import words_grammar

SAMPLERS: dict[str, dict[str, Any]] = {
    "1.0.0": {"enable_trtllm_sampler": True},
    "1.2.1": {"sampler_type": "TRTLLMSampler"},
    "1.4.0rc1": {},
}


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(scope="module")
def adapter(version: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patched:
        yield import_adapter(patched, version)


def test_a_repositorys_settings_are_the_librarys_arguments(
    adapter: Any, version: str, checkpoint: Path
) -> None:
    settings = EngineSettings(
        checkpoint,
        max_batch_size=5,
        max_seq_len=300,
        max_tokens_in_paged_kv_cache=4096,
        max_attention_window_size=256,
        enable_kv_cache_reuse=False,
        kv_cache_free_gpu_mem_fraction=0.7,
        dtype="float16",
        tensor_parallel_size=2,
        pipeline_parallel_size=3,
    )
    made = adapter.engine_arguments(settings)
    cache = made.pop("kv_cache_config")
    assert (cache.max_tokens, cache.max_attention_window) == (4096, [256])
    assert (cache.enable_block_reuse, cache.free_gpu_memory_fraction) == (False, 0.7)
    expected: dict[str, Any] = {
        "model": str(checkpoint),
        "skip_tokenizer_init": True,
        "dtype": "float16",
        "max_batch_size": 5,
        "max_seq_len": 300,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 3,
    }
    longest = {} if version == "1.0.0" else {"max_input_len": 299}
    assert made == expected | longest | SAMPLERS[version]


def test_a_tokenizer_that_the_library_can_read_enables_guides(
    adapter: Any, checkpoint: Path
) -> None:
    settings = EngineSettings(checkpoint, max_batch_size=1)
    made = adapter.engine_arguments(settings, "/tokenizer")
    assert (made["tokenizer"], made["skip_tokenizer_init"]) == ("/tokenizer", False)
    assert made["guided_decoding_backend"] == "xgrammar"
    (checkpoint / "engine.yaml").write_text("guided_decoding_backend: llguidance\n")
    assert adapter.engine_arguments(settings, "/t")["guided_decoding_backend"] == "llguidance"


def test_adapters_are_told_by_their_modules_and_the_largest_rank(
    adapter: Any, checkpoint: Path, tmp_path: Path
) -> None:
    shapes = {"model.layers.0.self_attn.q_proj": (8, 8), "model.layers.0.mlp.up_proj": (8, 8)}
    folders = {
        "a": write_adapter(tmp_path / "a", shapes, rank=4),
        "b": write_adapter(tmp_path / "b", shapes, rank=12),
    }
    named = {name: str(folder) for name, folder in folders.items()}
    made = adapter.engine_arguments(EngineSettings(checkpoint, 1, lora_adapters=named))
    assert made["lora_config"] == {
        "lora_target_modules": ["attn_q", "mlp_gate"],
        "max_lora_rank": 12,
        "max_loras": 2,
        "max_cpu_loras": 2,
    }


def test_a_module_that_the_library_cannot_adapt_is_named(
    adapter: Any, checkpoint: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "a", {"model.embed_tokens": (8, 8)})
    settings = EngineSettings(checkpoint, 1, lora_adapters={"a": str(folder)})
    with pytest.raises(ValueError, match=r"^lora_adapters: TensorRT-LLM cannot adapt embed_tokens"):
        adapter.engine_arguments(settings)


def test_what_nobody_set_is_the_librarys_choice(adapter: Any, checkpoint: Path) -> None:
    made = adapter.engine_arguments(EngineSettings(checkpoint, max_batch_size=1))
    assert "max_seq_len" not in made
    assert made["dtype"] == "bfloat16"  # the checkpoint's
    assert made["kv_cache_config"].model_fields_set == {"enable_block_reuse"}


def test_the_file_adds_arguments(adapter: Any, checkpoint: Path) -> None:
    text = "attn_backend: FLASHINFER\nkv_cache_config: {dtype: fp8, tokens_per_block: 64}\n"
    (checkpoint / "engine.yaml").write_text(text)
    made = adapter.engine_arguments(EngineSettings(checkpoint, max_batch_size=1))
    assert made["attn_backend"] == "FLASHINFER"
    assert (made["kv_cache_config"].dtype, made["kv_cache_config"].tokens_per_block) == ("fp8", 64)
    assert made["kv_cache_config"].enable_block_reuse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensor_paralel_size: 2", "no argument tensor_paralel_size; did you mean tensor_parallel"),
        ("tensor_parallel_size: 2", "tensor_parallel_size is set by TP= and --world_size N"),
        ("pipeline_parallel_size: 2", "pipeline_parallel_size is set by PP= and --world_size N"),
        ("model: other", "model is set by ENGINE=; leave it out"),
        ("tokenizer: other", "tokenizer is set by TOKENIZER=; leave it out"),
        ("max_batch_size: 3", "max_batch_size is set by SET=triton_max_batch_size:N"),
        ("max_seq_len: 3", "max_seq_len is set by SET=max_seq_len:N"),
        (
            "kv_cache_config: {max_tokens: 9}",
            "kv_cache_config.max_tokens is set by SET=max_tokens_",
        ),
        ("kv_cache_config: {dtpe: fp8}", "kv_cache_config.dtpe; did you mean dtype?"),
        ("kv_cache_config: 3", "engine.yaml: kv_cache_config: not a table"),
        ("kv_cache_config: {tokens_per_block: many}", "tokens_per_block"),
        ("lora_config: {}", "lora_config is set by SET=lora_adapters:NAME=FOLDER"),
        ("build_config: {}", "TensorRT-LLM has no argument build_config"),
    ],
)
def test_an_argument_that_cannot_be_there_is_rejected_by_name(
    adapter: Any, checkpoint: Path, text: str, message: str
) -> None:
    (checkpoint / "engine.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        adapter.engine_arguments(EngineSettings(checkpoint, max_batch_size=1))


@pytest.mark.parametrize(
    ("release", "text"),
    [("1.0.0", "enable_trtllm_sampler: false"), ("1.2.1", "sampler_type: TorchSampler")],
)
def test_a_sampler_that_ignores_seeds_cannot_be_chosen(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, release: str, text: str
) -> None:
    adapter = import_adapter(monkeypatch, release)
    (checkpoint / "engine.yaml").write_text(text)
    with pytest.raises(ValueError, match="no other sampler heeds seeds and penalties"):
        adapter.engine_arguments(EngineSettings(checkpoint, max_batch_size=1))


def test_what_the_library_rejects_names_the_folder(adapter: Any, checkpoint: Path) -> None:
    (checkpoint / "engine.yaml").write_text("max_num_tokens: many\n")
    with pytest.raises(RuntimeError, match=r"(?s)^gpt_model_path: TensorRT-LLM cannot .*many"):
        adapter.TensorRtLlmLibrary(EngineSettings(checkpoint, max_batch_size=1))


def test_greedy_is_said_in_full(adapter: Any) -> None:
    made = adapter.sampling_params(Sampling(max_tokens=7, end_id=5))
    assert (made.top_k, made.temperature, made.top_p) == (1, 1.0, 1.0)
    assert (made.repetition_penalty, made.presence_penalty, made.frequency_penalty) == (1, 0, 0)
    assert (made.max_tokens, made.n, made.best_of, made.seed) == (7, 1, 1, None)
    assert (made.end_id, made.pad_id, made.min_tokens, made.stop_token_ids) == (5, 5, 1, None)
    assert (made.detokenize, made.logprobs, made.stop, made.bad) == (False, None, None, None)


def test_without_an_end_id_no_token_is_held_back(adapter: Any) -> None:
    made = adapter.sampling_params(Sampling(max_tokens=7, min_tokens=3))
    assert (made.end_id, made.pad_id, made.min_tokens, made.ignore_eos) == (-1, 0, None, False)


def test_every_setting_arrives(adapter: Any) -> None:
    made = adapter.sampling_params(
        Sampling(
            max_tokens=9,
            min_tokens=3,
            end_id=2,
            stop_token_ids=(7, 2, 8),
            temperature=0.7,
            top_k=40,
            top_p=0.9,
            repetition_penalty=1.2,
            presence_penalty=0.3,
            frequency_penalty=-0.4,
            seed=2**62,
            num_return_sequences=3,
            sample=True,
        )
    )
    assert (made.end_id, made.stop_token_ids, made.min_tokens) == (2, [7, 8], 3)
    assert (made.temperature, made.top_k, made.top_p) == (0.7, 40, 0.9)
    assert (made.repetition_penalty, made.presence_penalty) == (1.2, 0.3)
    assert (made.frequency_penalty, made.seed, made.n, made.best_of) == (-0.4, 2**62, 3, 3)


def test_a_temperature_alone_draws_from_all_ids(adapter: Any) -> None:
    made = adapter.sampling_params(
        Sampling(temperature=0.5, seed=3, sample=True, num_return_sequences=2)
    )
    assert (made.temperature, made.top_k, made.top_p, made.n) == (0.5, 0, 1.0, 2)


def test_beams(adapter: Any) -> None:
    made = adapter.sampling_params(Sampling(beam_width=4, length_penalty=0.6, end_id=2))
    assert (made.use_beam_search, made.n, made.best_of, made.length_penalty) == (True, 4, 4, 0.6)
    assert (made.top_k, made.temperature, made.seed) == (0, 1.0, None)


def test_the_chosen_tokens_log_probability_is_asked_for_as_the_release_takes_it(
    adapter: Any, version: str
) -> None:
    made = adapter.sampling_params(Sampling(log_probs=True))
    assert made.logprobs == (0 if version == "1.4.0rc1" else 1)


@pytest.mark.parametrize(
    ("kind", "guide", "name", "value"),
    [
        ("ebnf_grammar", 'root ::= "a"', "grammar", 'root ::= "a"'),
        ("structural_tag", "{}", "structural_tag", "{}"),
    ],
)
def test_a_guide_is_the_librarys_and_ends_at_its_tokenizers_end(
    adapter: Any, kind: str, guide: str, name: str, value: Any
) -> None:
    sampling = Sampling(max_tokens=7, end_id=5, guide_type=kind, guide=guide)
    made = adapter.sampling_params(sampling, 100, guide_end=2)
    held = made.guided_decoding
    given = {field: getattr(held, field) for field in held.__slots__ if getattr(held, field)}
    assert given == {name: value}
    assert (made.end_id, made.stop_token_ids, made.min_tokens) == (5, [2], None)


@pytest.mark.parametrize(
    ("end_id", "ends", "more"), [(5, True, [2]), (2, True, None), (-1, False, None)]
)
def test_bad_words_are_a_grammar_of_all_other_texts(
    adapter: Any, end_id: int, ends: bool, more: list[int] | None
) -> None:
    sampling = Sampling(max_tokens=7, min_tokens=1, end_id=end_id, bad_words=("ab", "é"))
    made = adapter.sampling_params(sampling, 100, guide_end=2)
    assert made.guided_decoding.grammar == words_grammar(("ab", "é"), ends)
    assert (made.end_id, made.stop_token_ids) == (end_id, more)


def test_a_bias_is_a_weight_for_each_id(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch: Any = ModuleType("torch")
    torch.from_numpy = lambda array: ("torch's", array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    sampling = Sampling(bias_ids=(1, 4), bias_weights=(2.5, -100.0))
    whose, bias = adapter.sampling_params(sampling, 6).embedding_bias
    assert (whose, bias.dtype) == ("torch's", np.float32)
    assert bias.tolist() == [0, 2.5, 0, 0, -100, 0]
    assert adapter.sampling_params(Sampling(), 6).embedding_bias is None


def test_no_two_requests_share_what_the_library_writes_to(adapter: Any) -> None:
    sampling = Sampling()
    assert adapter.sampling_params(sampling) is not adapter.sampling_params(sampling)
