"""Messages to a prompt: the tokenizer's own template, or the form its kind was trained on."""

from pathlib import Path
from typing import Any

import pytest

from support.tokenizer_folders import Folders, Loaded
from trellis.tokenizers import TokenizerError, load

SYSTEM = [{"role": "system", "content": "Answer very seriously"}]
USER = [{"role": "user", "content": "x"}]
IMAGE = {"type": "image", "image": "x.png"}


def conversation(answers: int) -> list[dict[str, str]]:
    """So many answered users, and one more user; everything but the first padded with space."""
    made = [{"role": "user", "content": " user 1 "}]
    for turn in range(1, answers + 1):
        made.append({"role": "assistant", "content": f" answer {turn} \n"})
        made.append({"role": "user", "content": f"\tuser {turn + 1} "})
    return made


LLAMA = [
    "<s> [INST] {system} user 1  [/INST]",
    "<s> [INST] {system} user 1  [/INST] answer 1 </s><s> [INST] user 2 [/INST]",
    "<s> [INST] {system} user 1  [/INST] answer 1 </s><s> [INST] user 2 [/INST] answer 2 </s>"
    "<s> [INST] user 3 [/INST]",
    "<s> [INST] {system} user 1  [/INST] answer 1 </s><s> [INST] user 2 [/INST] answer 2 </s>"
    "<s> [INST] user 3 [/INST] answer 3 </s><s> [INST] user 4 [/INST]",
]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("with_system", [False, True])
def test_llama_without_a_template_takes_llama_2s_form(
    turns: int, with_system: bool, loaded: Loaded
) -> None:
    messages = SYSTEM * with_system + conversation(turns)
    system = "<<SYS>>\nAnswer very seriously\n<</SYS>>\n\n" if with_system else ""
    expected = LLAMA[turns].format(system=system)
    assert loaded["llama"].chat_prompt(messages) == expected
    ids = loaded["llama"].encode(expected)
    assert ids[0] == 1
    assert ids.count(1) == turns + 1
    assert ids.count(2) == turns


@pytest.mark.parametrize("name", ["llama", "llama_json"])
@pytest.mark.parametrize("turns", range(4))
def test_llama_2s_form_has_the_ids_that_meta_gave_each_turn(
    name: str, turns: int, folders: Folders, loaded: Loaded
) -> None:
    import sentencepiece

    path = folders["llama"] / "tokenizer.model"
    meta = sentencepiece.SentencePieceProcessor(model_file=str(path))
    messages = [{**m, "content": m["content"].strip()} for m in conversation(turns)]
    ids: list[int] = []
    for user, answer in zip(messages[:-1:2], messages[1::2], strict=True):
        text = f"[INST] {user['content']} [/INST] {answer['content']} "
        ids += [1, *meta.encode(text), 2]
    ids += [1, *meta.encode(f"[INST] {messages[-1]['content']} [/INST]")]
    llama = load("llama", folders[name])
    assert llama.chat_ids(messages) == ids
    assert llama.encode(llama.chat_prompt(messages)) == ids


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "mistral2", "mistral3", "mistral7", "tekken"])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("with_system", [False, True])
def test_mistral_equals_mistral_common(
    name: str, turns: int, with_system: bool, folders: Folders
) -> None:
    messages = SYSTEM * with_system + [
        {**message, "content": message["content"].strip()} for message in conversation(turns)
    ]
    tokenizer = load("mistral", folders[name])
    assert tokenizer.encode(tokenizer.chat_prompt(messages)) == mistral_common(
        folders[name], messages
    )


@pytest.mark.slow
@pytest.mark.parametrize("turns", range(4))
def test_llama3_equals_metas_own_chat_format(turns: int, folders: Folders, loaded: Loaded) -> None:
    from llama_models.datatypes import RawMessage
    from llama_models.llama3.chat_format import ChatFormat
    from llama_models.llama3.tokenizer import Tokenizer as Reference

    messages = SYSTEM + [
        {**message, "content": message["content"].strip()} for message in conversation(turns)
    ]
    reference = ChatFormat(Reference(folders["llama3"] / "tokenizer.model"))
    raw = [
        RawMessage(role=m["role"], content=m["content"], stop_reason="end_of_turn")
        if m["role"] == "assistant"
        else RawMessage(role=m["role"], content=m["content"])
        for m in messages
    ]
    prompt = loaded["llama3"].chat_prompt(messages)
    assert loaded["llama3"].encode(prompt) == reference.encode_dialog_prompt(raw).tokens


