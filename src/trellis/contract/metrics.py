# SPDX-License-Identifier: Apache-2.0
"""Every metric: its name, what it says, and what other servers call it.

The names are vLLM's with `trellis_` for `vllm:`, where vLLM has one. Those of GATEWAY are of what
came over HTTP, or over gRPC for an engine's step socket, and counted by the gateway; those of
ENGINE are of a Python engine, whoever asks it, and reported by its model on Triton's metrics page.
`model` is the name that clients use.
"""

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Where = Literal["gateway", "engine"]
Buckets = tuple[float, ...]

# vLLM's own (release 0.32), so that boards show the same curves.
LATENCY: Buckets = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
FIRST_TOKEN: Buckets = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
INTER_TOKEN: Buckets = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
TOKENS: Buckets = tuple(
    float(digit * 10**power) for power in range(6) for digit in (1, 2, 5)
)  # to 500,000
# Ours: encoding takes less than vLLM's smallest bucket.
SHORT: Buckets = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0,
)  # fmt: skip
# NVIDIA's, of its backend.
NVIDIA_TOKENS: Buckets = (10.0, 50.0, 100.0, 500.0, 1000.0)


class Metric(NamedTuple):
    """One family of the metrics page."""

    name: str
    kind: Kind
    where: Where
    help: str
    labels: tuple[str, ...] = ("model", "adapter")
    buckets: Buckets = ()
    vllm: str = ""  # the family with `--metrics_names vllm`
    otel: str = ""  # with `--metrics_names otel`, as Prometheus writes OpenTelemetry's name
    nvidia: str = ""  # with `--metrics_names nvidia`


_MODEL = ("model",)

REQUESTS = Metric(
    "trellis_requests_total", "counter", "gateway",
    "Requests over HTTP that ended, by endpoint, status and why the answer ended.",
    ("model", "adapter", "endpoint", "status", "finish_reason"),
    vllm="vllm:request_success_total",
)  # fmt: skip
HTTP_IN_FLIGHT = Metric(
    "trellis_http_requests_in_flight", "gauge", "gateway",
    "Requests over HTTP that are being answered.", _MODEL,
)  # fmt: skip
REJECTIONS = Metric(
    "trellis_rejections_total", "counter", "gateway",
    "Requests over HTTP that got an error instead of an answer, by reason.", ("model", "reason"),
)  # fmt: skip
DISCONNECTS = Metric(
    "trellis_disconnects_total", "counter", "gateway",
    "Requests whose client left before its answer was complete.",
)  # fmt: skip
PROMPT_TOKENS = Metric(
    "trellis_prompt_tokens_total", "counter", "gateway",
    "Tokens of prompts whose answer has begun.", vllm="vllm:prompt_tokens_total",
)  # fmt: skip
CACHED_TOKENS = Metric(
    "trellis_prompt_tokens_cached_total", "counter", "gateway",
    "Of these, tokens that the engine had in its prefix cache, where it says so.",
    vllm="vllm:prompt_tokens_cached_total",
)  # fmt: skip
GENERATION_TOKENS = Metric(
    "trellis_generation_tokens_total", "counter", "gateway",
    "Tokens that engines made for requests over HTTP.", vllm="vllm:generation_tokens_total",
)  # fmt: skip
REQUEST_PROMPT = Metric(
    "trellis_request_prompt_tokens", "histogram", "gateway", "Tokens of a request's prompts.",
    buckets=TOKENS, vllm="vllm:request_prompt_tokens", nvidia="nv_llm_input_token_len",
)  # fmt: skip
REQUEST_GENERATION = Metric(
    "trellis_request_generation_tokens", "histogram", "gateway",
    "Tokens made for a request, all its sequences together.",
    buckets=TOKENS, vllm="vllm:request_generation_tokens", nvidia="nv_llm_output_token_len",
)  # fmt: skip
TIME_TO_FIRST = Metric(
    "trellis_time_to_first_token_seconds", "histogram", "gateway",
    "From a request's head to its first token.", buckets=FIRST_TOKEN,
    vllm="vllm:time_to_first_token_seconds", otel="gen_ai_server_time_to_first_token_seconds",
)  # fmt: skip
INTER_TOKEN_LATENCY = Metric(
    "trellis_inter_token_latency_seconds", "histogram", "gateway",
    "Between two chunks of a sequence, as they come from the engine.", buckets=INTER_TOKEN,
    vllm="vllm:inter_token_latency_seconds",
)  # fmt: skip
TIME_PER_TOKEN = Metric(
    "trellis_request_time_per_output_token_seconds", "histogram", "gateway",
    "Of a request's sequences: from first to last token, by the tokens after the first.",
    buckets=INTER_TOKEN, vllm="vllm:request_time_per_output_token_seconds",
    otel="gen_ai_server_time_per_output_token_seconds",
)  # fmt: skip
END_TO_END = Metric(
    "trellis_e2e_request_latency_seconds", "histogram", "gateway",
    "From a request's head to the end of its answer.", buckets=LATENCY,
    vllm="vllm:e2e_request_latency_seconds", otel="gen_ai_server_request_duration_seconds",
)  # fmt: skip
QUEUE_TIME = Metric(
    "trellis_request_queue_time_seconds", "histogram", "gateway",
    "Until the engine took a sequence, by the short way.", buckets=LATENCY,
    vllm="vllm:request_queue_time_seconds",
)  # fmt: skip
TOKENIZE_TIME = Metric(
    "trellis_tokenize_time_seconds", "histogram", "gateway",
    "To make token ids of a request's prompts, chat template included.", buckets=SHORT,
)  # fmt: skip
DETOKENIZE_TIME = Metric(
    "trellis_detokenize_seconds_total", "counter", "gateway",
    "In which the gateway made text of tokens and wrote it, by the short way.", _MODEL,
)  # fmt: skip
STRUCTURE_TIME = Metric(
    "trellis_constraint_plan_time_seconds", "histogram", "gateway",
    "To write as a grammar what a request's answer is held to.", buckets=SHORT,
)  # fmt: skip

