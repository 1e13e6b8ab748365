"""How many requests are made up, and of which seed."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "500"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
BATCH = 20


def batches(of: st.SearchStrategy[Any], share: float) -> Callable[[Any], Any]:
    """Run a test on batches that hold this share of all the requests.

    Not shrunk: what one request leaves behind would be found in the next one's batch.
    """
    chosen = settings(
        max_examples=max(round(REQUESTS * share / BATCH), 1),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    made = given(batch=st.lists(of, min_size=BATCH, max_size=BATCH))
    return lambda test: seed(SEED)(chosen(made(test)))