@pytest.mark.slow
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_the_tokenizers_own_template_gives_what_transformers_gives(
    turns: int, add_generation_prompt: bool, folders: Folders, loaded: Loaded
) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folders["smollm2"])
    for messages in (conversation(turns), SYSTEM + conversation(turns)):
        theirs = reference.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        assert loaded["smollm2"].chat_prompt(messages, add_generation_prompt) == theirs
        auto = load("auto", folders["smollm2"])
        assert auto.chat_prompt(messages, add_generation_prompt) == theirs


def test_qwen_without_a_template_takes_chatml(folders: Folders) -> None:
    qwen = load("qwen", folders["gpt2"])
    assert qwen.chat_prompt([*SYSTEM, {"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nAnswer very seriously<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_template_the_error_says_what_to_add(loaded: Loaded) -> None:
    with pytest.raises(TokenizerError, match=r"no chat template: add chat_template.jinja"):
        loaded["gpt2"].chat_prompt([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "at least one message"),
        ("hello", "must be a list, not str"),
        (SYSTEM, "at least one message"),
        ([{"role": "assistant", "content": "x"}], "found 'assistant' where 'user'"),
        ([{"role": "user", "content": "x"}] * 2, "found 'user' where 'assistant'"),
        ([{"role": "user"}], r"messages\[0\]: 'content' is null, for which Llama-2's form"),
        ([{"role": "user", "content": None}], r"messages\[0\]: 'content' is null"),
        ([{"role": "user", "content": 7}], r"messages\[0\]: 'content' must be .* not int"),
        ([{"role": "user", "content": [7]}], r"messages\[0\]: content\[0\] must be an object"),
        (["hello"], r"messages\[0\]: must be an object, not str"),
        ([{"content": "x"}], r"messages\[0\]: needs a string 'role', not null"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]: needs a string 'role', not int"),
        (
            [*USER, {"role": "assistant", "content": [IMAGE]}],
            r"messages\[1\]: content\[0\] .* 'image'",
        ),
        (
            [*USER, {"role": "assistant", "content": "", "tool_calls": [{}]}],
            r"messages\[1\].*tool_calls",
        ),
    ],
)
def test_bad_messages_are_named(messages: Any, complaint: str, loaded: Loaded) -> None:
    with pytest.raises(TokenizerError, match=complaint):
        loaded["llama"].chat_prompt(messages)


@pytest.mark.parametrize("key", ["tools", "documents"])
def test_a_form_without_a_template_has_no_tools_and_says_so(key: str, loaded: Loaded) -> None:
    given: dict[str, Any] = {key: [{"title": "x"}]}
    with pytest.raises(TokenizerError, match=rf"{key}: .* Llama 3's form has no {key}"):
        loaded["llama3"].chat_prompt(USER, **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mistral3", "mistral7", "tekken"])
def test_the_text_parts_of_a_message_are_joined_as_mistral_common_joins_them(
    name: str, folders: Folders
) -> None:
    parts = [{"type": "text", "text": text} for text in ("one", "two")]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    tokenizer = load("mistral", folders[name])
    assert tokenizer.encode(tokenizer.chat_prompt(messages)) == mistral_common(
        folders[name], messages
    )


def test_an_answer_begun_is_gone_on_with_in_a_built_in_form(loaded: Loaded) -> None:
    messages = [*USER, {"role": "assistant", "content": "I think"}]
    prompt = loaded["llama"].chat_prompt(messages, False, continue_final_message=True)
    assert prompt == "<s> [INST] x [/INST] I think"


def mistral_common(folder: Path, messages: list[dict[str, Any]]) -> list[int]:
    """The ids that mistral-common's own encoder makes of a conversation."""
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    reference = MistralTokenizer.from_file(str(next(folder.iterdir())))
    request: Any = ChatCompletionRequest.from_openai(messages)
    tokens: list[int] = reference.encode_chat_completion(request).tokens
    return tokens
