# SPDX-License-Identifier: Apache-2.0
"""The `tensorrt_llm` model for NVIDIA's C++ backend: exactly what one release takes.

Tensors and parameters come from the contract of the release; nothing is added and nothing left
out, since the backend refuses a configuration that differs from its own.
"""

from collections.abc import Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from trellis.contract.placeholder import Placeholder, known_placeholders
from trellis.contract.release import Contract, TensorSpec
from trellis.engine_files.engine_config import EngineConfig

# Parameters that are filled from a placeholder of another name.
SOURCES = {
    "gpt_model_path": "engine_dir",
    "gpt_model_type": "batching_strategy",
    "encoder_model_path": "encoder_engine_dir",
}
BACKEND_FOLDER = "/opt/tritonserver/backends/tensorrtllm"
FIXED = {
    "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
    "worker_path": f"{BACKEND_FOLDER}/triton_tensorrtllm_worker",
    "executor_worker_path": f"{BACKEND_FOLDER}/trtllmExecutorWorker",
    "tokenizer_dir": "",  # only guided decoding reads it, and then from xgrammar's own file
}
# What every release's model takes, whether or not its own template left it open.
ALWAYS = ("triton_max_batch_size", "max_queue_delay_microseconds", "decoupled_mode", "engine_dir")


def settable(contract: Contract) -> frozenset[str]:
    """The placeholders that mean something for this release's `tensorrt_llm`."""
    parameters = {SOURCES.get(name, name) for name in contract.parameters if name not in FIXED}
    types = {_placeholder(spec.dtype) for spec in (*contract.inputs, *contract.outputs)} - {""}
    queue = contract.placeholders & {"max_queue_size"}
    return frozenset({*parameters, *types, *queue, *ALWAYS})


def engine_values(engine: EngineConfig, engine_dir: str) -> dict[str, str]:
    """What the engine says of itself, by placeholder."""
    return {"engine_dir": engine_dir, "max_beam_width": str(engine.max_beam_width)}


def trtllm_config(contract: Contract, values: Mapping[str, str]) -> pb.ModelConfig:
    """The configuration, with every `${...}` of the contract filled from `values` or defaults.

    Raises PlaceholderError for a value of the wrong type.
    """
    batch = int(filled("triton_max_batch_size", values))
    config = pb.ModelConfig(
        name="tensorrt_llm",
        backend="tensorrtllm",
        max_batch_size=batch,
        input=[input_message(spec, values) for spec in contract.inputs],
        output=[output_message(spec, values) for spec in contract.outputs],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
    )
    config.model_transaction_policy.decoupled = filled("decoupled_mode", values) == "true"
    batching = config.dynamic_batching
    batching.preferred_batch_size.append(batch)
    batching.max_queue_delay_microseconds = int(filled("max_queue_delay_microseconds", values))
    if "max_queue_size" in contract.placeholders:
        batching.default_queue_policy.max_queue_size = int(filled("max_queue_size", values))
    for name in contract.parameters:
        value = FIXED[name] if name in FIXED else filled(SOURCES.get(name, name), values)
        config.parameters[name].string_value = value
    return config


def filled(name: str, values: Mapping[str, str]) -> str:
    """The checked value of a placeholder, or its default."""
    spec = known_placeholders().get(name, Placeholder(name, "text", "", ""))
    return spec.check(values.get(name, ""))


def input_message(spec: TensorSpec, values: Mapping[str, str]) -> pb.ModelInput:
    """One input as Triton has it."""
    message = pb.ModelInput(
        name=spec.name,
        data_type=data_type(spec, values),
        dims=spec.dims,
        optional=spec.optional,
        allow_ragged_batch=spec.ragged,
    )
    if spec.reshape is not None:
        message.reshape.CopyFrom(pb.ModelTensorReshape(shape=spec.reshape))
    return message


def output_message(spec: TensorSpec, values: Mapping[str, str]) -> pb.ModelOutput:
    """One output as Triton has it."""
    message = pb.ModelOutput(name=spec.name, data_type=data_type(spec, values), dims=spec.dims)
    if spec.reshape is not None:
        message.reshape.CopyFrom(pb.ModelTensorReshape(shape=spec.reshape))
    return message


def data_type(spec: TensorSpec, values: Mapping[str, str]) -> pb.DataType:
    """The type of a tensor; an open one from its placeholder."""
    name = _placeholder(spec.dtype)
    return pb.DataType.Value(filled(name, values) if name else spec.dtype)


def config_text(config: pb.ModelConfig, about: str) -> str:
    """As config.pbtxt, under a comment that says what it is and where it comes from."""
    comment = "".join(f"# {line}\n" for line in about.splitlines())
    return comment + text_format.MessageToString(config, use_short_repeated_primitives=True)


def _placeholder(dtype: str) -> str:
    """`${logits_datatype}` -> `logits_datatype`; '' for a type that is settled."""
    return dtype[2:-1] if dtype.startswith("${") else ""
