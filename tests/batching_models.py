"""Models that take several items at once; what they answer says with how many others."""

import itertools
import math
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

SIGNS = Path(os.environ.get("SIGNS", "/nonexistent"))


class Counting:
    """Does as a text says, and answers with the size of its batch."""

    max_batch_size = 8
    timeout_seconds = 60

    def setup(self) -> None:
        pass

    def predict_batch(self, items: list[dict[str, Any]]) -> list[Any]:
        return [self._one(item["text"], len(items)) for item in items]

    def _one(self, text: str, size: int) -> Any:
        deed, _, argument = text.partition(" ")
        if deed == "raise":
            raise ValueError(argument)
        if deed == "refuse":
            return ValueError(argument)
        if deed == "exit":
            os._exit(int(argument))
        if deed == "sleep":
            Event().wait(float(argument))
        if deed == "await":
            Path(f"{argument}.begun").touch()
            while not Path(argument).exists():
                Event().wait(0.01)
        return {"text": text, "size": size}


class Patient(Counting):
    """Waits for others to come, and so long that they do."""

    max_wait_ms = 5000


class Hasty(Counting):
    """Has little time."""

    timeout_seconds = 3


class Large(Counting):
    max_batch_size = 32


class Endless(Counting):
    """Waits longer for others than any test does."""

    max_wait_ms = 60_000


class Forgetful(Counting):
    """Loses one of several items."""

    def predict_batch(self, items: list[dict[str, Any]]) -> list[Any]:
        return super().predict_batch(items)[: len(items) - 1 or 1]


class Consuming(Counting):
    """Takes its items apart."""

    def predict_batch(self, items: list[dict[str, Any]]) -> list[Any]:
        return [self._one(item.pop("text"), len(items)) for item in items]


class Unending(Counting):
    """Goes on for ever."""

    def predict_batch(self, items: list[dict[str, Any]]) -> Any:
        return itertools.count()


class Unordered(Counting):
    """Gives as many as it should, in no order."""

    def predict_batch(self, items: list[dict[str, Any]]) -> Any:
        return {item["text"] for item in items}


class Review(BaseModel):
    text: Annotated[str, Field(min_length=2)]
    stars: Annotated[int, Field(ge=1, le=5)] = 3


@dataclass
class Judgement:
    verdict: str
    score: Annotated[float, Field(ge=0, le=1)]


class Typed:
    """Says what it takes and gives."""

    version = "7"

    def predict(self, item: Review) -> Judgement:
        if item.text == "wrong":
            return {"verdict": "none"}  # type: ignore[return-value]
        return Judgement(verdict=f"{item.text}, {item.stars}", score=item.stars / 5)


class TypedBatch:
    max_batch_size = 4

    def predict_batch(self, items: list[Review]) -> list[Judgement | ValueError]:
        return [Judgement(verdict=item.text, score=1) for item in items]


class Renamed(BaseModel):
    full_name: Annotated[str, Field(alias="fullName")]


class Tagged(BaseModel):
    text: Literal["tagged"]


class OtherTagged(BaseModel):
    text: Literal["other"]


class TakesTagged:
    def predict(self, item: Annotated[Tagged | OtherTagged, Field(discriminator="text")]) -> Any:
        return {}


class Aliased:
    """Its fields have other names outside."""

    def predict(self, item: Review) -> Renamed:
        return Renamed(fullName=item.text)


class Limited:
    """Says beside its types what their limits are."""

    def predict_batch(
        self, items: list[Annotated[Review, "a review"]]
    ) -> list[Annotated[float, Field(ge=0, le=1)]]:
        return [len(item.text) for item in items]


class Counted:
    """Gives one number for each word, where it does as it says."""

    def predict(self, item: dict[str, str]) -> dict[str, float]:
        return {word: 1 if word != "many" else "many" for word in item["text"].split()}  # type: ignore[misc]


class Unreadable:
    """Its hint names a type that is not there."""

    def predict(self, item: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass


class TakesAText:
    def predict(self, item: str) -> str:
        return item


class Refusing(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def look(cls, text: str) -> str:
        if text == "bad":
            raise KeyError(text)
        return text


class Fussy:
    """Its type raises what no type should."""

    def predict(self, item: Refusing) -> Any:
        return {}


class WithOptions:
    def predict(self, item, top_k: int = 3) -> Any:  # type: ignore[no-untyped-def]
        return {}


class Short(BaseModel):
    text: Annotated[str, Field(max_length=4)]


class Either:
    def predict(self, item: Short | Review) -> dict[str, Any]:
        return {"took": type(item).__name__}


class Half:
    max_batch_size = 0.5

    def predict(self, item: Any) -> Any:
        return item


class Plain(typing.TypedDict):
    text: str


class TakesTypingsDict:
    def predict(self, item: Plain) -> Any:
        return item


class GivesTypingsDict:
    def predict(self, item: Any) -> list[Plain]:
        return [item]


class Quarters:
    max_batch_size = 2.5

    def predict_batch(self, items: list[Any]) -> list[Any]:
        return items


class Awaited:
    async def predict(self, item: Any) -> Any:
        return item


class Unlimited(BaseModel):
    at_most: float = math.inf


class TakesTheUnlimited:
    def predict(self, item: Unlimited) -> Any:
        return {}


class TooMany:
    max_batch_size = 2

    def predict(self, item: Any) -> Any:
        return item


class Negative:
    max_wait_ms = -1

    def predict(self, item: Any) -> Any:
        return item


class Unwell:
    """Says so once there is a sign."""

    def predict(self, item: Any) -> Any:
        return {"pid": os.getpid()}

    def health(self) -> bool:
        return not SIGNS.exists()


class Stuck(Unwell):
    """Never says how it is, once there is a sign."""

    def health(self) -> bool:
        if SIGNS.exists():
            SIGNS.rename(f"{SIGNS}.asked")
            Event().wait()  # for ever
        return True


class Renewed:
    """Has been changed once there is a sign."""

    version = "2" if SIGNS.exists() else "1"

    def predict(self, item: Any) -> Any:
        os._exit(3)


class Tidy:
    """Leaves a sign when it may clean up."""

    def setup(self) -> None:
        self.warm = False

    def warmup(self) -> None:
        self.warm = True

    def predict(self, item: Any) -> Any:
        return {"warm": self.warm}

    def teardown(self) -> None:
        SIGNS.write_text("clean")


class Untidy(Tidy):
    def teardown(self) -> None:
        raise ValueError("cannot clean up")


class Environment:
    """Answers with what it sees of its machine; asks for memory where it is told to."""

    def predict(self, item: dict[str, Any]) -> Any:
        if item["text"].isdigit():
            return {"size": len(bytearray(int(item["text"])))}
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        return {"pid": os.getpid()} | {name: os.environ.get(name) for name in names}


class TidyEnvironment(Environment):
    """Cleans up until the file is there that was asked of it last."""

    def predict(self, item: dict[str, Any]) -> Any:
        self.until = Path(item["text"])
        return super().predict({"text": ""})

    def teardown(self) -> None:
        while not self.until.exists():
            Event().wait(0.01)


class Telling:
    """Says how far it is until the file is there that its text names."""

    def predict(self, item: dict[str, Any], progress: Any) -> Any:
        steps = 0
        while not Path(item["text"]).exists():
            steps += 1
            progress(min(0.9, steps / 10_000), f"step {steps}")
            Event().wait(0.01)
        progress(7, "more than all")
        return {"steps": steps}
