"""What a submission needs to go on where it was interrupted, in a file beside its output.

Written before each chunk that is inserted: ``mark`` tells how far the input will have been read
then, ``submitted`` the rows before that chunk. ``tally`` and ``output_size`` say what was safely
written when that was last made sure of; what came later is cut off and written again.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from jobrunner.bulk.lines import Mark
from jobrunner.bulk.order import Kind, Tally
from jobrunner.errors import ResumeError

SUFFIX = ".jobrunner"
NOTHING_READ = Mark(0, hashlib.sha256().hexdigest())


@dataclass
class State:
    """One submission; ``kind`` may not change meanwhile."""

    kind: Kind
    batch_id: UUID = field(default_factory=uuid4)
    mark: Mark = NOTHING_READ
    submitted: int = 0
    output_size: int = 0
    tally: Tally = field(default_factory=Tally)


class StateFile:
    """Where a state is kept; nowhere if the path is None."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def load(self, kind: Kind) -> State | None:
        """Read what was left by an interrupted submission.

        :raises ResumeError: when that had other options, or can't be read.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            found = json.loads(self.path.read_text())
            state = State(
                Kind(**found["kind"]), UUID(found["batch_id"]), Mark(*found["mark"]),
                found["submitted"], found["output_size"], Tally(**found["tally"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise ResumeError(f"{self.path} can not be read: {self.way_out()}") from None
        if state.kind != kind:
            then = ", ".join(f"{name} {value}" for name, value in asdict(state.kind).items())
            raise ResumeError(
                f"what is to be continued was begun with {then}: use the same, or {self.way_out()}"
            )
        return state

    def save(self, state: State, *, safely: bool = False) -> None:
        """Keep a state; ``safely`` outlives a crash of the machine too."""
        if self.path is None:
            return
        new = self.path.with_name(self.path.name + ".new")
        with new.open("w") as file:
            json.dump(asdict(state) | {"batch_id": str(state.batch_id)}, file)
            if safely:
                file.flush()
                os.fsync(file.fileno())
        new.replace(self.path)

    def remove(self) -> None:
        """Forget the submission: it is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def way_out(self) -> str:
        """Say how to do without it."""
        return f"remove {self.path} to submit all of it anew"
