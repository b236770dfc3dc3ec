"""The folder of a model, as its makers save it: what `config.json` in it says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobrunner.errors import ModelLoadError

# Longer texts are cut off: what most classifiers can take.
MAX_TOKENS = 512


def config_of(folder: Path, *files: str) -> dict[str, Any]:
    """Read ``config.json``, and see that the other files are there as well.

    :raises ModelLoadError: when one of them is not.
    """
    if not folder.is_dir():
        raise ModelLoadError(f"there is no folder {folder}")
    for name in ("config.json", *files):
        if not (folder / name).is_file():
            raise ModelLoadError(f"{folder} has no {name}")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise ModelLoadError(f"{folder / 'config.json'} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelLoadError(f"{folder / 'config.json'} is no JSON object")
    return config


def max_tokens(config: Mapping[str, Any]) -> int:
    """Give how many tokens of a text the model can take, those at its ends included."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return MAX_TOKENS
    # RoBERTa and what comes of it count positions from behind the padding's number on.
    if "roberta" in str(config.get("model_type", "")) or config.get("model_type") == "camembert":
        positions -= int(config.get("pad_token_id") or 1) + 1
    return min(positions, MAX_TOKENS)
