# SPDX-License-Identifier: Apache-2.0
"""The sampling inputs of a request: read, checked, gathered into `Sampling`.

`sampling_fields.py` has the table of them. What no Python engine does is refused by name, unless
the value sent is the neutral one.
"""

import secrets
from dataclasses import fields
from typing import Any

import numpy as np

from trellis.contract.client_inputs import BIAS_WORDS, LORA_NAME
from trellis.contract.sampling_fields import FIELDS, cannot, check_together, neutral, put
from trellis.engine_host.engines.engine import Sampling
from trellis.errors import RequestError
from trellis.pipeline.guided_decoding import read_guide
from trellis.pipeline.prompts import decode_utf8
from trellis.tokenizers import TokenizerError, parse_words

SEED_BITS = 63  # what every engine's library takes

# Inputs of the contract that Python engines refuse, and the client's name of each.
REFUSED = {
    "bad_words_list": "bad_words",
    "return_context_logits": "return_context_logits",
    "return_generation_logits": "return_generation_logits",
    "return_perf_metrics": "return_perf_metrics",
    "return_kv_cache_reuse_stats": "return_kv_cache_reuse_stats",
    "prompt_embedding_table": "prompt_embedding_table",
    "prompt_table_extra_ids": "prompt_table_extra_id",
    "prompt_vocab_size": "prompt_vocab_size",
    "lora_task_id": "lora_task_id",
    "lora_weights": "lora_weights",
    "lora_config": "lora_config",
}


def read_sampling(arrays: dict[str, np.ndarray], row: int, engine: str) -> Sampling:
    """The settings of one row of a request.

    `arrays` maps a tensor's name to its values, [rows] or [rows, ...], of the contract's dtype.
    Raises RequestError with the client's name of the input that is wrong or that the engine does
    not have.
    """
    words = tuple(read_words("bad_words", arrays, row))
    ends = _stop_token_ids(arrays, row)
    values = _values(arrays, row, engine)
    kind, guide = read_guide(arrays, row)
    ids, weights = _bias(arrays, row)
    sampling = Sampling(
        **values,
        stop_token_ids=ends,
        bad_words=words,
        guide_type=kind,
        guide=guide,
        lora_name=_lora_name(arrays, row),
        bias_ids=ids,
        bias_weights=weights,
    )
    check_together(
        sampling.max_tokens, sampling.min_tokens, sampling.length_penalty, sampling.beam_width
    )
    _settle(sampling, seeded="seed" in values)
    return sampling


def read_words(client: str, arrays: dict[str, np.ndarray], row: int) -> list[str]:
    """The words of one row, of the tensor with the client's name. Raises RequestError.

    `arrays`: that tensor is [rows, words], object: UTF-8 bytes.
    """
    array = arrays.get(client)
    if array is None or not array.size:
        return []
    try:
        return parse_words(array[row].reshape(-1).tolist())
    except TokenizerError as error:
        raise RequestError(f"{client}: {error}") from None


def _stop_token_ids(arrays: dict[str, np.ndarray], row: int) -> tuple[int, ...]:
    """The ids of one row; -1 only fills it up. Raises RequestError for others below 0."""
    array = arrays.get("stop_token_ids")
    ids = [] if array is None else array[row].reshape(-1).tolist()
    if ids and min(ids) < -1:
        raise RequestError(f"stop_token_ids: {min(ids)} is not in the vocabulary; send token ids")
    return tuple(token for token in ids if token >= 0)


def _bias(arrays: dict[str, np.ndarray], row: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The ids of one row whose weight is not 0, and the weights. Raises RequestError.

    `arrays`: that tensor is [rows, ids] float32, a weight for each id from 0 on.
    """
    array = arrays.get("embedding_bias")
    if array is None or not array.size:
        return (), ()
    weights = array[row].reshape(-1)
    if not np.isfinite(weights).all():
        raise RequestError(f"{BIAS_WORDS}: the weights must be finite numbers")
    ids = np.flatnonzero(weights)
    return tuple(ids.tolist()), tuple(weights[ids].tolist())


def _lora_name(arrays: dict[str, np.ndarray], row: int) -> str:
    """Of one row; '' for none. Raises RequestError for bytes that are no text."""
    array = arrays.get(LORA_NAME)
    if array is None or not array.size:
        return ""
    return decode_utf8(LORA_NAME, array[row].reshape(-1)[0])


def _values(arrays: dict[str, np.ndarray], row: int, engine: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for tensor, array in arrays.items():
        spec = FIELDS.get(tensor)
        if spec is not None:
            put(values, spec, array.reshape(array.shape[0], -1)[row, 0].item())
        elif tensor in REFUSED and not neutral(array[row]):
            raise cannot(REFUSED[tensor], engine)
    return {key: value for key, (_, value) in values.items()}


def _settle(sampling: Sampling, seeded: bool) -> None:
    """What follows from the fields together.

    As in TensorRT-LLM, nothing asked (or top_k 1, or temperature 0) is greedy. Unlike there, a
    temperature alone is not ignored: it samples from the whole distribution. A request without a
    seed gets a random one, which is chosen here, before ranks and processes share the settings.
    """
    asked = sampling.top_k > 1 or sampling.temperature != 1.0
    if sampling.top_k != 1:
        asked = asked or sampling.top_p > 0 or sampling.min_p > 0
    sampling.sample = asked and sampling.top_k != 1 and sampling.temperature > 0
    if sampling.num_return_sequences > 1 and sampling.beam_width == 1 and not sampling.sample:
        raise RequestError(
            "num_return_sequences: more than 1 needs sampling; send top_k above 1, top_p, min_p, or"
            " a temperature other than 1"
        )
    if sampling.sample and not seeded:
        sampling.seed = secrets.randbits(SEED_BITS)


assert {spec.target for spec in FIELDS.values()} <= {f.name for f in fields(Sampling)}
