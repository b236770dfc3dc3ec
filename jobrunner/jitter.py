"""Times that are not quite regular: who was started together must not act together."""

import random


def jittered(seconds: float) -> float:
    """About so long, ± 20%."""
    return seconds * random.uniform(0.8, 1.2)
