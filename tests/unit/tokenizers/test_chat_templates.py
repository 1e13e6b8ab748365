"""Chat templates: the text, the ids and the refusals of transformers' apply_chat_template."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.chat_folders import chat_folder
from support.tokenizer_folders import Folders
from trellis.tokenizers import Tokenizer, TokenizerError, load

OWN = ("add_generation_prompt", "tools", "documents", "continue_final_message")
"""What chat_prompt takes by name; the rest are a template's arguments."""

USER = {"role": "user", "content": "Hi <there> é漢😀\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": " Hello! \n"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <of> a city, é",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Paris"}},
}
TOOL_TURN: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "abcdef123", "content": "21"},
]
PARTS = [{"type": "text", "text": "one"}, {"type": "image", "image": "x.png"}]

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one user": ([USER], {}),
    "several turns": ([SYSTEM, USER, ANSWER, USER], {}),
    "no generation prompt": ([SYSTEM, USER, ANSWER], {"add_generation_prompt": False}),
    "tools": ([SYSTEM, USER], {"tools": [TOOL]}),
    "no tools in a list": ([USER], {"tools": []}),
    "a tool's result": (TOOL_TURN, {"tools": [TOOL]}),
    "a tool's result without tools": (TOOL_TURN, {}),
    "null content": ([{"role": "user", "content": None}], {}),
    "no content": ([{"role": "user"}], {}),
    "null tool calls": ([USER, {**ANSWER, "tool_calls": None}, USER], {}),
    "parts": ([{"role": "user", "content": PARTS}], {}),
    "documents": ([USER], {"documents": [{"title": "a", "text": "b & c"}]}),
    "thinking": ([USER], {"enable_thinking": True}),
    "no thinking": ([USER], {"enable_thinking": False}),
    "reasoning": ([USER, {**ANSWER, "thinking": "why"}, USER], {}),
    "an argument named as a token": ([USER], {"bos_token": "<other>"}),
    "roles that do not alternate": ([ANSWER, ANSWER], {}),
    "going on": (
        [USER, {"role": "assistant", "content": "I think "}],
        {"add_generation_prompt": False, "continue_final_message": True},
    ),
    "going on from a part": (
        [USER, {"role": "assistant", "content": [{"type": "text", "text": "I think "}]}],
        {"add_generation_prompt": False, "continue_final_message": True},
    ),
    "going on from reasoning": (
        [USER, {"role": "assistant", "content": "", "reasoning": "hm "}],
        {"add_generation_prompt": False, "continue_final_message": "reasoning_content"},
    ),
    "going on from a user": (
        [USER],
        {"add_generation_prompt": False, "continue_final_message": True},
    ),
}

TEMPLATES = {
    "everything": (
        "{{ bos_token }}{{ image_token }}{{ audio_token }}{{ sep_token }}{{ nothing }}"
        "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ tools is none }}"
        "{% for d in documents or [] %}{{ d | tojson }}{% endfor %}"
        "{% for m in messages %}\n"
        "  {% if m.role == 'critic' %}{% continue %}{% endif %}\n"
        "{{ m.role }}: {{ m.content or 'call' }}{{ m.tool_calls | tojson if m.tool_calls }}"
        "{{ m.reasoning_content }}{{ 'content' in m }}{{ m | length }}\n"
        "{% endfor %}{{ enable_thinking }}{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "generation": (
        "{% set x = 1 %}{% for m in messages %}{{ loop.index }}{% generation %}{% set x = 2 %}"
        "{{ m.content }}{{ x }}{% endgeneration %}{{ x }}{% endfor %}"
    ),
    "trimmed": "{% for m in messages %}{{ m.content | trim }}{{ eos_token }}{% endfor %}",
    "namespace and dict": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}{{ dict(a=1) | tojson }}{{ dict.fromkeys('ab', 1) }}"
    ),
    "a macro": (
        "{% macro show(m, depth=0) %}{{ m.role }}{% if depth < 3 %}{{ show(m, depth + 1) }}"
        "{% endif %}{% endmacro %}{% for m in messages %}{{ show(m) }}{% endfor %}"
    ),
    "tojson's arguments": (
        "{{ messages | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}"
    ),
    "a complaint": "{{ raise_exception('roles must alternate') }}",
    "a hidden name": "{% set ns = namespace(_a=1) %}",
    "today": "{{ strftime_now('%Y') }}",
}


