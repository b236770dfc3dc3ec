"""Models that cost nothing, so that what is measured is the rest."""

from time import time
from typing import Any


class Clock:
    """Answers with the time at which it was started, in seconds since the epoch."""

    def setup(self) -> None:
        """Nothing to load."""

    def predict(self, item: dict[str, Any]) -> dict[str, float]:
        """Say when."""
        return {"started": time()}
