"""What a model is, and how one is found by its name.

A model is any class with these methods; it needs no import of ours:

    class Sentiment:
        timeout_seconds = 60          # optional: an inference that takes longer is ended

        def setup(self) -> None:      # once a worker, before its first job
            ...

        def predict(self, item):      # item: the job's input, {"text": "…"}
            return {"sentiment": "positive", "confidence": 0.9}

An exception with a true attribute ``retryable = False`` fails its job at once; any other is
tried again. Nothing here may import a model's libraries: the worker does, in its process.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from jobrunner.errors import ModelLoadError

TIMEOUT_SECONDS = 60.0

BUILT_IN = {
    "mock": "jobrunner.models.mock:MockSentiment",
    "vader": "jobrunner.models.vader:VaderSentiment",
}
# Made with the ``path`` that follows the name: sklearn:model.joblib.
WITH_PATH = {
    "sklearn": "jobrunner.models.sklearn_text:SklearnSentiment",
    "onnx": "jobrunner.models.onnx_text:OnnxSentiment",
    "transformers": "jobrunner.models.transformers_text:TransformersSentiment",
}


class Model(Protocol):
    """The contract of a model."""

    def setup(self) -> None:
        """Load what ``predict`` needs."""

    def predict(self, item: dict[str, Any]) -> Any:
        """Answer one input with something that JSON can say."""


def load(implementation: str, options: Mapping[str, Any]) -> Model:
    """Make the model of ``vader``, ``onnx:PATH`` or ``package.module:Class``, not yet set up.

    :raises ModelLoadError: when there is no such class, or a library that it wants is missing.
    """
    name, _, argument = implementation.partition(":")
    path = BUILT_IN.get(implementation, implementation)
    if name in WITH_PATH:
        if not argument:
            raise ModelLoadError(f"{name} wants the path of its model: {name}:PATH")
        path, options = WITH_PATH[name], {**options, "path": argument}
    module_name, colon, class_name = path.partition(":")
    if not colon or not module_name or not class_name:
        known = ", ".join([*BUILT_IN, *(f"{name}:PATH" for name in WITH_PATH)])
        raise ModelLoadError(f"{implementation} is neither one of {known} nor module:Class")
    try:
        made: Model = getattr(importlib.import_module(module_name), class_name)(**options)
    except ModuleNotFoundError as error:
        missing = f"{implementation}: there is no module {error.name}"
        # The extra is named as the model is.
        advice = f": install jobrunner[{name}]" if path != implementation else ""
        raise ModelLoadError(missing + advice) from error
    except AttributeError as error:
        raise ModelLoadError(f"{implementation}: {error}") from error
    if not callable(getattr(made, "predict", None)):
        raise ModelLoadError(f"{implementation} has no method predict")
    return made
