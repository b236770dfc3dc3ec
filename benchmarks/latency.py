"""How soon a job is started that is submitted where workers have nothing to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import sleep, time

from benchmarks.signals import Ear

# Long enough for a runner to fall asleep again, so that a wake-up is measured.
PAUSE_SECONDS = 0.03
WARM_UP = 20


@dataclass(frozen=True)
class Start:
    """When a job was submitted and started, in seconds since the epoch."""

    called: float
    # The broker's answer was read, and then, when the client was done with it, the call returned.
    committed: float
    returned: float
    started: float

    @property
    def after_commit(self) -> float:
        """Seconds; less than nothing where it was started before the answer was read."""
        return self.started - self.committed

    @property
    def after_call(self) -> float:
        """Seconds, with all that it takes to submit."""
        return self.started - self.called

    @property
    def after_return(self) -> float:
        """Seconds, as who calls sees it."""
        return self.started - self.returned


def measure(
    submit: Callable[[], float], ear: Ear, jobs: int, warm_up: int = WARM_UP
) -> list[Start]:
    """Submit one job after the other, each when the one before has started.

    ``submit`` gives when the job was committed, in seconds since the epoch.

    :raises TimeoutError: when one is not started.
    """
    starts = [_one(submit, ear) for _ in range(warm_up + jobs)]
    return starts[warm_up:]


def measure_in_turns(
    submits: Sequence[Callable[[], float]], ear: Ear, jobs: int
) -> list[list[Start]]:
    """The same for several, job by job, another one first each time: what else the machine does
    meanwhile, all of them have to bear. Each rests as long as if it were alone.

    :raises TimeoutError: when one is not started.
    """
    starts: list[list[Start]] = [[] for _ in submits]
    pause = PAUSE_SECONDS / len(submits)
    for number in range(WARM_UP + jobs):
        for place in range(len(submits)):
            turn = (number + place) % len(submits)
            starts[turn].append(_one(submits[turn], ear, pause))
    return [each[WARM_UP:] for each in starts]


def _one(submit: Callable[[], float], ear: Ear, pause: float = PAUSE_SECONDS) -> Start:
    sleep(pause)
    called = time()
    committed = submit()
    returned = time()
    return Start(called, committed, returned, ear.hear())
