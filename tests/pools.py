"""Workers without a runner: given jobs, and asked for what comes of them."""

from collections.abc import Callable
from uuid import uuid4

from helpers import wait_for
from jobrunner.outcome import Job, Outcome
from jobrunner.polling import readable
from jobrunner.worker_handle import WorkerLimits
from jobrunner.workers import Workers

MAX_RESULT_BYTES = 10_000
LIMITS = WorkerLimits(MAX_RESULT_BYTES)

Start = Callable[..., Workers]


def settle(workers: Workers, done: Callable[[], bool], seconds: float = 15) -> list[Outcome]:
    """Tend and collect until ``done``; return the outcomes of the meantime."""
    outcomes: list[Outcome] = []

    def turn() -> bool:
        workers.tend()
        heard = readable(workers.pipes, max(0.0, min(0.05, workers.rest)))
        outcomes.extend(workers.collect(heard))
        return done()

    wait_for(turn, "the workers are as expected", seconds)
    return outcomes


def a_job(text: str, model: str = "sentiment") -> Job:
    return Job(str(uuid4()), str(uuid4()), model, f'{{"text": "{text}"}}', 1)


def run(workers: Workers, *texts: str, model: str = "sentiment") -> list[Outcome]:
    """Give a job a text and wait for all the outcomes, in the order of the texts."""
    given = [a_job(text, model) for text in texts]
    workers.give(given)
    outcomes = settle(workers, lambda: not workers.jobs)
    by_job = {outcome.job.id: outcome for outcome in outcomes}
    return [by_job[job.id] for job in given]


def code(outcome: Outcome) -> str | None:
    return outcome.failure.code if outcome.failure else None
