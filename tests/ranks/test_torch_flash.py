"""Attention by torch's flash kernel: the tokens of sdpa; the kernel itself only where a GPU is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: `make setup-torch`", exc_type=ImportError)

from ranks.checkpoints import random_llama  # noqa: E402
from trellis.engine_host.engines import transformers_attention  # noqa: E402
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling  # noqa: E402
from trellis.engine_host.engines.transformers import TransformersEngine  # noqa: E402

Tensor = Any  # torch's
LENGTHS = (3, 70, 1, 200, 64, 130)  # of prompts: within a page of the cache, and over several


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    most_queries: int,
    most_keys: int,
    scaling: float | None,
) -> Tensor:
    """What the kernel computes, request by request."""
    repeat = query.shape[1] // key.shape[1]
    found = []
    for i in range(len(query_ends) - 1):
        q = query[query_ends[i] : query_ends[i + 1]].transpose(0, 1)
        k, v = (
            states[key_ends[i] : key_ends[i + 1]].transpose(0, 1).repeat_interleave(repeat, 0)
            for states in (key, value)
        )
        assert q.shape[1] <= most_queries
        assert k.shape[1] <= most_keys
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device)
        seen = seen.tril(k.shape[1] - q.shape[1])
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=scaling)
        found.append(output.transpose(0, 1))
    return torch.cat(found)


def generate(folder: Path, **settings: Any) -> list[list[int]]:
    """Greedy tokens after prompts of several lengths, more than fit into one step."""
    engine = TransformersEngine(
        EngineSettings(folder, max_batch_size=4, max_tokens_in_paged_kv_cache=4096, **settings)
    )
    made: dict[int, list[int]] = {}
    for key, length in enumerate(LENGTHS, start=1):
        engine.add(key, np.arange(length) * 7 % 250, Sampling(max_tokens=20))
        made[key] = []
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure), event
            made[event.key] += event.ids
    return list(made.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_llama(tmp_path, vocab_size=256)
    return tmp_path


def test_it_is_given_each_request_s_place_in_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generate(folder, attention_implementation="sdpa")
    calls: list[int] = []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(len(arguments[3]))
        return reference(*arguments)

    monkeypatch.setattr(transformers_attention, "_fits", lambda model: True)
    monkeypatch.setattr(transformers_attention, "varlen_attention", counted)
    assert generate(folder) == expected
    assert max(calls) == 1 + 4  # as many requests as the batch takes


def test_on_a_cpu_and_where_another_is_asked_for_it_is_not_used(folder: Path) -> None:
    engine = TransformersEngine(EngineSettings(folder, 4, max_tokens_in_paged_kv_cache=256))
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    assert engine._model.config._attn_implementation == "sdpa"


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_the_kernel_computes_what_the_reference_does(heads: tuple[int, int]) -> None:
    torch.manual_seed(0)
    queries, keys = (1, 5, 1, 130, 64), (1, 5, 300, 130, 500)
    ends = [torch.tensor((0, *np.cumsum(n)), dtype=torch.int32).cuda() for n in (queries, keys)]
    q, k, v = (
        torch.randn(sum(n), h, 128, device="cuda", dtype=torch.bfloat16)
        for n, h in ((queries, heads[0]), (keys, heads[1]), (keys, heads[1]))
    )
    sizes = (*ends, max(queries), max(keys), 0.1)
    found = transformers_attention.varlen_attention(q, k, v, *sizes)
    expected = reference(q.float(), k.float(), v.float(), *sizes)
    assert (found.float() - expected).abs().max() < 0.02


@needs_gpu
def test_on_a_gpu_it_makes_the_tokens_of_sdpa(folder: Path) -> None:
    half = {"dtype": "bfloat16"}
    flash, sdpa = (
        generate(folder, **half),
        generate(folder, attention_implementation="sdpa", **half),
    )
    # In bfloat16 the two round differently, and one token that is another changes all after it.
    assert [ids[:8] for ids in flash] == [ids[:8] for ids in sdpa]
