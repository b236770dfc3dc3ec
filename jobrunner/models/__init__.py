"""What a model is, and how one is found by its name.

A model is any class like this one; it needs no import of ours, and all but ``predict`` (or
``predict_batch``) may be left out:

    class Sentiment:
        version = "2"                 # goes with each result
        max_batch_size = 32           # with predict_batch: so many items at once, at most
        max_wait_ms = 10              # so long an item may wait for others to come
        timeout_seconds = 60          # a call that takes longer is ended

        def setup(self) -> None: ...      # once a worker, before its first job
        def warmup(self) -> None: ...     # after it
        def health(self) -> bool: ...     # now and then; False: the worker is replaced
        def teardown(self) -> None: ...   # before a worker ends in peace

        def predict(self, item: Review) -> Judgement: ...
        def predict_batch(self, items: list[Review]) -> list[Judgement]: ...

An item is the job's input, ``{"text": "…"}``, as a dict or as the type that the hint names: a
pydantic model, a dataclass or a TypedDict. An element of a batch's results that is an exception
is that item's error. An exception with an attribute ``retryable = False`` fails its job at
once; any other is tried again.

Nothing here may import a model's libraries: the worker does, in its process.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from jobrunner.errors import ModelLoadError

# What can be said in short. Those with a path are made with what follows the colon.
BUILT_IN = {
    "mock": "jobrunner.models.mock:MockSentiment",
    "vader": "jobrunner.models.vader:VaderSentiment",
}
WITH_PATH = {
    "sklearn": "jobrunner.models.sklearn_text:SklearnSentiment",
    "onnx": "jobrunner.models.onnx_text:OnnxSentiment",
    "transformers": "jobrunner.models.transformers_text:TransformersSentiment",
}
ENTRY_POINTS = "jobrunner.models"


def load(implementation: str, options: Mapping[str, Any]) -> Any:
    """Make the model of ``vader``, ``onnx:PATH`` or ``package.module:Class``, not yet set up.

    :raises ModelLoadError: when there is no such class, or a library that it wants is missing.
    """
    name, _, path = implementation.partition(":")
    if name in WITH_PATH:
        if not path:
            raise ModelLoadError(f"{name} wants the path of its model: {name}:PATH")
        return _make(implementation, WITH_PATH[name], {**options, "path": path}, extra=name)
    if implementation in BUILT_IN:
        return _make(implementation, BUILT_IN[implementation], options, extra=name)
    return _make(implementation, _installed(implementation) or implementation, options)


def _installed(name: str) -> str | None:
    """Where a model is that an installed package offers under this name."""
    if ":" in name:
        return None
    return next((each.value for each in entry_points(group=ENTRY_POINTS, name=name)), None)


def _make(
    implementation: str, address: str, options: Mapping[str, Any], extra: str | None = None
) -> Any:
    """Make an object of the class at an address; ``extra`` installs what that imports."""
    module_name, colon, class_name = address.partition(":")
    if not colon or not module_name or not class_name:
        known = ", ".join([*BUILT_IN, *(f"{kind}:PATH" for kind in WITH_PATH)])
        raise ModelLoadError(
            f"{implementation} is neither one of {known} nor what an installed package offers,"
            " nor module:Class"
        )
    try:
        return getattr(importlib.import_module(module_name), class_name)(**options)
    except ModuleNotFoundError as error:
        advice = f": install jobrunner[{extra}]" if extra else ""
        missing = f"{implementation}: there is no module {error.name}{advice}"
        raise ModelLoadError(missing) from error
    except AttributeError as error:
        raise ModelLoadError(f"{implementation}: {error}") from error
