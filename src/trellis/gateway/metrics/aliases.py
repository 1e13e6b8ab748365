# SPDX-License-Identifier: Apache-2.0
"""The same figures under the names that others' dashboards read (`--metrics_names`).

vLLM's label of a model is `model_name`, and it has one more, `engine`; OpenTelemetry's is
`gen_ai_request_model`; NVIDIA's backend counts for the engine's model in Triton.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from trellis.contract import metrics as named
from trellis.contract.metrics import METRICS, Metric
from trellis.contract.model_names import served_as
from trellis.gateway.metrics.record import DISCONNECTED

ENGINE = "tensorrt_llm"
_BY_FAMILY = {each.name.removesuffix("_total"): each for each in METRICS}
# Of OpenTelemetry's operations, those of the endpoints that make tokens; all count as one.
OTEL = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "trellis"}
Relabel = Callable[[Mapping[str, str]], dict[str, str]]
_LENGTHS = {named.REQUEST_PROMPT: "total_input_tokens"}
_LENGTHS |= {named.REQUEST_GENERATION: "total_output_tokens"}
# vLLM's reasons of what it counts as a success.
_SUCCESS = {"stop": "stop", "length": "length", "tool_calls": "stop", "cancelled": "abort"}
_SUCCESS |= {DISCONNECTED: "abort", "error": "error"}


def aliases(families: Iterable[Family], names: Iterable[str]) -> Iterator[Family]:
    """Families that `names` call otherwise (of trellis.contract.metrics.NAMES), renamed."""
    wanted, nvidia = set(names), dict[str, GaugeMetricFamily]()
    for family in families:
        metric = _BY_FAMILY.get(family.name)
        if metric is None:
            continue
        if "vllm" in wanted and metric.vllm:
            yield _renamed(family, metric, metric.vllm, _vllm_labels)
        if "otel" in wanted and metric.otel:
            yield _renamed(family, metric, metric.otel, _otel_labels)
        if "nvidia" in wanted and "/" in metric.nvidia:
            _add_nvidia(nvidia, family, metric)
    yield from nvidia.values()


def lengths(found: Iterable[tuple[Metric, Family]]) -> Iterator[Family]:
    """NVIDIA's histograms of lengths, with NVIDIA's labels."""
    for metric, family in found:
        kind = _LENGTHS[metric]
        yield _with(family, family.name, [
            sample._replace(labels={**_nvidia_labels(sample.labels), "response_metric_type": kind})
            for sample in family.samples
        ])  # fmt: skip


def _renamed(family: Family, metric: Metric, name: str, relabel: Relabel) -> Family:
    before, after = metric.name.removesuffix("_total"), name.removesuffix("_total")
    samples = family.samples
    if metric is named.REQUESTS:
        samples = list(_successes(samples))
    return _with(family, after, [
        sample._replace(
            name=after + sample.name.removeprefix(before), labels=relabel(sample.labels)
        )
        for sample in samples
    ])  # fmt: skip


def _successes(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Requests that made tokens, summed by why they ended."""
    sums: dict[tuple[str, str, str], float] = {}
    for sample in samples:
        reason = _SUCCESS.get(sample.labels["finish_reason"])
        if reason is not None:
            key = (sample.labels["model"], sample.labels["adapter"], reason)
            sums[key] = sums.get(key, 0.0) + sample.value
    for (model, adapter, reason), value in sums.items():
        labels = {"model": model, "adapter": adapter, "finished_reason": reason}
        yield Sample("trellis_requests_total", labels, value)


def _vllm_labels(labels: Mapping[str, str]) -> dict[str, str]:
    rest = {name: value for name, value in labels.items() if name != "model"}
    return {"model_name": labels["model"], "engine": "0", **rest}


def _otel_labels(labels: Mapping[str, str]) -> dict[str, str]:
    rest = {name: value for name, value in labels.items() if name not in ("model", "adapter")}
    return {**OTEL, "gen_ai_request_model": labels.get("adapter") or labels["model"], **rest}


def _nvidia_labels(labels: Mapping[str, str]) -> dict[str, str]:
    rest = {name: value for name, value in labels.items() if name != "model"}
    return {"model": served_as(ENGINE, labels["model"]), "version": "1", **rest}


def _add_nvidia(made: dict[str, GaugeMetricFamily], family: Family, metric: Metric) -> None:
    """One kind of a gauge that has several, told apart by a label."""
    name, label, kind = metric.nvidia.split("/")
    gauge = made.setdefault(name, GaugeMetricFamily(name, "As TensorRT-LLM's backend has it."))
    for sample in family.samples:
        gauge.add_sample(name, {**_nvidia_labels(sample.labels), label: kind}, sample.value)


def _with(family: Family, name: str, samples: list[Sample]) -> Family:
    made = Family(name, family.documentation, family.type)
    made.samples = samples
    return made
