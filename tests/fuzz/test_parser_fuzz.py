# SPDX-License-Identifier: Apache-2.0
"""Parsers of answers: a hundred cuts for each request that FUZZ_REQUESTS= asks for."""

import random

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz.batches import REQUESTS, SEED
from support.parser_texts import ANSWERS, setups
from support.parsing import check_cuts
from trellis.parsers import Setup
from trellis.parsers.registry import load

CUTS = 100  # of one text
SHARE = 0.1 if REQUESTS < 10_000 else 1.0  # a million cuts a format where all is asked for


@pytest.mark.parametrize("name", ANSWERS)
def test_no_cut_changes_what_an_answer_is(name: str) -> None:
    format = load(name)

    @seed(SEED)
    @settings(
        max_examples=max(round(REQUESTS * SHARE), 1),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(ANSWERS[name], setups(name), st.randoms(use_true_random=False))
    def check(text: str, setup: Setup, dice: random.Random) -> None:
        check_cuts(format, text, CUTS, dice, setup)

    check()
