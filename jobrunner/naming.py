"""What a model calls itself, asked in a process of its own: the runner imports no model."""

import os
import subprocess
import sys

from jobrunner.errors import ModelLoadError
from jobrunner.models import find
from jobrunner.settings import worker_environment

# To import the libraries of a model may take long on a cold disk.
IMPORT_SECONDS = 120.0


def name_of(implementation: str) -> str:
    """Ask the class of a model for its attribute ``name``.

    :raises ModelLoadError: when there is no such class, or it has no name.
    """
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "jobrunner.naming", implementation],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=worker_environment(),
            timeout=IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ModelLoadError(f"{implementation} takes too long to be imported") from None
    said = asked.stdout.decode(errors="replace").strip()
    if asked.returncode:
        raise ModelLoadError(said or f"{implementation} can not be imported: it says why above")
    return said


def main() -> None:
    """Say the name of the model of the first argument, or, with an exit code, what is wrong."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What the model prints is no answer.
    os.dup2(2, 1)
    with answer:
        try:
            answer.write(_read_name(sys.argv[1]))
        except ModelLoadError as error:
            answer.write(str(error))
            sys.exit(1)


def _read_name(implementation: str) -> str:
    try:
        name = getattr(find(implementation), "name", None)
    except ModelLoadError:
        raise
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise ModelLoadError(f"{implementation}: {type(error).__name__}: {said}") from None
    if not isinstance(name, str):
        raise ModelLoadError(
            f"{implementation} has no name of its own: write NAME={implementation}"
        )
    return name


if __name__ == "__main__":
    main()
