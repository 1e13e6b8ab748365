"""A tokenizer whose tokens are bytes: what is encoded and decoded can be read in a test."""

from trellis.tokenizers import Tokenizer


class ByteTokenizer(Tokenizer):
    """Every byte is a token, and 0 ends an answer."""

    vocab_size = 256
    eos_id = 0

    def encode(self, text: str) -> list[int]:
        """The bytes; a text with a bell makes it fail, as a tokenizer of one's own may."""
        if "\a" in text:
            raise KeyError("bell")
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        """The byte."""
        return bytes([token])
