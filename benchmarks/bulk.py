"""Many texts by a real model, from the first POST to the last result.

One client posts batches of a thousand texts through the API while a runner of two workers runs
VADER on them.
"""

from importlib.util import find_spec
from time import monotonic

from benchmarks import submit, webs
from benchmarks.drain import wait_until_empty
from benchmarks.queues.jobrunner import OneRunner
from benchmarks.system import wait_for

TEXTS = 40_000
BATCH = 1000
CLIENTS = 2
# A hundred characters each, some with a word that VADER knows and some without.
SAMPLES = (
    "The parcel came on the day that was promised and the box was still closed when "
    "it was opened. Ok. ",
    "I love this product, it works so well that I bought a second one for my mother, "
    "who is happy too. ",
    "It broke after two days, the support was rude, and nobody would give me my "
    "money back. A bad shop.",
    "Nothing special about it: it is what the picture shows, in the colour ordered, "
    "with a lid in blue.",
)
READY = "select from runner where sleeping and ready_workers = 2"
# A client that is cut off has posted once more.
DONE = "select count(*) from job where status = 'completed'"


class Vader(OneRunner):
    """One runner of two workers that run VADER."""

    name = "jobrunner, VADER"
    settings = f"POST /predict/batch of {BATCH}, one runner of two workers"
    model = "sentiment=vader"

    @classmethod
    def missing(cls) -> str | None:
        return None if find_spec("vaderSentiment") else "the package vaderSentiment"


def measure(queue: Vader) -> float:
    """Texts a second, all results stored."""
    queue.forget()
    items = [{"text": f"{SAMPLES[n % len(SAMPLES)]:100}"} for n in range(BATCH)]
    batch = submit.request("/predict/batch", {"items": items})
    # A queue that is full is no failure here.
    web = webs.Ours(queue.url).running(JOBRUNNER_MAX_PENDING=str(2 * TEXTS))
    with web as port, queue.running(2):
        wait_for(lambda: queue.connection.execute(READY).rowcount == 1, "the runner")
        began = monotonic()
        submit.measure(port, CLIENTS, TEXTS // BATCH, batch)
        wait_until_empty(queue, TEXTS)
        [(done,)] = queue.connection.execute(DONE).fetchall()
        return int(done) / (monotonic() - began)
