"""A text classifier in ONNX, served as ``onnx:FOLDER``.

The folder holds ``model.onnx``, ``tokenizer.json`` (of the library tokenizers) and
``config.json`` with the names of the labels (``id2label``), as exporters write them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from tokenizers import Tokenizer

from jobrunner.errors import ModelLoadError
from jobrunner.models import folder, labels
from jobrunner.models.text import BatchModel, digest_of

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
}
# Of the inputs that a text classifier may want.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxSentiment(BatchModel):
    """Judges by a model of somebody else's; its first output are the logits of the labels."""

    def __init__(self, path: str, device: str = "auto", threads: int | None = None) -> None:
        self._folder = Path(path)
        self._device = device
        self._threads = threads

    def setup(self) -> None:
        """Read the folder."""
        config = folder.config_of(self._folder, "model.onnx", "tokenizer.json")
        self._sides = numpy.array(labels.sides(config.get("id2label", {})))
        self._tokenizer = self._read_tokenizer(folder.max_tokens(config))
        self._session = self._open_session()
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._check()
        self.version = digest_of([self._folder / "model.onnx"])

    def warmup(self) -> None:
        """Run once: the first time takes longer."""
        self.weigh(["Warm"])

    def weigh(self, texts: list[str]) -> Sequence[float]:
        """Give the probability that each text is positive."""
        encoded = self._tokenizer.encode_batch(texts)
        given = {
            "input_ids": _array([each.ids for each in encoded]),
            "attention_mask": _array([each.attention_mask for each in encoded]),
            "token_type_ids": _array([each.type_ids for each in encoded]),
        }
        # Some tokenizers make nothing of a blank text: there is nothing to judge it by.
        blank = ~given["attention_mask"].any(axis=1)
        if blank.all():
            return [0.5] * len(texts)
        logits = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        weights = _softmax(logits) @ self._sides
        found: list[float] = numpy.where(blank, 0.5, weights).tolist()
        return found

    def _read_tokenizer(self, max_tokens: int) -> Tokenizer:
        file = self._folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        # The library raises nothing narrower.
        except Exception as error:
            raise ModelLoadError(f"{file} can not be read: {error}") from None
        tokenizer.enable_truncation(max_tokens)
        padding = dict(tokenizer.padding or _padding(tokenizer))
        # To the longest of the batch, and no further.
        tokenizer.enable_padding(**padding | {"length": None})
        return tokenizer

    def _open_session(self) -> onnxruntime.InferenceSession:
        file = self._folder / "model.onnx"
        providers = _providers(self._device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        # It takes no notice of the variables that bound others.
        options.intra_op_num_threads = self._threads or 0
        try:
            return onnxruntime.InferenceSession(str(file), options, providers=providers)
        # Its errors have no class of their own.
        except Exception as error:
            raise ModelLoadError(f"{file} can not be read: {error}") from None

    def _check(self) -> None:
        unknown = [name for name in self._inputs if name not in INPUTS]
        if unknown:
            raise ModelLoadError(f"model.onnx wants {', '.join(unknown)}, which no text has")
        count = self._session.get_outputs()[0].shape[-1]
        if isinstance(count, int) and count != len(self._sides):
            raise ModelLoadError(
                f"model.onnx has {count} outputs, config.json {len(self._sides)} labels"
            )


def _padding(tokenizer: Tokenizer) -> dict[str, object]:
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return {"pad_id": number, "pad_token": token}
    # The mask hides it from the model, whatever it means.
    return {"pad_id": 0, "pad_token": tokenizer.id_to_token(0)}


def _providers(device: str, available: Sequence[str]) -> list[str]:
    if device == "auto":
        device = "cuda" if PROVIDERS["cuda"] in available else "cpu"
    wanted = PROVIDERS[device]
    if wanted not in available:
        raise ModelLoadError(f"there is no device {device} for onnxruntime here: set another")
    # What the device can't do, the processor does.
    return list(dict.fromkeys([wanted, PROVIDERS["cpu"]]))


def _array(rows: list[list[int]]) -> Any:
    return numpy.array(rows, dtype=numpy.int64)


def _softmax(logits: Any) -> Any:
    raised = numpy.exp(logits.astype(numpy.float64) - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
