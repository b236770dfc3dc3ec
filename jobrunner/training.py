"""Training: a classifier of texts from examples, and how well it does on what it has not seen.

Words and pairs of words are weighed by TF-IDF, and a logistic regression judges by them. Its
own probabilities are too timid, since it is regularised, so they are calibrated (a sigmoid,
fitted on texts that were left out of the training, five times over): of the judgements with
the confidence 0.8, eight out of ten should be right. The report is on the very classifier that
is saved: a fifth of the examples is held out, and never learned.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jobrunner import examples
from jobrunner.bar import Bar
from jobrunner.errors import TrainingError
from jobrunner.examples import Examples
from jobrunner.models import sklearn_file

# The same file gives the same model.
SEED = 1
HELD_OUT = 0.2
FOLDS = 5
# In each fold, be it to learn from or to be judged, and once more to learn from all.
TIMES_READ = FOLDS + 1
# So that each fold has one of the training, and two are held out.
MIN_OF_A_CLASS = 10
# Emoji and punctuation say as much as words do.
WORD = r"\w+(?:['’]\w+)?|[^\w\s]"
MAX_FEATURES = 200_000

Say = Callable[[str], None]
# A text, as scikit-learn prepares it where nothing else is said.
Prepare = Callable[[str], str]


@dataclass(frozen=True)
class Report:
    """How well a classifier does on the held-out examples."""

    trained_on: int
    tested_on: int
    positive: int
    negative: int
    repeated: int
    empty: int
    accuracy: float
    # Of one who always says what most examples are.
    accuracy_by_chance: float
    f1_positive: float
    f1_negative: float
    # What it says of itself; well calibrated, it is the accuracy.
    mean_confidence: float
    # 0 is perfect; 0.25 is "half and half", always.
    brier_score: float
    log_loss: float

    def to_row(self) -> dict[str, Any]:
        """Give it by name, with no more digits than mean something."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def train(
    file: Path, text_column: str, label_column: str, output: Path, say: Say, bar: Bar
) -> Report:
    """Train on the examples of a CSV file and write the classifier.

    :param say: is told what is being done.
    :param bar: is shown how far the longest of it is.
    :raises TrainingError: when the examples do not do, or scikit-learn is missing.
    """
    _require_sklearn()
    say(f"reading {file}")
    found = examples.read(file, text_column, label_column)
    _check_counts(file, found)
    with _written_whole(output) as opened:
        learned, held_out = _split(found)
        say(f"training on {len(learned.texts)} examples, each read {TIMES_READ} times")
        with bar:
            bar.begin(TIMES_READ * len(learned.texts))
            classifier = _fit(learned, bar)
        say(f"testing on {len(held_out.texts)}")
        report = _test(classifier, found, held_out)
        say(f"writing {output}")
        sklearn_file.write(classifier, opened)
    return report


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError:
        raise TrainingError("scikit-learn is not here: install jobrunner[sklearn]") from None


def _check_counts(file: Path, found: Examples) -> None:
    for label, positive in (("positive", True), ("negative", False)):
        count = found.count(positive)
        if count < MIN_OF_A_CLASS:
            raise TrainingError(
                f"{file} has {count} different {label} texts: at least {MIN_OF_A_CLASS} are needed"
            )


@contextmanager
def _written_whole(output: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name when it is written; nobody sees a half of it.

    At the start, so that who may not write is told before the training.
    """
    if output.is_dir():
        raise TrainingError(f"{output} is a folder: name a file in it")
    if output.exists() and not output.is_file():
        # A device, say: who may do so would put a file in its place.
        raise TrainingError(f"{output} is no file: name one")
    partial = output.with_name(f"{output.name}.{os.getpid()}.partial")
    try:
        opened = partial.open("xb")
    except OSError as error:
        raise TrainingError(f"{output} can not be written: {error.strerror}") from None
    with opened:
        try:
            yield opened
        except BaseException:
            partial.unlink()
            raise
    partial.replace(output)


def _split(found: Examples) -> tuple[Examples, Examples]:
    """Hold out a fifth of each class, by chance, in the order of the file."""
    chance = random.Random(SEED)
    held_out: set[int] = set()
    for label in (True, False):
        places = [place for place, positive in enumerate(found.positive) if positive == label]
        held_out.update(chance.sample(places, round(len(places) * HELD_OUT)))
    return (
        _pick(found, [place for place in range(len(found.texts)) if place not in held_out]),
        _pick(found, sorted(held_out)),
    )


def _pick(found: Examples, places: Sequence[int]) -> Examples:
    return Examples([found.texts[p] for p in places], [found.positive[p] for p in places])


def _fit(learned: Examples, bar: Bar) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(
        preprocessor=_counted(bar),
        ngram_range=(1, 2),
        token_pattern=WORD,
        sublinear_tf=True,
        max_features=MAX_FEATURES,
    )
    judge = LogisticRegression(C=10, max_iter=1000, random_state=SEED)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    # The words are counted anew for each fold: a text whose rare words are known is judged
    # otherwise than a new one, and the calibration would be one for such texts.
    # One classifier in the end, not one a fold: a fifth of the size and of the time of each text.
    calibrated = CalibratedClassifierCV(
        make_pipeline(words, judge), method="sigmoid", cv=folds, ensemble=False
    )
    calibrated.fit(learned.texts, learned.positive)
    [fitted] = calibrated.calibrated_classifiers_
    # Nobody counts what is judged later, and the bar goes into no file.
    for each in (calibrated.estimator, fitted.estimator):
        each.set_params(tfidfvectorizer__preprocessor=None)
    return calibrated


def _counted(bar: Bar) -> Prepare:
    """Make a function that prepares a text and counts it; one that scikit-learn does not copy."""

    def prepare(text: str) -> str:
        bar.step()
        return text.lower()

    return prepare


def _test(classifier: Any, found: Examples, held_out: Examples) -> Report:
    from sklearn.metrics import brier_score_loss, f1_score, log_loss

    truth = held_out.positive
    weights: list[float] = classifier.predict_proba(held_out.texts)[:, 1].tolist()
    said = [weight >= 0.5 for weight in weights]
    right = sum(a == b for a, b in zip(said, truth, strict=True))
    most = max(truth.count(True), truth.count(False))
    return Report(
        trained_on=len(found.texts) - len(truth),
        tested_on=len(truth),
        positive=found.count(True),
        negative=found.count(False),
        repeated=found.repeated,
        empty=found.empty,
        accuracy=right / len(truth),
        accuracy_by_chance=most / len(truth),
        f1_positive=float(f1_score(truth, said, pos_label=True, zero_division=0)),
        f1_negative=float(f1_score(truth, said, pos_label=False, zero_division=0)),
        mean_confidence=sum(max(weight, 1 - weight) for weight in weights) / len(weights),
        brier_score=float(brier_score_loss(truth, weights)),
        log_loss=float(log_loss(truth, weights, labels=[False, True])),
    )
