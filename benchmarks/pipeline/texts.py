"""What is asked and answered: running text in English and Korean, as long as is wanted.

Vocabularies are real, from packages (tests/support/tokenizer_folders.py). The engine replays the
ids of running text, so that what `postprocessing` decodes is what it would decode.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import checkout  # noqa: F401  (first: it says where the next are)

from support.tokenizer_folders import TYPE_OF, Folders
from trellis.tokenizers import Tokenizer, load

# Folders that transformers' AutoTokenizer opens too, one for each tokenizer_type with a real
# vocabulary; `auto` is any of them.
FOLDERS = {
    "llama": "llama_json",
    "gpt2": "gpt2_json",
    "llama3": "llama3_json",
    "mistral": "tekken_json",
    "t5": "t5_json",
    "auto": "llama_json",
}
ANSWER_TOKENS = 10_000
_WORDS = {
    "en": "the of and to in a is that for it was on are as with his they at be this from have or by"
    " one had not but what all were when we there can an your which their said if do will each"
    " about how up out them then she many some so these would other into has more her two like him"
    " see time could no make than first been its who now people my made over did down only way find"
    " use may water long little very after words called just where most know government language"
    " remarkable information development understanding nevertheless approximately",
    "ko": "그리고 우리는 오늘 아침에 학교에서 친구들과 함께 공부를 했습니다 서울은"
    " 대한민국의 수도이며 많은 사람들이 살고 있는 아름다운 도시입니다 언어 모델은"
    " 다음 단어를 예측하여 문장을 만들어 냅니다 하지만 정확한 답을 얻으려면 질문을"
    " 분명하게 해야 한다고 생각합니다 봄에는 꽃이 피고 여름에는 비가 내리며 가을에는"
    " 단풍이 들고 겨울에는 눈이 옵니다 그녀는 도서관에서 오래된 책을 읽었다"
    " 연구자들은 새로운 방법을 제안하였으며 결과는 놀라웠다",
}
_ENDS = {"en": " The answer, in English:", "ko": " 한국어로 대답하면 다음과 같습니다:"}


def running_text(language: str, words: int, seed: int = 1) -> str:
    """That many words in sentences, the same for the same seed."""
    rng = random.Random(f"{language} {seed}")
    vocabulary = _WORDS[language].split()
    made: list[str] = []
    while len(made) < words:
        sentence = rng.choices(vocabulary, k=min(rng.randint(5, 18), words - len(made)))
        sentence[-1] += rng.choice([".", ".", ".", "?", ",", ".\n"])
        made += [sentence[0].capitalize(), *sentence[1:]]
    return " ".join(made)


@dataclass
class Texts:
    """Prompts and answers of one tokenizer."""

    tokenizer: Tokenizer
    _prompts: dict[tuple[str, int, int], str] = field(default_factory=dict)
    _answers: dict[str, list[int]] = field(default_factory=dict)

    def prompt(self, language: str, tokens: int, seed: int = 1) -> str:
        """A prompt of about that many tokens: at most, and short of them by a word at most."""
        key = (language, tokens, seed)
        if key not in self._prompts:
            self._prompts[key] = self._fitting(language, tokens, seed)
        return self._prompts[key]

    def _fitting(self, language: str, tokens: int, seed: int) -> str:
        body = running_text(language, tokens, seed).split(" ")
        end = _ENDS[language]
        few, many = 0, len(body)  # words: the most that fit are looked for
        while few < many:
            middle = (few + many + 1) // 2
            fits = len(self.tokenizer.encode(" ".join(body[:middle]) + end)) <= tokens
            few, many = (middle, many) if fits else (few, middle - 1)
        return " ".join(body[:few]) + end

    def answer(self, language: str) -> list[int]:
        """The ids of the engine's answer, as many as any request asks for."""
        if language not in self._answers:
            text = running_text(language, ANSWER_TOKENS, seed=2)
            special = {self.tokenizer.bos_id, self.tokenizer.eos_id}
            ids = [token for token in self.tokenizer.encode(text) if token not in special]
            self._answers[language] = ids[:ANSWER_TOKENS]
        return self._answers[language]

    def tail(self, language: str) -> list[int]:
        """Ids that every prompt of the language ends with, and no other."""
        return list(self.tokenizer.encode(self.prompt(language, 60)))[-4:]


def opened(tokenizer_type: str, folders: Folders) -> tuple[Path, Callable[[], Texts]]:
    """The folder of a type's vocabulary, and what opens it."""
    name = FOLDERS[tokenizer_type]
    return folders[name], lambda: Texts(load(TYPE_OF.get(name, tokenizer_type), folders[name]))
