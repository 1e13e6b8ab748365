# SPDX-License-Identifier: Apache-2.0
"""What of the settings, of `engine.yaml` and of a request becomes which argument of vLLM's."""

from pathlib import Path

import pytest
from vllm.platforms import current_platform
from vllm.v1.metrics.loggers import PrometheusStatLogger, StatLoggerManager
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from support.lora_adapters import write_adapter
from trellis.engine_host.engines.engine import EngineSettings, Sampling
from trellis.engine_host.engines.vllm import AS_A_SERVER, engine_arguments
from trellis.engine_host.engines.vllm_figures import VllmFigures
from trellis.engine_host.engines.vllm_requests import sampling_params
from trellis.engine_host.engines.words_grammar import words_grammar

MODULE = {"model.layers.0.self_attn.q_proj": (576, 576)}


def test_a_repositorys_settings_are_vllms_arguments(checkpoint: Path) -> None:
    made = engine_arguments(
        EngineSettings(
            checkpoint,
            max_batch_size=5,
            max_seq_len=300,
            enable_kv_cache_reuse=False,
            kv_cache_free_gpu_mem_fraction=0.7,
            dtype="bfloat16",
        )
    )
    assert (made.model, made.skip_tokenizer_init, made.dtype) == (str(checkpoint), True, "bfloat16")
    assert (made.max_num_seqs, made.max_model_len) == (5, 300)
    assert (made.enable_prefix_caching, made.gpu_memory_utilization) == (False, 0.7)
    assert made.enforce_eager  # of engine.yaml


def test_a_tokenizer_that_vllm_can_read_is_given_for_guides(checkpoint: Path) -> None:
    made = engine_arguments(EngineSettings(checkpoint, max_batch_size=1), str(checkpoint))
    assert (made.tokenizer, made.skip_tokenizer_init) == (str(checkpoint), False)
    assert made.structured_outputs_config.backend == "xgrammar"


