"""What a flat costs: a model of one's own, whose input is no text."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Flat(BaseModel):
    """What the model takes. The web answers 422 to anything else."""

    model_config = ConfigDict(extra="forbid")

    square_metres: float = Field(gt=0, le=1000)
    rooms: int = Field(ge=1, le=50)
    district: Literal["centre", "north", "south"] = "centre"


class Estimate(BaseModel):
    """What it gives; anything else is an error of the model."""

    price: float = Field(ge=0, description="In euros.")


class TooSmall(ValueError):
    """More rooms than there can be."""

    retryable = False


class HousePrices:
    """Estimates many flats with one call."""

    version = "1"  # each job says which version answered it
    max_batch_size = 64  # so many flats with one call, at most
    max_wait_ms = 5  # so long a flat may wait for others to come
    timeout_seconds = 10

    def setup(self) -> None:
        """Load the weights: once in each worker."""
        self.per_square_metre = {"centre": 5200.0, "north": 3900.0, "south": 4400.0}
        self.per_room = 8000.0

    def warmup(self) -> None:
        """Predict once, so that the first job is as fast as the others."""
        self.predict_batch([Flat(square_metres=50, rooms=2)])

    def predict_batch(self, items: list[Flat]) -> list[Estimate | TooSmall]:
        """Give an estimate for each flat, or an error, in their order."""
        return [self._estimate(flat) for flat in items]

    def _estimate(self, flat: Flat) -> Estimate | TooSmall:
        if flat.square_metres < 5 * flat.rooms:
            return TooSmall(f"{flat.rooms} rooms need more than {flat.square_metres:g} m²")
        area = self.per_square_metre[flat.district] * flat.square_metres
        return Estimate(price=round(area + self.per_room * flat.rooms, -2))
