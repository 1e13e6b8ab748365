# SPDX-License-Identifier: Apache-2.0
"""`ensemble_ids`: the same ensemble without its last step, token ids out.

A chunk's hop through `postprocessing` costs more than all else on its way, and what is done there
is a look-up. The HTTP gateway does that look-up itself and gives its clients the answers that
`ensemble` would have given. Mostly it asks the engine; where it cannot, it asks this ensemble.
gRPC, and clients that reach Triton without the gateway, go on to `ensemble`.
"""

from tritonclient.grpc import model_config_pb2 as pb

from trellis.contract.wiring_names import IDS_SUFFIX, STEP_MARK

# Inputs of `postprocessing` that make one text; they leave under the names of the engine's outputs.
TOKENS = ("TOKENS_BATCH", "SEQUENCE_LENGTH", "TEXT_CUT", "STREAM_END")


def ids_ensemble(ensemble: pb.ModelConfig, postprocessing: pb.ModelConfig) -> pb.ModelConfig:
    """Its configuration, from those of the repository's `ensemble` and its last step."""
    config = pb.ModelConfig()
    config.CopyFrom(ensemble)
    config.name += IDS_SUFFIX
    before, engine, last = config.ensemble_scheduling.step
    texts = set(last.output_map.values())
    shown = [output for output in config.output if output.name not in texts]
    del config.output[:]
    config.output.extend(shown)
    specs = {tensor.name: tensor for tensor in postprocessing.input}
    names = {wire: output for output, wire in engine.output_map.items()}
    for name in TOKENS:
        wire = last.input_map.get(name, "")
        if wire.startswith("_"):  # else clients are shown it anyway
            output, spec = names[wire], specs[name]
            engine.output_map[output] = output
            config.output.add(name=output, data_type=spec.data_type, dims=spec.dims)
    _drop_unused(engine.output_map, {output.name for output in config.output})
    engine.input_map.pop(STEP_MARK, None)  # its chunks do not come to `postprocessing`
    _drop_unused(before.output_map, set(engine.input_map.values()))
    del config.ensemble_scheduling.step[2]
    return config


def _drop_unused(outputs, used: set[str]) -> None:  # type: ignore[no-untyped-def]
    """Triton takes no ensemble with a tensor that goes nowhere."""
    for name, wire in list(outputs.items()):
        if wire not in used:
            del outputs[name]
