"""A model in two versions, which judge alike and are told apart by how sure they are; and models
that say who they are.
"""

import os
from pathlib import Path
from threading import Event
from typing import Any, Literal

from pydantic import BaseModel
from typing_extensions import TypedDict


class Review(BaseModel):
    text: str


class Verdict(TypedDict):
    sentiment: Literal["positive", "negative"]
    confidence: float


class First:
    version = "1"
    max_batch_size = 4
    confidence = 0.25

    def predict_batch(self, items: list[Review]) -> list[Verdict]:
        return [{"sentiment": "positive", "confidence": self.confidence} for _ in items]


class Second(First):
    version = "2"
    confidence = 0.5


class NoSecond(First):
    """Is called like the second, and takes something else."""

    version = "2"

    def predict_batch(self, items: list[Verdict]) -> list[Verdict]:  # type: ignore[override]
        return items


class WhoAmI:
    version = "7"

    def predict(self, item: Any) -> Any:
        return {"pid": os.getpid()}


class WhoElse(WhoAmI):
    version = "8"


class Late:
    """Can not be loaded, which shows late: once the file is there."""

    def setup(self) -> None:
        while not Path(os.environ["MARKER"]).exists():
            Event().wait(0.01)
        raise OSError("the weights are missing")

    def predict(self, item: Any) -> Any:
        return item
