# SPDX-License-Identifier: Apache-2.0
"""What a real vLLM on a CPU makes of guides and biases, beside requests without."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lora_adapters import merge, write_adapter
from trellis.engine_files.checkpoint import read_checkpoint
from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, EngineSettings
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.errors import RequestError
from trellis.guides.translate import translate
from trellis.tokenizers import load
from vllm_engine.engine_texts import END, EngineTexts, Made

pytestmark = pytest.mark.slow  # ci/ranks --long

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PLAIN = ("The capital of France is", {"max_tokens": 12})
PERSON = "A person as JSON: "


def guided(kind: str, guide: str = "", **more: Any) -> dict[str, Any]:
    made = translate(kind, guide)
    return {"max_tokens": 80, "guide_type": made.kind, "guide": made.text} | more


@pytest.fixture(scope="module")
def adapters(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two, of different ranks and modules."""
    folder = tmp_path_factory.mktemp("adapters")
    shapes = {tensor.name: tensor.shape for tensor in read_checkpoint(checkpoint).tensors()}
    made = {}
    for name, modules, rank in (("north", ("q_proj", "v_proj"), 4), ("south", ("down_proj",), 12)):
        chosen = {
            weight.removesuffix(".weight"): (shape[0], shape[1])
            for weight, shape in shapes.items()
            if weight.split(".")[-2] in modules
        }
        made[name] = write_adapter(folder / name, chosen, rank, seed=rank)
    return made


@pytest.fixture(scope="module")
def engine(
    checkpoint: Path, demo_engine: tuple[Path, Path], adapters: dict[str, Path]
) -> Iterator[EngineTexts]:
    tokenizer = load("gpt2", demo_engine[1])
    settings = EngineSettings(
        checkpoint,
        max_batch_size=16,
        max_seq_len=512,
        max_tokens_in_paged_kv_cache=16384,
        lora_adapters={name: str(folder) for name, folder in adapters.items()},
        tokenizer=demo_engine[1],
        tokenizer_sample=tuple(tokenizer.encode(TOKENIZER_SAMPLE)),
    )
    process = EngineProcess("vllm", settings)
    yield EngineTexts(process, tokenizer)
    process.close()


@pytest.fixture(scope="module")
def plain(engine: EngineTexts) -> str:
    """The greedy text without anything else in the batch."""
    return engine.ask(PLAIN)[0].text


def fine(made: Made) -> str:
    assert made.failure is None
    assert made.finish == "stop"
    return made.text


def test_guides_hold_answers_and_leave_those_beside_them(engine: EngineTexts, plain: str) -> None:
    schema, date, number, thing, free = engine.ask(
        (PERSON, guided("json_schema", json.dumps(SCHEMA))),
        ("The war ended on ", guided("regex", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")),
        ("Two and two is ", guided("ebnf_grammar", 'root ::= "four" | "five"')),
        (PERSON, guided("json", max_tokens=120)),
        PLAIN,
    )
    person = json.loads(fine(schema))
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", fine(date))
    assert fine(number) in ("four", "five")
    assert thing.failure is None
    assert thing.text.lstrip().startswith("{")
    assert free.text == plain


@pytest.mark.parametrize("end_id", [-1, 5])
def test_a_guide_ends_an_answer_whatever_end_the_client_names(
    engine: EngineTexts, end_id: int
) -> None:
    (made,) = engine.ask(("Yes or no? ", guided("regex", "(yes|no)", end_id=end_id)))
    assert fine(made) in ("yes", "no")
    assert END not in made.ids


@pytest.mark.parametrize(
    ("kind", "guide"),
    [
        ("ebnf_grammar", "root ::= nothing"),
        ("ebnf_grammar", "no grammar at all"),
        ("structural_tag", "{}"),
    ],
)
def test_what_is_no_guide_is_rejected_and_nothing_else(
    engine: EngineTexts, plain: str, kind: str, guide: str
) -> None:
    untranslated = {"max_tokens": 80, "guide_type": kind, "guide": guide}
    bad, free = engine.ask((PERSON, untranslated), PLAIN)
    assert bad.failure is not None, bad
    assert bad.failure.rejected
    assert bad.failure.message.startswith("guided_decoding_guide: ")
    assert free.text == plain


BAD = {
    "The capital of France is": ("Paris",),
    "Once upon a time, in a village by the sea,": ("e", "o"),
    "1, 2, 3, 5, 8,": ("1", " 2", "\n"),
    "안녕하세요 세계": ("안", "세", ", "),
    "aab aaab aab aaab": ("aab", "ab "),
}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # others wait for the cores, and threads for one another
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


def likeliest_without(
    model: Any, engine: EngineTexts, prompt: str, words: tuple[str, ...], tokens: int
) -> str:
    """The greedy text with the likeliest token that completes none of the words, step by step."""
    import torch

    decode, made = engine.tokenizer.decode, list[int]()
    ids = engine.tokenizer.encode(prompt)
    while len(made) < tokens and made[-1:] != [END]:
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *made]])).logits[0, -1]
        for token in logits.argsort(descending=True).tolist():
            text = decode([*made, token])
            if token == END or not any(word in text for word in words):
                break
        made.append(token)
    return decode([token for token in made if token != END])


