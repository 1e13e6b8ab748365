# SPDX-License-Identifier: Apache-2.0
"""How many responses the engine of an ensemble gives to a request, by what its wiring says.

Triton's `/generate` takes one response. Of several it lets the engine make them all, and then
answers 200 with an error.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trellis.contract.client_inputs import BEAMS, PROMPT, SEQUENCES, STREAM
from trellis.gateway.refusals import Refusal

Config = Mapping[str, Any]
ONE = "/generate gives one answer"
PROMPTS = "prompts_per_request"  # parameter of `preprocessing`


@dataclass(frozen=True)
class Responses:
    """What makes a request have more than one response.

    TensorRT-LLM's own engine answers each prompt of a batch, and each sampled sequence, by itself;
    beams come together. The Python engines give all of a request that does not stream at once.
    """

    decoupled: bool = True  # whether there can be more than one
    one_a_prompt: bool = False
    one_a_sequence: bool = False

    @classmethod
    def of(cls, steps: Iterable[Config]) -> "Responses":
        """From Triton's configurations of an ensemble's models."""
        steps = list(steps)
        policies = [step.get("model_transaction_policy", {}) for step in steps]
        decoupled = any(policy.get("decoupled") for policy in policies)
        engines = [step for step in steps if step.get("backend") == "tensorrtllm"]
        if not (engines and decoupled):
            return cls(decoupled)
        inputs = {tensor["name"] for engine in engines for tensor in engine.get("input", [])}
        parameters = [step.get("parameters", {}).get(PROMPTS, {}) for step in steps]
        limited = any(parameter.get("string_value") == "1" for parameter in parameters)
        return cls(decoupled, not limited, SEQUENCES in inputs)

    def check_one(self, values: Mapping[str, Any], rows: int) -> None:
        """Raise Refusal for a request to `/generate` that has several.

        `values`: its checked inputs, one value or a list of one a prompt; `rows`: how many prompts.
        """
        if any(_all(values, STREAM, False)):
            if not self.decoupled:
                raise Refusal(
                    400,
                    f"{STREAM}: this repository was made with decoupled_mode:false; leave it out",
                )
            raise Refusal(
                400, f"{STREAM}: {ONE}; send it to /generate_stream, or leave {STREAM} out"
            )
        if self.one_a_prompt and rows > 1:
            raise Refusal(
                400,
                f"{PROMPT}: {ONE}, and this engine answers each of {rows} prompts by itself; send"
                " them one by one, or to /generate_stream",
            )
        beams = max(_all(values, BEAMS, 1))
        if self.one_a_sequence and beams == 1 and max(_all(values, SEQUENCES, 1)) > 1:
            raise Refusal(
                400,
                f"{SEQUENCES}: {ONE}, and this engine answers each sequence by itself; send it to"
                " /generate_stream",
            )


def _all(values: Mapping[str, Any], name: str, default: Any) -> list[Any]:
    value = values.get(name, default)
    return value if isinstance(value, list) else [value]
