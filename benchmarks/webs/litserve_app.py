"""LitServe with the model that takes batches, as its documentation has it."""

import os
from typing import Any

from litserve import LitAPI, LitServer

from benchmarks.models import MAX_BATCH_SIZE, MAX_WAIT_MS, Batching


class Api(LitAPI):
    """One copy of the model."""

    def setup(self, device: str) -> None:
        """Load it."""
        self.model = Batching()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give the item as it is."""
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave the items a list."""
        return inputs

    def predict(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run the model on a batch."""
        return self.model.predict_batch(items)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give the results as they are."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Give a result as it is."""
        return output


def main() -> None:
    """Serve it on PORT."""
    api = Api(max_batch_size=MAX_BATCH_SIZE, batch_timeout=MAX_WAIT_MS / 1000)
    # Its fast_queue, through ZeroMQ, was no faster here.
    server = LitServer(api, accelerator="cpu", workers_per_device=1)
    port = int(os.environ["PORT"])
    server.run("127.0.0.1", port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
