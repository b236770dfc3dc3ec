"""Models that cost nothing, so that what is measured is the rest."""

from time import sleep, time
from typing import Any


class Clock:
    """Answers with the time at which it was started, in seconds since the epoch.

    It takes as many ``seconds`` as the input says, or none.
    """

    def setup(self) -> None:
        """Nothing to load."""

    def predict(self, item: dict[str, Any]) -> dict[str, float]:
        """Say when."""
        started = time()
        sleep(item.get("seconds", 0))
        return {"started": started}
