"""Make the golden ids of transformers 4's tokenizers, which cannot be installed beside 5's.

In an environment of its own, with transformers 4.57 and sentencepiece, run from the top
of the checkout:

    PYTHONPATH=tests python tests/unit/tokenizers/golden/make_transformers4.py \
        TOKENIZER_MODEL_V1 VOCAB_JSON MERGES_TXT
"""

import os
import shutil
import sys
import tempfile

from support import digest, tokenizer_corpus


def main(model: str, vocab: str, merges: str) -> None:
    """Write golden/llama_fast.json, llama_slow.json and gpt2_slow_bos.json."""
    os.environ["TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK"] = "true"
    import transformers
    from transformers import GPT2Tokenizer, LlamaTokenizer, LlamaTokenizerFast

    if not transformers.__version__.startswith("4."):
        raise SystemExit(f"needs transformers 4, not {transformers.__version__}")
    lines = tokenizer_corpus.lines()
    made_with = f"transformers {transformers.__version__}"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model, f"{folder}/tokenizer.model")
        for name, kind in (("llama_fast", LlamaTokenizerFast), ("llama_slow", LlamaTokenizer)):
            tokenizer = kind.from_pretrained(folder, legacy=False)
            digest.write(name, made_with, [tokenizer.encode(line) for line in lines])
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(vocab, f"{folder}/vocab.json")
        shutil.copy(merges, f"{folder}/merges.txt")
        tokenizer = GPT2Tokenizer.from_pretrained(folder, add_bos_token=True)
        digest.write("gpt2_slow_bos", made_with, [tokenizer.encode(line) for line in lines])


if __name__ == "__main__":
    main(*sys.argv[1:])
