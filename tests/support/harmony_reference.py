# SPDX-License-Identifier: Apache-2.0
"""What OpenAI's own library reads of gpt-oss's answers, noted for a test that needs no library.

    TIKTOKEN_ENCODINGS_BASE=FOLDER PYTHONPATH=src:tests PYTHON -m support.harmony_reference

PYTHON has the package openai-harmony, as vLLM's venv does; benchmarks/parsers/README.md says how
FOLDER is made. The library reads token ids, and its messages are channel, recipient and content.
"""

import json
import random
from typing import Any

from support.parser_calls import SENTENCES, random_call
from support.paths import ROOT

GOLDEN = ROOT / "tests" / "unit" / "parsers" / "golden" / "harmony.json"
ANSWERS = 60
START = "<|start|>assistant"
_CALL_HEADERS = (
    "<|channel|>commentary to=functions.{} <|constrain|>json",
    "<|channel|>commentary to=functions.{}<|constrain|>json",
    "<|channel|>commentary to=functions.{} json",
    "<|channel|>commentary to=functions.{}",
    "<|channel|>analysis to=functions.{} code",
    " to=functions.{}<|channel|>commentary <|constrain|>json",
    " to=functions.{}<|channel|>commentary json",
    " to=functions.{}<|channel|>analysis",
)
_OTHER_HEADERS = (
    "<|channel|>analysis",
    "<|channel|>commentary",
    "<|channel|>final",
    "<|channel|>final <|constrain|>json",
    "<|channel|>analysis to=python code",
)


def answer(source: random.Random) -> str:
    """One to four messages; the last one may lack its end."""
    messages = []
    for _ in range(source.randint(1, 4)):
        if source.random() < 0.4:
            name, arguments = random_call(source)
            header = source.choice(_CALL_HEADERS).format(name)
            content, end = json.dumps(arguments, ensure_ascii=False), "<|call|>"
        else:
            header, content, end = (
                source.choice(_OTHER_HEADERS),
                source.choice(SENTENCES),
                "<|end|>",
            )
        messages.append(f"{header}<|message|>{content}{end}")
    text = START.join(messages)
    return text.removesuffix("<|call|>").removesuffix("<|end|>") if source.random() < 0.5 else text


def reference(text: str) -> list[list[str]]:
    """The library's messages: channel, recipient, content."""
    from openai_harmony import (
        HarmonyEncodingName,
        Role,
        StreamableParser,
        load_harmony_encoding,
    )

    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    parser = StreamableParser(encoding, role=Role.ASSISTANT)
    for token in encoding.encode(text, allowed_special="all"):
        parser.process(token)
    parser.process_eos()
    return [
        [each.channel or "", each.recipient or "", "".join(_text(part) for part in each.content)]
        for each in parser.messages
    ]


def _text(part: Any) -> str:
    return str(part.text)


def main() -> None:
    """Write the golden file."""
    source = random.Random(0)
    texts = [answer(source) for _ in range(ANSWERS)]
    GOLDEN.parent.mkdir(exist_ok=True)
    noted = [{"text": text, "messages": reference(text)} for text in texts]
    GOLDEN.write_text(json.dumps(noted, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
