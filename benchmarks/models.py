"""A model that costs nothing, so that what is measured is the rest."""

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
