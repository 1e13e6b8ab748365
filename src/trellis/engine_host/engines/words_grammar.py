# SPDX-License-Identifier: Apache-2.0
"""Bad words as a grammar of all other texts, which a library's structured output holds answers to.

The grammar is an automaton's, a rule for each of its states, and leaves no token possible that
would complete a word, however the words fall on token borders; nor bytes that are no UTF-8. The
library (xgrammar) has a form of its own for this, `TagDispatch` with `excludes`, at a fraction of
the time, but it lets words pass that begin inside another's beginning or their own: `aab` in
`aaab` (https://github.com/mlc-ai/xgrammar/pull/697, newer than the library that OpenVINO holds).
"""

from collections.abc import Iterable

from trellis.engine_host.engines.word_automaton import without
from trellis.errors import RequestError
from trellis.guides.characters import others, ranges
from trellis.guides.grammar import class_text
from trellis.guides.nodes import Ranges

MAX_WORDS = 32
MAX_BYTES = 256  # of all words together: each character takes 5 ms on 2 cores to compile

NOT_IN_WORDS = {
    "\0": "U+0000",
    "\ufffd": "U+FFFD, which stands for bytes that are no text",
}


def check_words(words: tuple[str, ...], engine: str) -> None:
    """Raise RequestError for words that no grammar keeps out, and for more than are compiled."""
    if len(words) > MAX_WORDS:
        raise RequestError(
            f"bad_words: {len(words)} words; this engine ({engine}) takes {MAX_WORDS}"
        )
    size = sum(len(word.encode()) for word in words)
    if size > MAX_BYTES:
        raise RequestError(
            f"bad_words: {size} bytes of UTF-8 in all; this engine ({engine}) takes {MAX_BYTES}"
        )
    for word in words:
        for character, name in NOT_IN_WORDS.items():
            if character in word:
                raise RequestError(f"bad_words: {word!r} holds {name}; leave it out")


def words_grammar(words: Iterable[str], ends: bool) -> str:
    """The grammar of all texts without words that were checked, as xgrammar reads it.

    `ends`: whether the end token may come. Where it may not, the grammar never comes to an end:
    after the end token the library would let everything pass.
    """
    states = without(sorted(set(words)))
    rules = [f"s{state} ::= {_rule(after, ends)}" for state, after in enumerate(states) if after]
    return "\n".join(["root ::= s0", *rules, ""])


def _rule(after: dict[str, int | None], ends: bool) -> str:
    """What may follow in a state of the automaton: a character and its state's rule."""
    by_state: dict[int, list[str]] = {}
    for character, state in after.items():
        if state is not None:
            by_state.setdefault(state, []).append(character)
    choices = ['""'] if ends else []
    choices.append(f"{_others(after)} s0")
    choices += [f"{class_text(_ranges(known))} s{state}" for state, known in by_state.items()]
    return " | ".join(choices)


def _others(characters: Iterable[str]) -> str:
    """All characters but these; the library's own way to say that, [^...], is for ASCII alone."""
    return class_text(others(_ranges(characters)))


def _ranges(characters: Iterable[str]) -> Ranges:
    return ranges(*((ord(each), ord(each)) for each in characters))