def same(reference: Any, tokenizer: Tokenizer, name: str) -> None:
    """Assert that a conversation gives transformers' text and ids, or is refused by both."""
    messages, given = CONVERSATIONS[name]
    given = {"add_generation_prompt": True, **given}
    own = {key: value for key, value in given.items() if key in OWN}
    arguments = {key: value for key, value in given.items() if key not in OWN}
    try:
        text = reference.apply_chat_template(messages, tokenize=False, **given)
    except Exception:  # jinja2's errors, Python's, and the template's own
        with pytest.raises(TokenizerError):
            tokenizer.chat_prompt(messages, arguments=arguments, **own)
        return
    assert tokenizer.chat_prompt(messages, arguments=arguments, **own) == text
    ids = reference.apply_chat_template(messages, tokenize=True, return_dict=False, **given)
    assert tokenizer.chat_ids(messages, arguments=arguments, **own) == ids


@pytest.mark.parametrize("tokenizer_type", ["gpt2", "auto"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_gives_what_transformers_gives(
    template: str, tokenizer_type: str, tmp_path: Path
) -> None:
    folder = chat_folder(
        tmp_path,
        TEMPLATES[template],
        sep_token={"__type": "AddedToken", "content": "</s>"},
        image_token="<img>",
        extra_special_tokens={"audio_token": "<aud>"},
    )
    reference, tokenizer = opened(folder), load(tokenizer_type, folder)
    for name in CONVERSATIONS:
        same(reference, tokenizer, name)


def mistral_templates() -> Iterator[str]:
    """The chat templates that mistral-common makes for its versions of tokenizers."""
    from mistral_common.integrations.chat_templates.chat_templates import generate_chat_template
    from mistral_common.tokens.tokenizers.base import TokenizerVersion

    for version in TokenizerVersion.__members__.values():
        for spm in (True, False):
            try:
                yield generate_chat_template(
                    spm, version, False, False, False, None, False, True, None, None, None
                )
            except ValueError:  # the version is not one of this kind of vocabulary
                continue


def test_mistral_commons_templates_give_what_transformers_gives(tmp_path: Path) -> None:
    templates = list(mistral_templates())
    assert len(templates) > 5
    for template in templates:
        folder = chat_folder(tmp_path, template)
        reference, tokenizer = opened(folder), load("gpt2", folder)
        for name in CONVERSATIONS:
            same(reference, tokenizer, name)


def test_the_demos_template_gives_what_transformers_gives(folders: Folders) -> None:
    reference, tokenizer = opened(folders["smollm2"]), load("gpt2", folders["smollm2"])
    for name in CONVERSATIONS:
        same(reference, tokenizer, name)


def test_a_conversations_own_messages_are_left_as_they_are(tmp_path: Path) -> None:
    tokenizer = load("gpt2", chat_folder(tmp_path, "{{ messages[-1].content[0].text }}"))
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}], "name": None}]
    before = json.dumps(messages)
    assert tokenizer.chat_prompt(messages, False, continue_final_message=True) == "x"
    assert json.dumps(messages) == before


NAMED = [
    {"name": "default", "template": "default"},
    {"name": "tool_use", "template": "tool use"},
    {"name": "rag", "template": "rag"},
]


@pytest.mark.parametrize("tokenizer_type", ["gpt2", "auto"])
def test_a_named_template_is_chosen_as_transformers_chooses(
    tokenizer_type: str, tmp_path: Path
) -> None:
    tokenizer = load(tokenizer_type, chat_folder(tmp_path, NAMED))
    assert tokenizer.chat_prompt([USER]) == "default"
    assert tokenizer.chat_prompt([USER], tools=[TOOL]) == "tool use"
    assert tokenizer.chat_prompt([USER], tools=[TOOL], template="rag") == "rag"
    with pytest.raises(
        TokenizerError, match="no chat template 'x'; it has: default, rag, tool_use"
    ):
        tokenizer.chat_prompt([USER], template="x")


