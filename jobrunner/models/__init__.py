"""What a model is, and how one is found by its name.

A model is any class like this one; it needs no import of ours, and all but ``predict`` (or
``predict_batch``) may be left out:

    class Sentiment:
        name = "sentiment"            # what it is served as, if nobody says otherwise
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
    kind, _, path = implementation.partition(":")
    if kind in WITH_PATH:
        options = {**options, "path": path}
    return find(implementation)(**options)


def find(implementation: str) -> type[Any]:
    """Import the class of a model.

    :raises ModelLoadError: as ``load``.
    """
    kind, _, path = implementation.partition(":")
    if kind in WITH_PATH:
        if not path:
            raise ModelLoadError(f"{kind} wants the path of its model: {kind}:PATH")
        return _class_at(WITH_PATH[kind], implementation, extra=kind)
    if implementation in BUILT_IN:
        return _class_at(BUILT_IN[implementation], implementation, extra=kind)
    return _class_at(_installed(implementation) or implementation, implementation)


def _installed(name: str) -> str | None:
    """Where a model is that an installed package offers under this name."""
    if ":" in name:
        return None
    return next((each.value for each in entry_points(group=ENTRY_POINTS, name=name)), None)


def _class_at(address: str, implementation: str, extra: str | None = None) -> type[Any]:
    """Import a class by its address; ``extra`` installs what that imports."""
    module_name, colon, class_name = address.partition(":")
    if not colon or not module_name or not class_name:
        known = ", ".join([*BUILT_IN, *(f"{kind}:PATH" for kind in WITH_PATH)])
        raise ModelLoadError(
            f"{implementation} is neither one of {known} nor what an installed package offers,"
            " nor module:Class"
        )
    try:
        found: type[Any] = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        advice = f": install jobrunner[{extra}]" if extra else ""
        missing = f"{implementation}: there is no module {error.name}{advice}"
        raise ModelLoadError(missing) from error
    except AttributeError as error:
        raise ModelLoadError(f"{implementation}: {error}") from error
    return found
