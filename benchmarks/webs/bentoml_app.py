"""BentoML with the model that takes batches, as its documentation has it."""

from typing import Any

import bentoml

from benchmarks.models import MAX_BATCH_SIZE, Batching

# Not what an item waits, which it finds out by itself, but what the whole may take: what would
# take longer is refused.
MAX_LATENCY_MS = 10_000


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Service:
    """One copy of the model."""

    def __init__(self) -> None:
        self.model = Batching()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=MAX_LATENCY_MS)
    def predict(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run the model on a batch."""
        return self.model.predict_batch(items)
