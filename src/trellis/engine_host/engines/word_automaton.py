# SPDX-License-Identifier: Apache-2.0
"""Texts without certain words, as an automaton over characters (Aho and Corasick's).

A state is what of a word the text may have begun: the longest of its ends that begins one. So it
knows a word that begins inside the beginning of another, or of its own, as `aab` does in `aaab`.
"""

from collections.abc import Iterable

Transitions = dict[str, int | None]


def without(words: Iterable[str]) -> list[Transitions]:
    """Where each state's characters lead, but for those that lead to state 0, the first one.

    None is where a word would be complete; states that no text leads to have no characters.

    >>> without(["aab"])
    [{'a': 1}, {'a': 2}, {'a': 2, 'b': None}, {}]
    """
    begun, whole = _trie(words)
    found: list[Transitions] = [{} for _ in begun]
    shorter = {0: 0}  # state -> that of its longest end that is one, too
    line = [0]
    for state in line:  # grows: by length
        after = dict(found[shorter[state]]) if state else {}
        for character, longer in begun[state].items():
            elsewhere = after.get(character, 0)
            if longer in whole or elsewhere is None:
                after[character] = None
            else:
                after[character] = longer
                shorter[longer] = elsewhere
                line.append(longer)
        found[state] = after
    return found


def _trie(words: Iterable[str]) -> tuple[list[dict[str, int]], set[int]]:
    """The beginnings of the words, each with those a character longer, and which are words."""
    begun: list[dict[str, int]] = [{}]
    whole = set()
    for word in words:
        state = 0
        for character in word:
            longer = begun[state].get(character)
            if longer is None:
                longer = begun[state][character] = len(begun)
                begun.append({})
            state = longer
        whole.add(state)
    return begun, whole
