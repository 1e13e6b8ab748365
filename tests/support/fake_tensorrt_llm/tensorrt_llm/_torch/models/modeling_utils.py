"""Where the models are registered."""

from collections.abc import Callable
from typing import TypeVar

MODEL_CLASS_MAPPING: dict[str, type] = {}
Model = TypeVar("Model", bound=type)


def register_auto_model(name: str) -> Callable[[Model], Model]:
    """A decorator that puts a model on the list, under its architecture."""

    def register(model: Model) -> Model:
        MODEL_CLASS_MAPPING[name] = model
        return model

    return register
