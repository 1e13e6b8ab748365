# SPDX-License-Identifier: Apache-2.0
"""The models around TensorRT-LLM's own engine: the same client names in front of every release.

`preprocessing` takes every sampling input under the client's name, checks it, and gives it out
under the name and type of the release; `ensemble` passes on what was sent. `postprocessing` sees
only what the engine returns. No key travels through this engine, so a
stream is known by the id of its request.
"""

from collections.abc import Iterable, Mapping

from tritonclient.grpc import model_config_pb2 as pb

from trellis.contract.client_inputs import STOP, TEXT_INPUTS
from trellis.contract.release import Contract, TensorSpec
from trellis.contract.sampling_fields import engine_names
from trellis.contract.wiring_names import GUIDES, TOLD
from trellis.engine_files.engine_config import EngineConfig
from trellis.repository.trtllm_config import data_type, filled

Wires = dict[str, str]

# What `preprocessing` makes of the client's texts, and the engine's input that takes it.
TEXT_OUTPUTS = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
}
# What it gives besides to clients that ask the models one by one, as TensorRT-LLM's own does.
DECODER_OUTPUTS = {
    "DECODER_INPUT_ID": "decoder_input_ids",
    "REQUEST_DECODER_INPUT_LEN": "decoder_input_lengths",
}
# Tables and the wish to stop go to the engine as they are, where the release has them.
DIRECT = (
    STOP,
    "prompt_embedding_table",
    "lora_weights",
    "lora_config",
)
# What `postprocessing` reads, and the engine's output that it comes from.
TOKEN_INPUTS = {
    "TOKENS_BATCH": "output_ids",
    "SEQUENCE_LENGTH": "sequence_length",
    "BATCH_INDEX": "batch_index",
    "SEQUENCE_INDEX": "sequence_index",
}


def engine_input(contract: Contract, client: str) -> TensorSpec | None:
    """The engine's input for a client's name, or None where the release has none."""
    return contract.input(*engine_names(client))


def client_types(base: pb.ModelConfig, contract: Contract) -> pb.ModelConfig:
    """`ensemble` with the integers that the clients of a release send: 0.5 and 0.6 have UINT32."""
    config = pb.ModelConfig()
    config.CopyFrom(base)
    for client in config.input:
        if contract.client_types.get(client.name) == "TYPE_UINT32":
            client.data_type = pb.TYPE_UINT32
    return config


def wire_preprocessing(
    base: pb.ModelConfig,
    ensemble: pb.ModelConfig,
    contract: Contract,
    engine: EngineConfig,
    values: Mapping[str, str],
) -> pb.ModelConfig:
    """`preprocessing` for a release: `base` and every input that the client may send besides."""
    config = pb.ModelConfig()
    config.CopyFrom(base)
    sent = {client.name: client.data_type for client in ensemble.input}
    for tensor in config.input:
        tensor.data_type = sent.get(TEXT_INPUTS[tensor.name], tensor.data_type)
    for client in ensemble.input:
        if client.name in _through(ensemble, contract):
            ragged = list(client.dims) != [1]
            config.input.append(_optional(client.name, client.data_type, client.dims, ragged))
    del config.output[:]
    for name, target in {**TEXT_OUTPUTS, **DECODER_OUTPUTS}.items():
        _add_output(config, name, contract.input(target), values)
    for client_name in _through(ensemble, contract):
        spec = engine_input(contract, client_name)
        if spec is not None and all(spec.name != output.name for output in config.output):
            _add_output(config, spec.name, spec, values)
    config.parameters["engine"].string_value = f"TensorRT-LLM {engine.version}"
    config.parameters["max_seq_len"].string_value = str(engine.max_seq_len)
    config.parameters["max_beam_width"].string_value = values["max_beam_width"]
    config.parameters["decoupled"].string_value = values["decoupled_mode"]
    config.parameters["exclude_input_in_output"].string_value = excludes_input(contract, values)
    if GUIDES in contract.parameters:
        config.parameters[GUIDES].string_value = filled(GUIDES, values)
    decoupled = values["decoupled_mode"] == "true"  # else a request has one response
    one_prompt = not (decoupled and contract.has_output("batch_index"))
    config.parameters["prompts_per_request"].string_value = "1" if one_prompt else ""
    return config


def excludes_input(contract: Contract, values: Mapping[str, str]) -> str:
    """Whether answers leave the prompt out where a request does not say: `true` or `false`."""
    if "exclude_input_in_output" not in contract.parameters:
        return "false"  # 0.5.0 always has the prompt in front
    return values["exclude_input_in_output"]


def told(contract: Contract) -> Wires:
    """The entries of TOLD that the engine of a release does not tell itself."""
    return {name: shown for name, shown in TOLD.items() if not contract.has_output(shown)}


