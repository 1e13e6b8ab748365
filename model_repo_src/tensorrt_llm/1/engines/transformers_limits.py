"""What the `transformers` engine cannot do, known without loading it."""

from engines.engine import Refused, Sampling


def refuse(sampling: Sampling, vocab_size: int) -> None:
    """Raise Refused for what this engine does not have, by the input's name."""
    if sampling.beam_width > 1:
        raise Refused("beam_width: this engine (transformers) has no beam search; send 1")
    if sampling.log_probs:
        raise Refused("return_log_probs: this engine (transformers) cannot do it; leave it out")
    if sampling.bad_words:
        raise Refused("bad_words: this engine (transformers) cannot do it; leave it out")
    if sampling.bad_words:
        raise Refused("bad_words: this engine (transformers) cannot do it; leave it out")
    if sampling.end_id >= vocab_size:
        raise Refused(f"end_id: {sampling.end_id} is not in the vocabulary of {vocab_size}")
