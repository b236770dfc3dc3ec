"""What the models of texts share: how inputs are read, and how answers are written."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict


class Review(TypedDict):
    """What they take: as ``POST /predict`` does, a text that is not only white space."""

    text: Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"\S")]


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


class BatchModel(ABC):
    """A model that judges many texts at once faster than one after the other."""

    timeout_seconds = 60.0
    max_batch_size = 32
    max_wait_ms = 2.0
    name = "sentiment"
    version = ""

    @abstractmethod
    def weigh(self, texts: list[str]) -> Sequence[float]:
        """Give the weight of the positive side of each text, from 0 to 1."""

    def predict_batch(self, items: list[Review]) -> list[dict[str, Any]]:
        """Judge the inputs together."""
        return [judgement(weight) for weight in self.weigh([item["text"] for item in items])]

    def predict(self, item: Review) -> dict[str, Any]:
        """Judge one input."""
        return self.predict_batch([item])[0]
