# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says by transformers' own loop, which vLLM's greedy text must equal."""

from collections.abc import Sequence
from pathlib import Path

from trellis.tokenizers import Tokenizer

END = 2  # SmolLM2's


def greedy_texts(
    checkpoint: Path, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int
) -> list[str]:
    """The greedy text of so many tokens to each prompt, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # others wait for the cores, and threads for one another
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt)])
        with torch.no_grad():
            made = model.generate(
                ids, max_new_tokens=tokens, do_sample=False, eos_token_id=END, pad_token_id=END
            )
        new = made[0, ids.shape[1] :].tolist()
        texts.append(tokenizer.decode(new[: new.index(END)] if END in new else new))
    return texts
