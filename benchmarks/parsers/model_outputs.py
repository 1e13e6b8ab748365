# SPDX-License-Identifier: Apache-2.0
"""Outputs of models, made by their own chat templates of random turns: thoughts, text and calls.

    PYTHONPATH=src:tests .venv/bin/python benchmarks/parsers/model_outputs.py TEMPLATES OUT.jsonl

TEMPLATES is a folder of chat templates; llama.cpp's `models/templates`, as the source archive of
the package llama-cpp-python has it, has all that are named below. 500 outputs a format. What a
template writes for a past turn is what its model was trained to write, but for gpt-oss: see
benchmarks/parsers/README.md.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.parser_calls import OPENAI_TOOLS, Turn, random_turn
from support.parser_writers import llama4_pythonic
from trellis.tokenizers.template_process import render_template

OUTPUTS = 500  # a format
BLOCKS = "blocks"  # thoughts are a part of the message's content
QUESTION = {"role": "user", "content": "What now?"}


@dataclass(frozen=True)
class Model:
    """How a model's turns are written, and by which parsers they are read."""

    form: str  # PARSER=
    template: str
    end: str  # what ends a turn: an end id, so that no parser sees it
    vllm: tuple[str, str]  # --tool-call-parser, --reasoning-parser
    options: Mapping[str, Any] = field(default_factory=dict)  # of the template
    thinks: str = ""  # the message's key for its thoughts, or BLOCKS
    always_thinks: bool = False
    most_calls: int = 3
    text_beside_calls: bool = True
    lacks: tuple[str, ...] = ()  # tokens that its tokenizer does not have
    as_text: bool = False  # whether the template wants arguments as JSON text


_IM_END, _LLAMA_END, _SENTENCE_END = "<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>"
_OFF = {"enable_thinking": False}
MODELS = [
    Model("hermes", "Qwen-Qwen2.5-7B-Instruct", _IM_END, ("hermes", "")),
    Model("hermes", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", _IM_END, ("hermes", ""),
          {"tools": []}, text_beside_calls=False),  # it does not know all of the schemas
    Model("think+hermes", "Qwen-Qwen3-0.6B", _IM_END, ("hermes", "qwen3"),
          thinks="reasoning_content"),
    Model("llama3_json", "meta-llama-Llama-3.1-8B-Instruct", _LLAMA_END, ("llama3_json", ""),
          most_calls=1, text_beside_calls=False),
    Model("llama3_json", "meta-llama-Llama-3.2-3B-Instruct", _LLAMA_END, ("llama3_json", ""),
          most_calls=1, text_beside_calls=False),
    Model("mistral", "mistralai-Mistral-Nemo-Instruct-2407", "</s>", ("mistral", ""),
          text_beside_calls=False, lacks=("[ARGS]", "[CALL_ID]")),
    Model("mistral", "Mistral-Small-3.2-24B-Instruct-2506", "</s>", ("mistral", ""),
          text_beside_calls=False),
    Model("think+mistral", "mistralai-Ministral-3-14B-Reasoning-2512", "</s>",
          ("mistral", "mistral"), thinks=BLOCKS),
    Model("qwen3_coder", "Qwen3-Coder", _IM_END, ("qwen3_coder", "")),
    Model("think+qwen3_coder", "Qwen3.5-4B", _IM_END, ("qwen3_coder", "qwen3"),
          thinks="reasoning_content"),
    Model("think+qwen3_coder", "Qwen3.5-4B", _IM_END, ("qwen3_coder", "qwen3"), _OFF),
    Model("think+glm", "GLM-4.6", "", ("glm45", "glm45"), thinks="reasoning_content"),
    Model("think+glm", "GLM-4.7-Flash", "", ("glm47", "glm47"), thinks="reasoning_content",
          always_thinks=True),
    Model("think+glm", "GLM-4.7-Flash", "", ("glm47", "glm47"), _OFF),
    Model("deepseek_v3", "deepseekv3", _SENTENCE_END, ("deepseek_v3", ""), as_text=True),
    Model("think+deepseek_v3", "deepseek-ai-DeepSeek-V3.1", _SENTENCE_END,
          ("deepseek_v31", "deepseek_v3")),
    Model("harmony", "openai-gpt-oss-120b", "", ("openai", "openai_gptoss"), thinks="thinking",
          most_calls=1, text_beside_calls=False),
]  # fmt: skip


