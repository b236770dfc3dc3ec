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

BUILT_IN = {"mock": "jobrunner.models.mock:MockSentiment"}


class Model(Protocol):
    """The contract of a model."""

    def setup(self) -> None:
        """Load what ``predict`` needs."""

    def predict(self, item: dict[str, Any]) -> Any:
        """Answer one input with something that JSON can say."""


def load(implementation: str, options: Mapping[str, Any]) -> Model:
    """Make the model of ``mock`` or ``package.module:Class``, not yet set up.

    :raises ModelLoadError: when there is no such class.
    """
    path = BUILT_IN.get(implementation, implementation)
    module_name, colon, class_name = path.partition(":")
    if not colon or not module_name or not class_name:
        known = ", ".join(BUILT_IN)
        raise ModelLoadError(f"{implementation} is neither one of {known} nor module:Class")
    try:
        made: Model = getattr(importlib.import_module(module_name), class_name)(**options)
    except ModuleNotFoundError as error:
        raise ModelLoadError(f"{implementation}: there is no module {error.name}") from error
    except AttributeError as error:
        raise ModelLoadError(f"{implementation}: {error}") from error
    if not callable(getattr(made, "predict", None)):
        raise ModelLoadError(f"{implementation} has no method predict")
    return made
