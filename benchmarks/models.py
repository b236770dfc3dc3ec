"""A model that costs nothing, so that what is measured is the rest, and one that takes batches."""

from time import sleep
from typing import Any

from benchmarks.signals import signal_start


class Quick:
    """Answers like a sentiment model.

    It takes as many ``seconds`` as the input says, or none, and signals its start if asked to.
    """

    def setup(self) -> None:
        """Nothing to load."""

    def predict(self, item: dict[str, Any]) -> dict[str, Any]:
        """Do what the input says."""
        if item.get("signal"):
            signal_start()
        if "seconds" in item:
            sleep(item["seconds"])
        return {"sentiment": "positive", "confidence": 0.5}


CALL_SECONDS, ITEM_SECONDS = 0.02, 0.001
MAX_BATCH_SIZE = 32
MAX_WAIT_MS = 10
# What a model that is always given full batches answers a second.
MOST_ITEMS = MAX_BATCH_SIZE / (CALL_SECONDS + MAX_BATCH_SIZE * ITEM_SECONDS)
LONE_SECONDS = CALL_SECONDS + ITEM_SECONDS


class Batching:
    """Takes so long a call, and so long an item, as a model on a GPU does.

    A text "hold 0.3" makes a call take that much longer, and "poison" makes it raise.
    """

    max_batch_size = MAX_BATCH_SIZE
    max_wait_ms: float = MAX_WAIT_MS

    def predict_batch(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sleep, and say of each the same."""
        texts = [item["text"] for item in items]
        held = sum(float(text.split()[1]) for text in texts if text.startswith("hold "))
        sleep(CALL_SECONDS + ITEM_SECONDS * len(texts) + held)
        if "poison" in texts:
            raise ValueError("a poisoned item")
        return [{"sentiment": "positive", "confidence": 0.5} for _ in items]


class Prompt(Batching):
    """The same, but what is there does not wait for more."""

    max_wait_ms = 0