def test_the_file_chooses_the_backend_of_guides(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "engine.yaml").write_text(
        "structured_outputs_config: {backend: guidance, disable_any_whitespace: true}"
    )
    made = engine_arguments(EngineSettings(tmp_path, max_batch_size=1)).structured_outputs_config
    assert (made.backend, made.disable_any_whitespace) == ("guidance", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("structured_outputs_config: xgrammar", "structured_outputs_config: not a table"),
        ("structured_outputs_config: {backnd: guidance}", "backnd"),
        ("structured_outputs_config: {backend: none of them}", "backend"),
        ("max_model_len: 300", "max_model_len is set by SET=max_seq_len:N; leave it out"),
        ("gpu_memory_utilization: 0.5", "is set by SET=kv_cache_free_gpu_mem_fraction:F"),
        ("enable_prefix_caching: false", "is set by SET=enable_kv_cache_reuse:true"),
        ("enable_lora: true", "enable_lora is set by SET=lora_adapters:NAME=FOLDER"),
    ],
)
def test_what_cannot_be_in_the_file_is_named(
    checkpoint: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "engine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        engine_arguments(EngineSettings(tmp_path, max_batch_size=1))


def test_adapters_have_a_place_each_and_on_a_cpu_one_more(checkpoint: Path, tmp_path: Path) -> None:
    """The library's kernels there give who has no adapter what is in the last place."""
    named = {
        name: str(write_adapter(tmp_path / name, MODULE, rank))
        for name, rank in (("a", 4), ("b", 9))
    }
    made = engine_arguments(EngineSettings(checkpoint, 1, lora_adapters=named))
    assert (made.enable_lora, made.max_lora_rank) == (True, 16)
    assert (made.max_loras, made.max_cpu_loras) == (3, 3)
    assert not engine_arguments(EngineSettings(checkpoint, 1)).enable_lora


def test_adapters_on_a_gpu_are_rejected_beside_float32(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seen with 0.24 on an H200, whose kernels assert it."""
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    adapters = {"a": str(write_adapter(tmp_path / "a", MODULE))}
    for dtype in ("", "float32"):
        settings = EngineSettings(checkpoint, max_batch_size=4, lora_adapters=adapters, dtype=dtype)
        with pytest.raises(ValueError, match=r"^lora_adapters: .*SET=dtype:bfloat16"):
            engine_arguments(settings)


def test_a_checkpoint_keeps_the_dtype_that_it_declares(checkpoint: Path) -> None:
    assert engine_arguments(EngineSettings(checkpoint, max_batch_size=1)).dtype == "float32"


def test_an_argument_that_vllm_does_not_have_is_rejected(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "engine.yaml").write_text("enforce_eagr: true")
    with pytest.raises(ValueError, match=r"enforce_eagr; did you mean enforce_eager\?"):
        engine_arguments(EngineSettings(tmp_path, max_batch_size=1))


def test_what_asks_for_nothing_is_greedy_and_ends_at_no_id_of_the_models_own() -> None:
    made = sampling_params(Sampling(max_tokens=7))
    assert (made.max_tokens, made.temperature, made.ignore_eos) == (7, 0.0, True)
    assert (made.stop_token_ids, made.logprobs, made.n, made.min_tokens) == ([], None, 1, 0)
    assert (made.detokenize, made.output_kind.name) == (False, "DELTA")


@pytest.mark.parametrize(
    ("kind", "guide", "name", "value"),
    [
        ("ebnf_grammar", 'root ::= "a"', "grammar", 'root ::= "a"'),
        ("structural_tag", "{}", "structural_tag", "{}"),
    ],
)
def test_a_guide_is_vllms_and_ends_at_its_tokenizers_end(
    kind: str, guide: str, name: str, value: object
) -> None:
    made = sampling_params(Sampling(max_tokens=7, end_id=5, guide_type=kind, guide=guide), 2)
    held = made.structured_outputs
    assert held is not None
    names = ("json_object", "json", "regex", "grammar", "structural_tag")
    given = {each: getattr(held, each) for each in names if getattr(held, each) is not None}
    assert given == {name: value}
    assert (made.stop_token_ids, made.min_tokens) == ([5, 2], 0)


@pytest.mark.parametrize(
    ("end_id", "ends", "stops"), [(5, True, [5, 2]), (2, True, [2]), (-1, False, [])]
)
def test_bad_words_are_a_grammar_of_all_other_texts(
    end_id: int, ends: bool, stops: list[int]
) -> None:
    made = sampling_params(Sampling(max_tokens=7, end_id=end_id, bad_words=("ab", "é")), 2)
    assert made.structured_outputs is not None
    assert made.structured_outputs.grammar == words_grammar(("ab", "é"), ends)
    assert (made.stop_token_ids, made.min_tokens) == (stops, 1 if ends else 0)


def test_a_bias_is_vllms_whatever_its_size() -> None:
    made = sampling_params(Sampling(bias_ids=(1, 4), bias_weights=(2.5, -1e6)))
    assert made.logit_bias == {1: 2.5, 4: -1e6}


def test_every_setting_arrives() -> None:
    made = sampling_params(
        Sampling(
            max_tokens=9,
            min_tokens=3,
            end_id=2,
            stop_token_ids=(7, 2),
            temperature=0.7,
            top_k=40,
            top_p=0.9,
            repetition_penalty=1.2,
            presence_penalty=0.3,
            frequency_penalty=-0.4,
            seed=2**62,
            num_return_sequences=3,
            log_probs=True,
            sample=True,
        )
    )
    assert (made.min_tokens, made.stop_token_ids) == (3, [2, 7])
    assert (made.temperature, made.top_k, made.top_p) == (0.7, 40, 0.9)
    assert (made.repetition_penalty, made.presence_penalty) == (1.2, 0.3)
    assert (made.frequency_penalty, made.seed, made.n, made.logprobs) == (-0.4, 2**62, 3, 0)


def test_the_library_counts_tokens_for_no_page_of_its_own(checkpoint: Path) -> None:
    figures = VllmFigures()
    config = engine_arguments(EngineSettings(checkpoint, 1)).create_engine_config(AS_A_SERVER)
    manager = StatLoggerManager(config, custom_stat_loggers=[figures.logger])
    assert not [each for each in manager.stat_loggers if type(each) is PrometheusStatLogger]
    manager.log_engine_initialized()
    manager.record(SchedulerStats(kv_cache_usage=0.5), IterationStats())
    manager.record_sleep_state(1, 1)
    assert (figures.steps, figures.figures.kv_cache_usage) == (1, 0.5)