def wire_postprocessing(
    base: pb.ModelConfig, ensemble: pb.ModelConfig, contract: Contract, engine: EngineConfig
) -> pb.ModelConfig:
    """`postprocessing` for a release: `base` without the key, with what the engine returns.

    And with outputs for what it does not, as `ensemble` has them.
    """
    config = pb.ModelConfig()
    config.CopyFrom(base)
    del config.input[:]
    for name, output in TOKEN_INPUTS.items():
        spec = next((item for item in contract.outputs if item.name == output), None)
        if spec is not None:
            ragged = spec.dims != (1,)
            message = _optional(name, data_type(spec, {}), spec.dims, ragged)
            message.optional = name != "TOKENS_BATCH"
            config.input.append(message)
    shown = {output.name: output for output in ensemble.output}
    for name, as_shown in told(contract).items():
        spec = shown[as_shown]
        config.output.append(pb.ModelOutput(name=name, data_type=spec.data_type, dims=spec.dims))
    config.parameters["engine"].string_value = f"TensorRT-LLM {engine.version}"
    return config


def wire_ensemble(
    base: pb.ModelConfig, contract: Contract, values: Mapping[str, str]
) -> pb.ModelConfig:
    """`ensemble` for a release: the inputs of `base`, the outputs that the engine has."""
    config = pb.ModelConfig()
    config.CopyFrom(base)
    for client in config.input:
        spec = contract.input(client.name) if client.name in DIRECT else None
        if spec is not None:
            client.data_type = data_type(spec, values)
    passed = sorted(
        spec.name
        for spec in contract.outputs
        if spec.name in contract.client_outputs or any(spec.name == o.name for o in base.output)
    )
    texts = {"text_output", *told(contract).values()}
    kept = [output for output in base.output if output.name in texts]
    del config.output[:]
    config.output.extend(kept)
    for spec in contract.outputs:
        if spec.name in passed:
            config.output.append(
                pb.ModelOutput(name=spec.name, data_type=data_type(spec, values), dims=spec.dims)
            )
    del config.ensemble_scheduling.step[:]
    config.ensemble_scheduling.step.extend(_steps(base, contract, passed))
    return config


def _steps(
    base: pb.ModelConfig, contract: Contract, passed: Iterable[str]
) -> list[pb.ModelEnsembling.Step]:
    """The three steps; a tensor between two of them has the name of the engine's, after `_`."""
    through = _through(base, contract)
    specs = {name: engine_input(contract, name) for name in through}
    settled = {spec.name for spec in specs.values() if spec is not None}
    texts = {name: target for name, target in TEXT_OUTPUTS.items() if contract.input(target)}
    tokens = {name: output for name, output in TOKEN_INPUTS.items() if contract.has_output(output)}
    between = {**texts, **{name: name for name in sorted(settled)}}
    shown = {name: name for name in passed}
    names = {output: shown.get(output, f"_{output}") for output in [*shown, *tokens.values()]}
    direct = {name: name for name in DIRECT if contract.input(name)}
    return [
        _step(
            "preprocessing",
            {**TEXT_INPUTS, **{name: name for name in _through(base, contract)}},
            {name: f"_{target}" for name, target in between.items()},
        ),
        _step(
            "tensorrt_llm",
            {**{target: f"_{target}" for target in between.values()}, **direct},
            names,
        ),
        _step(
            "postprocessing",
            {name: names[output] for name, output in tokens.items()},
            {"OUTPUT": "text_output", **told(contract)},
        ),
    ]


def _step(model: str, inputs: Wires, outputs: Wires) -> pb.ModelEnsembling.Step:
    return pb.ModelEnsembling.Step(
        model_name=model, model_version=-1, input_map=inputs, output_map=outputs
    )


def _through(ensemble: pb.ModelConfig, contract: Contract) -> list[str]:
    """The client's inputs that `preprocessing` takes under their own names.

    All that it does not read as text, but for what goes to the engine directly. What the release
    lacks comes here too: to be refused by name.
    """
    texts = set(TEXT_INPUTS.values())
    return [
        client.name
        for client in ensemble.input
        if client.name not in texts and not (client.name in DIRECT and contract.input(client.name))
    ]


def _optional(name: str, kind: pb.DataType, dims: Iterable[int], ragged: bool) -> pb.ModelInput:
    return pb.ModelInput(
        name=name, data_type=kind, dims=dims, optional=True, allow_ragged_batch=ragged
    )


def _add_output(
    config: pb.ModelConfig, name: str, spec: TensorSpec | None, values: Mapping[str, str]
) -> None:
    if spec is not None:
        config.output.append(
            pb.ModelOutput(name=name, data_type=data_type(spec, values), dims=spec.dims)
        )
