"""A classifier of transformers, from a folder: in batches, cut off at its length, offline."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra transformers is not installed")
pytest.importorskip("transformers", reason="the extra transformers is not installed")

import torch

from jobrunner.errors import ModelLoadError
from jobrunner.models import load
from jobrunner.settings import OFFLINE
from tiny_models import BAD, GOOD, save_bert


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def saved(made: Path, tmp_path: Path) -> Path:
    """The folder of a model, to be spoiled."""
    return Path(shutil.copytree(made, tmp_path / "bert"))


@pytest.fixture(scope="module")
def model(made: Path) -> Any:
    return set_up(made)


def set_up(saved: Path, **options: str) -> Any:
    model = load(f"transformers:{saved}", options)
    model.setup()
    return model


def configure(saved: Path, **changes: Any) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | changes))


def test_plain_sentences_are_judged_right(model: Any) -> None:
    answers = model.predict_batch([{"text": text} for text in GOOD + BAD])

    assert [answer["sentiment"] for answer in answers] == ["positive"] * 12 + ["negative"] * 12
    assert all(0.5 < answer["confidence"] <= 1 for answer in answers)
    assert all(answer.keys() == {"sentiment", "confidence"} for answer in answers)


def test_a_text_has_the_same_answer_alone_and_beside_longer_ones(model: Any) -> None:
    texts = [*GOOD, *BAD, "good " * 60, "x", "", " ", "🙂 これは", "the room " * 1111]

    together = model.predict_batch([{"text": text} for text in texts])

    for text, answer in zip(texts, together, strict=True):
        alone = model.predict({"text": text})
        assert answer["confidence"] == pytest.approx(alone["confidence"], abs=1e-4)


def test_the_same_text_always_has_the_same_answer(made: Path, model: Any) -> None:
    other = set_up(made)

    for text in GOOD + BAD:
        assert model.predict({"text": text}) == other.predict({"text": text})


def test_what_is_beyond_the_length_of_the_model_is_cut_off(model: Any) -> None:
    kept = "good " * 62

    assert model.predict({"text": kept + "bad " * 1000}) == model.predict({"text": kept})


def test_stars_are_added_up_by_side(saved: Path) -> None:
    configure(saved, id2label={"0": "5 stars", "1": "1 star"}, label2id={})

    assert set_up(saved).predict({"text": "I love it!"})["sentiment"] == "negative"


def test_names_that_nobody_gave_are_negative_and_positive(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (saved / "config.json").write_text(json.dumps(config))

    assert set_up(saved).predict({"text": "I love it!"})["sentiment"] == "positive"


def test_labels_that_are_not_understood_end_the_start(saved: Path) -> None:
    configure(saved, id2label={"0": "joy", "1": "anger"}, label2id={})

    with pytest.raises(ModelLoadError, match="its label joy is neither positive nor negative"):
        set_up(saved)


def test_warming_up_changes_nothing(model: Any) -> None:
    before = model.predict({"text": "good"})

    model.warmup()

    assert model.predict({"text": "good"}) == before


def test_its_version_is_that_of_the_weights(saved: Path, model: Any) -> None:
    assert len(model.version) == 12
    assert set_up(saved).version == model.version

    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    assert set_up(saved).version != model.version


def test_the_processor_is_always_there(made: Path) -> None:
    assert set_up(made, device="cpu").predict({"text": "I love it!"})["sentiment"] == "positive"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(made: Path, device: str) -> None:
    if torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available():
        pytest.skip(f"{device} is here")

    with pytest.raises(ModelLoadError, match=f"there is no device {device} for torch here"):
        set_up(made, device=device)


def test_nothing_is_looked_for_anywhere_else(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no folder bert-base-uncased"):
        set_up(Path("bert-base-uncased"))

    assert all(os.environ[name] == "1" for name in OFFLINE)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_missing_or_spoiled_ends_the_start(saved: Path, name: str) -> None:
    (saved / name).write_text("spoiled")
    with pytest.raises(ModelLoadError):
        set_up(saved)

    (saved / name).unlink()
    with pytest.raises(ModelLoadError):
        set_up(saved)
