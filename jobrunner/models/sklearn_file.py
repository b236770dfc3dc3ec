"""The file that `jobrunner train` writes and ``sklearn:PATH`` reads.

Its first line is JSON and says what the rest is: a pickle, by joblib. Reading a pickle runs
what is in it, so the line is looked at first, and nothing is unpickled that was not written
here or that another scikit-learn has written, which might read it and judge otherwise. The
line is no signature: load only a file of your own.
"""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from jobrunner.errors import ModelLoadError

FORMAT = "jobrunner.sentiment/1"
MAX_HEAD = 1000
# 3 is the level that joblib's documentation calls a good compromise.
COMPRESSION = 3


def write(classifier: Any, opened: BinaryIO) -> None:
    """Write a classifier whose ``predict_proba`` takes texts, the classes False and True."""
    import joblib
    import sklearn

    head = {"format": FORMAT, "sklearn": sklearn.__version__}
    opened.write(json.dumps(head).encode() + b"\n")
    joblib.dump(classifier, opened, compress=COMPRESSION)


def read(file: Path) -> Any:
    """Read the classifier.

    :raises ModelLoadError: when the file is not ours, or of another scikit-learn.
    """
    import joblib
    import sklearn

    try:
        with file.open("rb") as opened:
            head, content = opened.readline(MAX_HEAD), opened.read()
    except OSError as error:
        raise ModelLoadError(f"{file}: {error.strerror}") from None
    written = _written_by(file, head)
    if _minor(written) != _minor(sklearn.__version__):
        raise ModelLoadError(
            f"{file} was made by scikit-learn {written}, here is {sklearn.__version__}:"
            " train it again, or install that version"
        )
    try:
        return joblib.load(BytesIO(content))
    except Exception as error:
        raise ModelLoadError(f"{file} is damaged: {type(error).__name__}") from error


def _written_by(file: Path, head: bytes) -> str:
    try:
        said = json.loads(head)
        if said["format"] == FORMAT:
            return str(said["sklearn"])
    except (ValueError, TypeError, KeyError):
        pass
    raise ModelLoadError(f"{file} was not made by `jobrunner train`")


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
