"""Services of the model that takes batches, which answer with its result."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import queues, submit, webs
from benchmarks.models import MAX_BATCH_SIZE, MAX_WAIT_MS
from benchmarks.queues import python
from benchmarks.queues.jobrunner import Batching

WAIT_SECONDS = 20


class Batcher(webs.Web):
    """One copy of the model behind `POST /predict`."""

    settings = f"max_batch_size {MAX_BATCH_SIZE}, {MAX_WAIT_MS} ms"

    def request(self, text: str) -> bytes:
        """Write the request for an item."""
        return submit.request("/predict", self.fields(text))

    def fields(self, text: str) -> Any:
        """What is posted for an item."""
        return {"text": text}

    def is_result(self, body: bytes) -> bool:
        """Whether an answer that was no refusal has a result."""
        return bool(body)


class OursBatching(Batcher):
    """This system: the web, and a runner of one worker."""

    command = webs.Ours.command

    def __init__(self, queue: Batching) -> None:
        super().__init__(queue.url)
        self.name, self.settings = queue.name, f"{queue.settings}, POST /predict?wait"
        self._queue = queue

    @contextmanager
    def running(self, **settings: str) -> Iterator[int]:
        """Run web and runner, on an empty table."""
        self._queue.forget()
        with super().running(**settings) as port, self._queue.running(1):
            queues.rest()
            yield port

    def request(self, text: str) -> bytes:
        return submit.request(f"/predict?wait={WAIT_SECONDS}", self.fields(text))

    def is_result(self, body: bytes) -> bool:
        return json.loads(body)["status"] == "completed"


class LitServe(Batcher):
    """LitServe, which waits as long for others as ours."""

    name = "LitServe"
    settings = "one worker, batch_timeout 10 ms"
    needs = ("litserve",)

    def command(self, port: int) -> list[str]:
        return python("benchmarks.webs.litserve_app")


class BentoML(Batcher):
    """BentoML, which finds out by itself how long to wait."""

    name = "BentoML"
    settings = "one worker, adaptive, max_latency_ms 10000"
    needs = ("bentoml",)

    def command(self, port: int) -> list[str]:
        service = "benchmarks.webs.bentoml_app:Service"
        return python("bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port))

    @contextmanager
    def running(self, **settings: str) -> Iterator[int]:
        """Run it, and let it tell nobody."""
        with super().running(BENTOML_DO_NOT_TRACK="True", **settings) as port:
            yield port

    def fields(self, text: str) -> Any:
        return {"items": [super().fields(text)]}


PEERS: tuple[type[Batcher], ...] = (LitServe, BentoML)
