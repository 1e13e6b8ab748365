"""Make the golden ids of llama.cpp for SmolLM2's vocabulary, as its GGUF file holds it.

With llama-cpp-python installed, run from the top of the checkout:

    PYTHONPATH=tests python tests/unit/tokenizers/golden/make_llama_cpp.py SMOLLM2_GGUF
"""

import sys

from support import digest, tokenizer_corpus


def main(path: str) -> None:
    """Write golden/smollm2_llama_cpp.json."""
    import llama_cpp

    model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    sequences = [
        model.tokenize(line.encode(), add_bos=False, special=False)
        for line in tokenizer_corpus.lines()
    ]
    digest.write("smollm2_llama_cpp", f"llama-cpp-python {llama_cpp.__version__}", sequences)


if __name__ == "__main__":
    main(*sys.argv[1:])
