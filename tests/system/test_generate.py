"""One request, one answer: what `curl .../generate` shows."""

import httpx
import pytest

from support.asking import ENSEMBLE, KOREAN, ask, chat

PUBLISHED = (
    '{"text_input": "[INST] <<SYS>>\\nAnswer very seriously\\n<</SYS>>\\n\\nwho is the best'
    ' sportsman in the world? [/INST]", "parameters": {"max_tokens": 512, "bad_words":[""],'
    ' "stop_words":[""], "end_id": 2, "random_seed": 42, "top_k": 20, "top_p": 0.95,'
    ' "temperature": 0.5, "repetition_penalty": 1.2}}'
)


def post(http: httpx.Client, body: str) -> str:
    response = http.post(f"{ENSEMBLE}/generate", content=body)
    assert response.status_code == 200, response.text
    text: str = response.json()["text_output"]
    return text


def test_the_published_request_is_answered_and_its_seed_fixes_the_text(http: httpx.Client) -> None:
    first = post(http, PUBLISHED)
    assert first.strip()
    assert "best sportsman" not in first  # the completion only
    assert post(http, PUBLISHED) == first
    assert post(http, PUBLISHED.replace("42", "43")) != first


def test_old_and_new_names_of_the_seed_are_the_same(http: httpx.Client) -> None:
    sampling = {"top_p": 0.9, "temperature": 0.8}
    old = ask(http, "Once upon a time", random_seed=7, **sampling)
    new = ask(http, "Once upon a time", seed=7, **sampling)
    assert old["text_output"] == new["text_output"]


def test_nothing_asked_is_greedy_and_so_is_top_k_1(http: httpx.Client) -> None:
    greedy = ask(http, "The capital of France is")["text_output"]
    assert ask(http, "The capital of France is", top_k=1, seed=9)["text_output"] == greedy
    assert ask(http, "The capital of France is", temperature=0, seed=3)["text_output"] == greedy


def test_a_temperature_alone_samples(http: httpx.Client) -> None:
    texts = {
        ask(http, "Once upon a time", temperature=1.5, seed=seed)["text_output"]
        for seed in range(4)
    }
    assert len(texts) > 1


def test_prompt_and_completion_on_request(http: httpx.Client) -> None:
    completion = ask(http, "The capital of France is")["text_output"]
    whole = ask(http, "The capital of France is", exclude_input_in_output=False)["text_output"]
    assert whole == "The capital of France is" + completion


def test_token_counts_are_returned_when_asked_for(http: httpx.Client) -> None:
    answer = ask(http, "one two three", max_tokens=5, end_id=-1, return_num_output_tokens=True)
    assert answer["num_output_tokens"] == 5
    assert "num_input_tokens" not in answer
    answer = ask(http, "one two three", max_tokens=5, return_num_input_tokens=True)
    assert answer["num_input_tokens"] == 3


def test_several_sequences_and_their_log_probabilities(http: httpx.Client) -> None:
    answer = ask(
        http,
        "Once",
        max_tokens=6,
        end_id=-1,
        num_return_sequences=3,
        top_p=0.9,
        seed=1,
        return_log_probs=True,
    )
    assert len(answer["text_output"]) == 3
    assert len(set(answer["text_output"])) > 1
    each = answer["output_log_probs"]
    assert len(each) == 18
    for index, total in enumerate(answer["cum_log_probs"]):
        assert total == pytest.approx(sum(each[6 * index : 6 * index + 6]), rel=1e-4)


def test_a_stop_word_ends_the_text_before_itself(http: httpx.Client) -> None:
    whole = ask(http, "The capital of France is", max_tokens=40)["text_output"]
    for word in ("answer", "e answ", whole[9:14]):
        text = ask(http, "The capital of France is", max_tokens=40, stop_words=[word])[
            "text_output"
        ]
        assert text == whole[: whole.index(word)]


def test_min_tokens_keeps_the_model_from_ending_early(http: httpx.Client) -> None:
    prompt = chat("What is 1+1?")
    short = ask(http, prompt, max_tokens=60, return_num_output_tokens=True)
    assert short["num_output_tokens"] < 60
    for name in ("min_tokens", "min_length"):
        answer = ask(
            http,
            prompt,
            max_tokens=90,
            return_num_output_tokens=True,
            **{name: short["num_output_tokens"] + 5},
        )
        assert answer["num_output_tokens"] >= short["num_output_tokens"] + 5


def test_a_list_of_prompts_is_a_batch(http: httpx.Client) -> None:
    prompts = ["The capital of France is", KOREAN]
    body = {"text_input": prompts, "max_tokens": [12, 20], "end_id": [2, 2]}
    response = http.post(f"{ENSEMBLE}/generate", json=body)
    assert response.status_code == 200, response.text
    assert len(response.json()["text_output"]) == 2
