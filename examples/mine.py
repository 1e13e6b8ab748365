"""mine: every UTF-8 byte is a token, after four special ones."""

from pathlib import Path

from trellis.tokenizers import Tokenizer

FIRST = 4  # 0 pad, 1 end, 2 unknown, 3 begin


class Bytes(Tokenizer):
    vocab_size = FIRST + 256
    pad_id, eos_id, bos_id = 0, 1, 3

    def __init__(self, add_bos_token: bool) -> None:
        self.prefix = [3] if add_bos_token else []

    def encode(self, text: str) -> list[int]:
        return self.prefix + self.encode_fragment(text)

    def encode_fragment(self, text: str) -> list[int]:  # for stop words: no BOS
        return [FIRST + byte for byte in text.encode()]

    def token_bytes(self, token: int) -> bytes:
        return bytes([token - FIRST]) if token >= FIRST else b""


def load(tokenizer_dir: Path, *, add_bos_token: bool = True) -> Bytes:
    return Bytes(add_bos_token)
