# SPDX-License-Identifier: Apache-2.0
"""What of the settings, of `engine.yaml` and of a request becomes which argument of vLLM's."""

from pathlib import Path

import pytest

from trellis.engine_host.engines.engine import EngineSettings, Sampling
from trellis.engine_host.engines.vllm import engine_arguments, sampling_params


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
