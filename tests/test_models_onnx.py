"""A classifier in ONNX: it is fed as it was exported, in batches, and judges the same alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="onnx, which makes the model, is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("tokenizers", reason="the extra onnx is not installed")

from helpers import Jobs
from jobrunner.errors import ModelLoadError
from jobrunner.models import load
from jobrunner.settings import OFFLINE
from processes import System, environment, system
from tiny_models import BAD, GOOD, save_onnx, write_config


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a model."""
    return save_onnx(tmp_path)


@pytest.fixture
def model(saved: Path) -> Any:
    return set_up(saved)


def set_up(saved: Path, **options: str) -> Any:
    model = load(f"onnx:{saved}", options)
    model.setup()
    return model


def items_of(texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def test_plain_sentences_are_judged_right(model: Any) -> None:
    answers = model.predict_batch(items_of(GOOD + BAD))

    assert [answer["sentiment"] for answer in answers] == ["positive"] * 12 + ["negative"] * 12
    assert all(0.5 < answer["confidence"] <= 1 for answer in answers)


def test_a_text_has_the_same_answer_alone_and_beside_longer_ones(model: Any) -> None:
    texts = [*GOOD, *BAD, "good " * 60, "x", "", "🙂 これは"]

    together = model.predict_batch(items_of(texts))

    for text, answer in zip(texts, together, strict=True):
        alone = model.predict({"text": text})
        assert answer == {
            "sentiment": alone["sentiment"],
            "confidence": pytest.approx(alone["confidence"], abs=1e-6),
        }


@pytest.mark.parametrize("text", ["", " ", "🙂", "x" * 10_000, "the room " * 1111, "これは", "\n"])
def test_a_text_without_a_word_that_it_knows_has_half_the_confidence(model: Any, text: str) -> None:
    assert model.predict({"text": text})["confidence"] == pytest.approx(0.5)


def test_a_text_is_cut_off_at_the_length_of_the_model(model: Any) -> None:
    # 62 words and the two marks at the ends.
    assert model.predict({"text": "the " * 61 + "good bad bad"})["sentiment"] == "positive"
    assert model.predict({"text": "the " * 60 + "bad good good"})["confidence"] == pytest.approx(
        0.5
    )


def test_a_blank_text_of_a_tokenizer_without_marks_is_judged_by_nothing(tmp_path: Path) -> None:
    model = set_up(save_onnx(tmp_path, special=False))

    assert model.predict({"text": " "})["confidence"] == 0.5
    answers = model.predict_batch(items_of([" ", "bad"]))
    assert [answer["confidence"] for answer in answers] == [0.5, pytest.approx(0.8808, abs=1e-4)]


def test_a_model_that_wants_the_types_of_the_tokens_gets_them(tmp_path: Path) -> None:
    model = set_up(save_onnx(tmp_path, inputs=("token_type_ids",)))

    assert model.predict({"text": "good"})["sentiment"] == "positive"


def test_other_labels_turn_the_answer_around(saved: Path) -> None:
    write_config(saved, id2label={"0": "pos", "1": "neg"})

    assert set_up(saved).predict({"text": "good"})["sentiment"] == "negative"


def test_warming_up_changes_nothing(model: Any) -> None:
    before = model.predict({"text": "good"})

    model.warmup()

    assert model.predict({"text": "good"}) == before


def test_its_version_is_that_of_the_file(saved: Path, model: Any) -> None:
    assert len(model.version) == 12
    assert set_up(saved).version == model.version


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_processor_is_always_there(saved: Path, device: str) -> None:
    assert set_up(saved, device=device).predict({"text": "good"})["sentiment"] == "positive"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(saved: Path, device: str) -> None:
    import onnxruntime

    from jobrunner.models.onnx_text import PROVIDERS

    if PROVIDERS[device] in onnxruntime.get_available_providers():
        pytest.skip(f"{device} is here")
    with pytest.raises(ModelLoadError, match=f"there is no device {device}"):
        set_up(saved, device=device)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_file_that_is_missing_or_spoiled_is_named(saved: Path, name: str) -> None:
    (saved / name).write_text("spoiled")
    with pytest.raises(ModelLoadError, match=name):
        set_up(saved)

    (saved / name).unlink()
    with pytest.raises(ModelLoadError, match=f"has no {name}"):
        set_up(saved)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no folder"):
        set_up(tmp_path / "none")
    with pytest.raises(ModelLoadError, match="onnx wants the path of its model: onnx:PATH"):
        load("onnx:", {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id2label": None}, "its labels"),
        ({"id2label": {"0": "joy", "1": "anger"}}, "its label joy is neither"),
        ({"id2label": {"0": "neg", "1": "neu", "2": "pos"}}, "has 2 outputs, config.json 3 labels"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    saved: Path, changes: dict[str, Any], said: str
) -> None:
    write_config(saved, **changes)

    with pytest.raises(ModelLoadError, match=said):
        set_up(saved)


def test_a_model_that_wants_something_else_is_refused(tmp_path: Path) -> None:
    save_onnx(tmp_path, inputs=("pixel_values",))

    with pytest.raises(ModelLoadError, match="wants pixel_values, which no text has"):
        set_up(tmp_path)


@pytest.mark.parametrize(
    ("library", "module", "implementation"),
    [
        ("onnxruntime", "onnx_text", "onnx:folder"),
        ("tokenizers", "onnx_text", "onnx:folder"),
        ("sklearn", "sklearn_text", "sklearn:file"),
        ("vaderSentiment", "vader", "vader"),
        ("transformers", "transformers_text", "transformers:folder"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    library: str, module: str, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OFFLINE:
        monkeypatch.setenv(name, "1")
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"jobrunner.models.{module}", raising=False)

    with pytest.raises(ModelLoadError) as caught:
        load(implementation, {})

    extra = implementation.partition(":")[0]
    assert str(caught.value).endswith(f": install jobrunner[{extra}]")


# In a runner.


@pytest.fixture
def processes(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as processes:
        yield processes


@pytest.mark.process
def test_a_runner_serves_the_folder(saved: Path, jobs: Jobs, processes: System) -> None:
    good, bad = jobs.add(GOOD[0]), jobs.add(BAD[0])

    processes.runner("--workers", "1", "--model", f"sentiment=onnx:{saved}")

    assert jobs.wait(good, "completed")["result"]["sentiment"] == "positive"
    assert jobs.wait(bad, "completed")["result"]["sentiment"] == "negative"


@pytest.mark.process
def test_a_runner_puts_the_model_on_the_device_of_the_setting(saved: Path, runner_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", "start", "--workers", "1",
         "--model", f"sentiment=onnx:{saved}"],
        env=environment(runner_url, JOBRUNNER_DEVICE="mps" if sys.platform == "linux" else "cuda"),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 1
    assert "there is no device" in done.stderr.splitlines()[-1]