def outputs(templates: Path) -> Iterator[dict[str, Any]]:
    """One record an output: what was meant, the prompt, and what the template makes of it."""
    counts = {name: sum(m.form.split("+")[-1] == name for m in MODELS) for name in _names()}
    for number, model in enumerate(MODELS):
        source = random.Random(number)
        template = (templates / f"{model.template}.jinja").read_text(encoding="utf-8")
        for _ in range(-(-OUTPUTS // counts[model.form.split("+")[-1]])):
            turn = _turn(source, model)
            yield _record(model, turn, *_write(model, template, turn))
    source = random.Random(len(MODELS))
    llama4 = Model("llama4_pythonic", "", "", ("llama4_pythonic", ""), text_beside_calls=False)
    for _ in range(OUTPUTS):  # whose own template writes past calls as JSON
        turn = _turn(source, llama4)
        yield _record(llama4, turn, "", llama4_pythonic(turn))


def _names() -> set[str]:
    return {model.form.split("+")[-1] for model in MODELS}


def _turn(source: random.Random, model: Model) -> Turn:
    turn = random_turn(source, bool(model.thinks), model.most_calls)
    if model.always_thinks and not turn.reasoning:
        turn = turn._replace(reasoning="So.")
    return turn._replace(text="") if turn.calls and not model.text_beside_calls else turn


def _record(model: Model, turn: Turn, prompt: str, output: str) -> dict[str, Any]:
    return {
        "form": model.form,
        "template": model.template,
        "vllm": model.vllm,
        "lacks": model.lacks,
        "thinking": model.options.get("enable_thinking", bool(model.thinks)),
        "prompt": prompt,
        "output": output,
        "turn": turn,
    }


def _write(model: Model, template: str, turn: Turn) -> tuple[str, str]:
    """The end of the prompt, and the output."""

    def render(*messages: Mapping[str, Any], begin: bool) -> str:
        return render_template(
            template,
            {"messages": list(messages), "tools": OPENAI_TOOLS, "add_generation_prompt": begin,
             "bos_token": "<s>", "eos_token": "</s>", **model.options},
        )  # fmt: skip

    whole = render(QUESTION, _message(model, turn), begin=False)
    prompt = render(QUESTION, begin=True)
    if not whole.startswith(prompt):  # its end is a choice of the template's that the turn is not
        prompt = render(QUESTION, begin=False)
        prompt = next((prompt + head for head in _HEADS if whole.startswith(prompt + head)), prompt)
    output = whole[len(prompt) :].rstrip("\n")
    for end in ("<|call|>", "<|return|>") if model.form == "harmony" else (model.end,):
        output = output.removesuffix(end)
    return prompt[-60:], output


_HEADS = ("<|im_start|>assistant\n", "<|assistant|>", "<｜Assistant｜>", "<|start|>assistant")


def _message(model: Model, turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    if turn.reasoning and model.thinks == BLOCKS:
        thoughts = {"type": "thinking", "thinking": turn.reasoning}
        message["content"] = [thoughts, {"type": "text", "text": turn.text}]
    elif turn.reasoning:
        message[model.thinks] = turn.reasoning
    calls = [
        {"type": "function", "id": f"call{number:05}", "function": {
            "name": name, "arguments": _json(arguments) if model.as_text else arguments}}
        for number, (name, arguments) in enumerate(turn.calls)
    ]  # fmt: skip
    return message | ({"tool_calls": calls} if calls else {})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Write the outputs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("templates", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with args.out.open("w", encoding="utf-8") as file:
        for record in outputs(args.templates):
            file.write(_json(record) + "\n")


if __name__ == "__main__":
    main()
