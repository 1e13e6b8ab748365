# SPDX-License-Identifier: Apache-2.0
"""Errors in OpenAI's form, and whose: {"error": {"message", "type", "param", "code"}}."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trellis.gateway.refusals import Refusal

PREFIX = "/v1/"  # of paths whose errors have that form
OTHERS = ("/tokenize", "/detokenize")
INVALID = "invalid_request_error"  # of 401 and 404, too, as OpenAI has it; `code` says which
TYPES = {403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
# Inputs of the ensemble, by which the models name what is wrong -> fields of OpenAI's requests.
PARAMS = {
    "text_input": "prompt",
    "input_ids": "prompt",
    "stop_words": "stop",
    "num_return_sequences": "n",
    "end_id": "ignore_eos",
    "lora_name": "model",
    "return_log_probs": "logprobs",
    "top_log_probs": "top_logprobs",
    "prompt_log_probs": "echo",
    "bias_ids": "logit_bias",
    "bias_weights": "logit_bias",
    "embedding_bias_words": "logit_bias",
    "include_stop_words": "include_stop_str_in_output",
    "arguments": "chat_template_kwargs",  # of a chat template
}
SAME = (
    "max_tokens min_tokens temperature top_p top_k min_p seed repetition_penalty presence_penalty"
    " frequency_penalty no_repeat_ngram_size stop_token_ids skip_special_tokens stream bad_words"
    " priority messages"
    " tools documents continue_final_message chat_template logprobs prompt stop n"
)
# What an endpoint has another field for: a field of chats, or an input of the ensemble -> it.
Names = Mapping[str, str]
_NAMED = re.compile(r"(\w+): ")
_WORD = re.compile(r"\b[a-z]+_[a-z_]+\b")  # that can only be a name
_ENSEMBLE = re.compile(r"in ensemble '[^']*', ")
PARAMS |= {name: name for name in SAME.split()}


@dataclass(eq=False)
class OpenAIError(Refusal):
    """Why a request to an endpoint of OpenAI's is not answered."""

    param: str | None = None

    def body(self) -> bytes:
        """The bytes of the answer."""
        return error_body(self.status, self.message, self.param, self.code)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> bytes:
    """An error as JSON.

    >>> error_body(400, "n: 0 is not allowed", "n")
    b'{"error":{"message":"n: 0 is not allowed","type":"invalid_request_error","param":"n",\
"code":null}}'
    """
    kind = TYPES.get(status, INVALID if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def is_openai(path: str) -> bool:
    """Whether a path's errors have OpenAI's form."""
    return path.startswith(PREFIX) or path in OTHERS


def bad(param: str, what: str, code: str | None = None) -> OpenAIError:
    """A request at fault: the field, what is wrong with it and what to do."""
    return OpenAIError(400, f"{param}: {what}", param=param, code=code)


def rejected(message: str, names: Names, status: int = 400) -> OpenAIError:
    """What a model says of a request, as the client gets it; `names`: see `named`."""
    message, param = named(message, names)
    too_long = "do not fit" in message or "max_input_len" in message
    code = "context_length_exceeded" if too_long else None
    return OpenAIError(status, message, param=param, code=code)


def as_openai(refusal: Refusal, names: Names | None = None) -> OpenAIError:
    """A refusal of the gateway's, in OpenAI's form; `names`: see `named`."""
    if isinstance(refusal, OpenAIError):
        return refusal
    message, param = refusal.message, None
    if refusal.status == 400:
        message, param = named(message, names or {})
    return OpenAIError(
        refusal.status,
        message,
        refusal.close,
        allow=refusal.allow,
        code=refusal.code,
        retry_after=refusal.retry_after,
        param=param,
    )


def named(message: str, names: Names) -> tuple[str, str | None]:
    """A model's message with OpenAI's names of the fields, and that of the field at fault.

    `names`: where the endpoint's own are others.

    >>> named("in ensemble 'e', stop_words: 99 words; send at most 32 (max_words)", {})
    ('stop: 99 words; send at most 32 (max_words)', 'stop')
    >>> named("the engine failed: out of memory", {})
    ('the engine failed: out of memory', None)
    >>> named("min_tokens: 9 is more than max_tokens, 8", {"max_tokens": "max_output_tokens"})
    ('min_tokens: 9 is more than max_output_tokens, 8', 'min_tokens')
    """
    found = _ENSEMBLE.match(message)
    message = message[found.end() :] if found else message
    field = _NAMED.match(message)
    param = _param(field[1], names) if field else None
    start = field.end() if field and param else 0
    rest = _WORD.sub(lambda word: _param(word[0], names) or word[0], message[start:])
    return (f"{param}: {rest}", param) if param else (rest, None)


def _param(name: str, names: Names) -> str | None:
    """The field that a name means."""
    param = names.get(name) or PARAMS.get(name)
    return names.get(param, param) if param else None