@pytest.mark.parametrize("tokenizer_type", ["gpt2", "auto"])
def test_named_templates_without_a_default_are_refused_until_one_is_named(
    tokenizer_type: str, tmp_path: Path
) -> None:
    tokenizer = load(tokenizer_type, chat_folder(tmp_path, NAMED[1:]))
    with pytest.raises(TokenizerError, match=r"no 'default': name one \(template\): rag, tool_use"):
        tokenizer.chat_prompt([USER])
    assert tokenizer.chat_prompt([USER], template="rag") == "rag"


@pytest.mark.parametrize(
    "template", [7, ["x"], [{"name": "default"}], {"default": 7}, [{"name": 1, "template": "x"}]]
)
def test_a_template_that_is_no_template_names_its_file(template: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: chat_template must be"):
        load("gpt2", chat_folder(tmp_path, template))


@pytest.mark.parametrize("tokenizer_type", ["gpt2", "auto"])
def test_template_files_go_before_the_config_and_a_processors_last(
    tokenizer_type: str, tmp_path: Path
) -> None:
    def prompt(**given: Any) -> str:
        return load(tokenizer_type, tmp_path).chat_prompt([USER], **given)

    chat_folder(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "processor"}))
    assert prompt() == "processor"
    chat_folder(tmp_path, "config")
    assert prompt() == "config"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert prompt() == "file"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("additional")
    assert prompt() == "file"
    assert prompt(tools=[TOOL]) == "additional"


def test_the_special_tokens_map_has_the_last_word_as_in_transformers(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, "{{ bos_token }}{{ cls_token }}")
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<img>", "cls_token": {"content": "<aud>"}})
    )
    assert load("gpt2", folder).chat_prompt([USER]) == "<img><aud>"
    assert opened(folder).apply_chat_template([USER], tokenize=False) == "<img><aud>"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"tools": "x"}, "tools: must be a list of objects, not str"),
        ({"tools": [print]}, r"tools\[0\]: must be an object"),
        ({"documents": ["x"]}, r"documents\[0\]: must be an object, not str"),
        ({"arguments": {"messages": []}}, "arguments: 'messages' cannot be an argument"),
        ({"arguments": {"x": {1}}}, "must be JSON"),
        ({"continue_final_message": True}, "needs add_generation_prompt to be false"),
    ],
)
def test_what_no_template_can_take_is_named(
    given: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    tokenizer = load("gpt2", chat_folder(tmp_path, "{{ messages[0].content }}"))
    with pytest.raises(TokenizerError, match=complaint):
        tokenizer.chat_prompt([USER], **given)


@pytest.mark.parametrize("tokenizer_type", ["gpt2", "auto"])
def test_bos_stands_once_before_a_prompt_whose_template_writes_it(
    tokenizer_type: str, tmp_path: Path
) -> None:
    folder = chat_folder(tmp_path, "{{ bos_token }}{{ messages[0].content }}")
    tokenizer = load(tokenizer_type, folder, {"add_bos_token": "true"})
    ids = opened(folder).apply_chat_template([USER], tokenize=True, return_dict=False)
    assert tokenizer.encode(tokenizer.chat_prompt([USER])) == ids
    assert tokenizer.chat_ids([USER]) == ids
    assert ids.count(tokenizer.bos_id) == 1


def test_chat_ids_have_no_bos_that_the_template_leaves_out(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, "{{ messages[0].content }}")
    tokenizer = load("gpt2", folder, {"add_bos_token": "true"})
    assert tokenizer.encode("x")[0] == tokenizer.bos_id
    assert tokenizer.chat_ids([{"role": "user", "content": "x"}]) == tokenizer.encode("x")[1:]


def opened(folder: Path) -> Any:
    """The reference."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
