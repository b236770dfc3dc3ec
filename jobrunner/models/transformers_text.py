"""A text classifier of the library transformers, served as ``transformers:FOLDER``.

The folder is what ``save_pretrained`` of the model and of its tokenizer have written. Nothing
is downloaded and no code of the folder is run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobrunner.errors import ModelLoadError
from jobrunner.models import folder, labels
from jobrunner.models.text import BatchModel, digest_of
from jobrunner.settings import stay_offline

# Before the import: the library looks once.
stay_offline()

import torch  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

WEIGHTS = ("*.safetensors", "*.bin")


class TransformersSentiment(BatchModel):
    """Judges by a model of somebody else's."""

    def __init__(self, path: str, device: str = "auto", threads: int | None = None) -> None:
        self._folder = Path(path)
        self._wanted = device
        self._threads = threads

    def setup(self) -> None:
        """Read the folder."""
        config = folder.config_of(self._folder)
        if self._threads:
            torch.set_num_threads(self._threads)
        self._device = torch.device(_device(self._wanted))
        self._max_tokens = folder.max_tokens(config)
        self._tokenizer = self._read(AutoTokenizer)
        if self._tokenizer.pad_token is None:
            raise ModelLoadError(f"the tokenizer of {self._folder} has no token for padding")
        # What is not said is LABEL_0 and so on, as it is for the library.
        model = self._read(AutoModelForSequenceClassification)
        sides = labels.sides(model.config.id2label)
        self._sides = torch.tensor(sides, device=self._device)
        self._model = model.to(self._device).eval()
        files = (file for pattern in WEIGHTS for file in sorted(self._folder.glob(pattern)))
        self.version = digest_of(files)

    def warmup(self) -> None:
        """Run once: the first time takes longer."""
        self.weigh(["Warm"])

    def weigh(self, texts: list[str]) -> Sequence[float]:
        """Give the probability that each text is positive."""
        given = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            logits = self._model(**given).logits.float()
            found: list[float] = (logits.softmax(dim=-1) @ self._sides).tolist()
        return found

    def _read(self, kind: Any) -> Any:
        # An address of a folder, so that it is never taken for a name on the hub.
        place = str(self._folder.absolute())
        try:
            return kind.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        # The libraries beneath raise all kinds.
        except Exception as error:
            raise ModelLoadError(f"{self._folder} can not be read: {error}") from error


def _device(wanted: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next((device for device, is_there in there.items() if is_there), "cpu")
    if not there.get(wanted, True):
        raise ModelLoadError(f"there is no device {wanted} for torch here: set another")
    return wanted