def test_bad_words_never_appear_and_nothing_else_changes(
    engine: EngineTexts, plain: str, model: Any
) -> None:
    asked = [(prompt, {"max_tokens": 10, "bad_words": words}) for prompt, words in BAD.items()]
    *made, free = engine.ask(*asked, PLAIN)
    for answer, (prompt, words) in zip(made, BAD.items(), strict=True):
        assert answer.failure is None
        assert not any(word in answer.text for word in words)
        assert answer.text == likeliest_without(model, engine, prompt, words, 10)
    assert free.text == plain


def test_bad_words_that_would_not_have_come_change_nothing(engine: EngineTexts, plain: str) -> None:
    (made,) = engine.ask((PLAIN[0], PLAIN[1] | {"bad_words": ("zebra", "Zürich")}))
    assert made.text == plain


@pytest.mark.parametrize("end_id", [END, -1, 5])
def test_bad_words_never_appear_in_what_is_drawn(engine: EngineTexts, end_id: int) -> None:
    words = ("e", "a", "th", " i")
    hot = {"sample": True, "temperature": 1.5, "max_tokens": 30, "bad_words": words}
    asked = [(prompt, hot | {"seed": seed, "end_id": end_id}) for seed, prompt in enumerate(BAD)]
    for made in engine.ask(*asked):
        assert made.failure is None
        assert made.finish in ("stop", "length")
        assert not any(word in made.text for word in words), made.text


def test_bad_words_wait_for_min_tokens(engine: EngineTexts) -> None:
    asked = {"max_tokens": 30, "min_tokens": 30, "bad_words": ("e",)}
    (made,) = engine.ask(("The end", asked))
    assert len(made.ids) == 30
    assert "e" not in made.text


def test_an_adapter_is_the_model_with_its_weights_added(
    engine: EngineTexts,
    plain: str,
    checkpoint: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
) -> None:
    """By transformers' own loop over the sums, with both adapters and the base in one batch."""
    prompt, settings = PLAIN
    north, south, free = engine.ask(
        (prompt, settings | {"lora_name": "north"}),
        (prompt, settings | {"lora_name": "south"}),
        PLAIN,
    )
    expected = {
        name: greedy(merge(checkpoint, adapters[name], tmp_path / name), engine, prompt, 12)
        for name in adapters
    }
    assert {"north": north.text, "south": south.text} == expected
    assert free.text == plain == greedy(checkpoint, engine, prompt, 12)
    assert engine.ask(PLAIN)[0].text == plain
    assert len({north.text, south.text, free.text}) == 3


def greedy(checkpoint: Path, engine: EngineTexts, prompt: str, tokens: int) -> str:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = torch.tensor([engine.tokenizer.encode(prompt)])
    with torch.no_grad():
        made = model.generate(
            ids, max_new_tokens=tokens, do_sample=False, eos_token_id=END, pad_token_id=END
        )
    new = made[0, ids.shape[1] :].tolist()
    return engine.tokenizer.decode(new[: new.index(END)] if END in new else new)


def test_an_adapter_that_is_not_there_is_rejected_with_those_that_are(engine: EngineTexts) -> None:
    with pytest.raises(RequestError, match=r"^lora_name: .* 'east'; known: north, south$"):
        engine.ask(("a", {"lora_name": "east"}))


def test_a_bias_changes_its_own_request(engine: EngineTexts, plain: str) -> None:
    (token,) = engine.tokenizer.encode(" banana")
    biased, free = engine.ask(
        (PLAIN[0], {"max_tokens": 3, "bias_ids": (token,), "bias_weights": (100.0,)}), PLAIN
    )
    assert biased.text == " banana" * 3
    assert free.text == plain


def test_the_engine_says_what_it_found_in_its_cache(engine: EngineTexts) -> None:
    prompt = ("The same words again and again. " * 40, {"max_tokens": 8})
    before = engine.engine.figures()
    engine.ask(prompt)
    engine.ask(prompt)
    after = engine.engine.figures()
    tokens = len(engine.tokenizer.encode(prompt[0]))
    assert (after.prefix_queries or 0) - (before.prefix_queries or 0) == 2 * tokens
    assert 0 < (after.prefix_hits or 0) - (before.prefix_hits or 0) < 2 * tokens
    assert (after.kv_cache_usage, after.preemptions) == (0, 0)
