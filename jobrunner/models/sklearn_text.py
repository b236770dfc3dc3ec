"""What `jobrunner train` has trained, served as ``sklearn:model.joblib``.

The file is a pickle, which can run anything: serve only one that you have made.
"""

from collections.abc import Sequence
from pathlib import Path

# Here, so that a runner without it is told so before anything is read.
import sklearn  # noqa: F401

from jobrunner.models import sklearn_file
from jobrunner.models.text import BatchModel, digest_of


class SklearnSentiment(BatchModel):
    """Judges by words and pairs of words; the confidence is a calibrated probability."""

    # A call costs much more than a text does, so that a longer batch is as good as free.
    max_batch_size = 128

    def __init__(self, path: str) -> None:
        self._file = Path(path)

    def setup(self) -> None:
        """Read the file."""
        self._classifier = sklearn_file.read(self._file)
        self.version = digest_of([self._file])

    def weigh(self, texts: list[str]) -> Sequence[float]:
        """Give the probability that each text is positive."""
        found: list[float] = self._classifier.predict_proba(texts)[:, 1].tolist()
        return found
