# SPDX-License-Identifier: Apache-2.0
"""A logits processor of vLLM's that changes nothing and gives its steps a length.

vLLM calls `apply` once a step. A step ends at the next whole multiple of its length, in which every
stream gets a token: 3,200 tokens/s in all, as the cases of benchmarks/pipeline/plan.py.
"""

import time
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor

TOKENS_PER_SECOND = 3_200
SHORTEST_SECONDS = 0.005


class Pace(LogitsProcessor):  # type: ignore[misc]
    """Waits."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        """Nothing to prepare."""

    def apply(self, logits: Any) -> Any:
        """The logits as they are ([requests, vocabulary]), later."""
        step = max(SHORTEST_SECONDS, logits.shape[0] / TOKENS_PER_SECOND)
        time.sleep(step - time.monotonic() % step)
        return logits

    def is_argmax_invariant(self) -> bool:
        """No, though it is: greedy requests would not come by here."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """It keeps nothing."""
