"""What the models of texts share: how inputs are read, and how answers are written."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class InvalidInput(ValueError):
    """The input has no text; it never will."""

    retryable = False


def text_of(item: Any) -> str:
    """Give the text of an input.

    :raises InvalidInput: when there is none.
    """
    text = item.get("text") if isinstance(item, dict) else None
    if not isinstance(text, str):
        raise InvalidInput("the input has no text")
    return text


def judgement(positive: float) -> dict[str, Any]:
    """Write the answer of a model that gives the positive side so much weight, from 0 to 1."""
    # What was added up in 32 bits may end a hair beyond.
    positive = min(max(float(positive), 0.0), 1.0)
    if positive >= 0.5:
        return {"sentiment": "positive", "confidence": positive}
    return {"sentiment": "negative", "confidence": 1 - positive}


def digest_of(files: Iterable[Path]) -> str:
    """Give the first 12 digits of the SHA-256 of the files, one after the other."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()[:12]


class BatchModel:
    """A model that judges many texts at once faster than one after the other."""

    timeout_seconds = 60.0
    max_batch_size = 32
    max_wait_ms = 2.0
    version = ""

    def weigh(self, texts: list[str]) -> Sequence[float]:
        """Give the weight of the positive side of each text, from 0 to 1."""
        raise NotImplementedError

    def predict_batch(self, items: Sequence[Any]) -> list[Any]:
        """Judge the inputs together; one without a text has its exception in its place."""
        answers: list[Any] = []
        texts: list[str] = []
        for item in items:
            try:
                texts.append(text_of(item))
                answers.append(None)
            except InvalidInput as error:
                answers.append(error)
        weights = iter(self.weigh(texts) if texts else [])
        return [judgement(next(weights)) if answer is None else answer for answer in answers]

    def predict(self, item: Any) -> dict[str, Any]:
        """Judge one input.

        :raises InvalidInput: when it has no text.
        """
        [answer] = self.predict_batch([item])
        if isinstance(answer, Exception):
            raise answer
        result: dict[str, Any] = answer
        return result
