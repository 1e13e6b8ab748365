"""Bad words for the OpenVINO engine: the pipeline's structured output, told what must not appear.

The library (xgrammar) makes an automaton of the words over the bytes of a text, and leaves no token
possible that would complete one, however the words fall on token borders. It is made between two
steps, the first time that a list is asked for, and kept for good: hence the bounds.
"""

from engines.engine import Refused

MAX_WORDS = 32
MAX_BYTES = 256  # of all words together: 0.1 s for that many of plain words, of which all wait
MAX_LISTS = 1000  # different lists, of 0.06 MB each
NEVER = "\U0010ffff"  # a noncharacter, which no text has

NOT_IN_WORDS = {
    "\0": "U+0000",
    NEVER: "U+10FFFF",
    "\ufffd": "U+FFFD, which stands for bytes that are no text",
}


class BadWords:
    """The lists that a pipeline was given so far, and their grammars."""

    def __init__(self) -> None:
        self._lists: set[frozenset[str]] = set()

    def refuse(self, words: tuple[str, ...]) -> None:
        """Raise Refused for words that cannot be kept out, and for lists beyond the bounds."""
        if len(words) > MAX_WORDS:
            raise Refused(
                f"bad_words: {len(words)} words; this engine (openvino) takes {MAX_WORDS}"
            )
        size = sum(len(word.encode()) for word in words)
        if size > MAX_BYTES:
            raise Refused(
                f"bad_words: {size} bytes of UTF-8 in all; this engine (openvino) takes {MAX_BYTES}"
            )
        for word in words:
            for character, name in NOT_IN_WORDS.items():
                if character in word:
                    raise Refused(f"bad_words: {word!r} holds {name}; leave it out")
        if len(self._lists) >= MAX_LISTS and frozenset(words) not in self._lists:
            raise Refused(
                f"bad_words: this engine (openvino) keeps every list, and has {MAX_LISTS}; send"
                " one of those"
            )

    def given(self, words: tuple[str, ...]) -> None:
        """Note a list that the engine has now."""
        self._lists.add(frozenset(words))

    def grammar(self, words: tuple[str, ...], ends: bool) -> str:
        """The grammar of all texts without these words, for a list that was not refused.

        `ends`: whether the end token may come. Where it may not, the grammar never comes to an end:
        after the end token the library would let everything pass.
        """
        self.given(words)
        tail = f"loop_after_dispatch=true,excludes=({','.join(map(_quoted, shortest(words)))})"
        if ends:
            return f"root ::= TagDispatch(stop_eos=true,stop_str=(),{tail})\n"
        text = f"TagDispatch(stop_eos=false,stop_str=({_quoted(NEVER)}),{tail})"
        return f"root ::= text root\ntext ::= {text}\n"


def shortest(words: tuple[str, ...]) -> list[str]:
    """The words that hold no other one, sorted: what keeps those out keeps out the others.

    >>> shortest(("stop", "top", "pot", "top"))
    ['pot', 'top']
    """
    different = sorted(set(words))
    return [
        word for word in different if not any(other in word for other in different if other != word)
    ]


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'