RUNNING = Metric(
    "trellis_num_requests_running", "gauge", "engine", "Prompts that the engine works on.", _MODEL,
    vllm="vllm:num_requests_running", nvidia="nv_trt_llm_request_metrics/request_type/active",
)  # fmt: skip
WAITING = Metric(
    "trellis_num_requests_waiting", "gauge", "engine", "Prompts that wait for the engine.", _MODEL,
    vllm="vllm:num_requests_waiting", nvidia="nv_trt_llm_request_metrics/request_type/waiting",
)  # fmt: skip
KV_USAGE = Metric(
    "trellis_kv_cache_usage_perc", "gauge", "engine",
    "Of the KV cache, the part in use; 1 is all of it.", _MODEL,
    vllm="vllm:kv_cache_usage_perc",
    nvidia="nv_trt_llm_kv_cache_block_metrics/kv_cache_block_type/fraction",
)  # fmt: skip
PREFIX_QUERIES = Metric(
    "trellis_prefix_cache_queries_total", "counter", "engine",
    "Tokens of prompts that were looked for in the prefix cache.", _MODEL,
    vllm="vllm:prefix_cache_queries_total",
)  # fmt: skip
PREFIX_HITS = Metric(
    "trellis_prefix_cache_hits_total", "counter", "engine", "Of these, tokens that were there.",
    _MODEL, vllm="vllm:prefix_cache_hits_total",
)  # fmt: skip
PREEMPTIONS = Metric(
    "trellis_num_preemptions_total", "counter", "engine",
    "Sequences that the engine put back for want of KV cache.", _MODEL,
    vllm="vllm:num_preemptions_total",
)  # fmt: skip
STEPS = Metric(
    "trellis_engine_steps_total", "counter", "engine", "Steps of the engine that made something.",
    _MODEL,
)  # fmt: skip
COMPILED = Metric(
    "trellis_constraints_compiled_total", "counter", "engine",
    "Constraints on answers that the engine compiled.", _MODEL,
)  # fmt: skip
COMPILE_TIME = Metric(
    "trellis_constraint_compile_seconds_total", "counter", "engine",
    "In which the engine compiled constraints.", _MODEL,
)  # fmt: skip
ENGINE_IN_FLIGHT = Metric(
    "trellis_requests_in_flight", "gauge", "engine",
    "Requests that wait for the engine or run in it", _MODEL,
)  # fmt: skip
CANCELLED = Metric(
    "trellis_requests_cancelled_total", "counter", "engine",
    "Requests that ended because their client left, cancelled or stopped them", _MODEL,
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    REQUESTS, HTTP_IN_FLIGHT, REJECTIONS, DISCONNECTS, PROMPT_TOKENS, CACHED_TOKENS,
    GENERATION_TOKENS, REQUEST_PROMPT, REQUEST_GENERATION, TIME_TO_FIRST, INTER_TOKEN_LATENCY,
    TIME_PER_TOKEN, END_TO_END, QUEUE_TIME, TOKENIZE_TIME, DETOKENIZE_TIME, STRUCTURE_TIME,
    RUNNING, WAITING, KV_USAGE, PREFIX_QUERIES, PREFIX_HITS, PREEMPTIONS, STEPS, COMPILED,
    COMPILE_TIME, ENGINE_IN_FLIGHT, CANCELLED,
)  # fmt: skip
NAMES = ("vllm", "nvidia", "otel")  # what `--metrics_names` takes
