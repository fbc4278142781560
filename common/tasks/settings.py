"""What the tasks are asked: the settings of purchase intent and of sales forecasting.

Public, and the same at every site. They are sections of ``common.run.RunConfig``.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One section of the settings: frozen, no unknown key, no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class IntentSettings(Section):
    """What the purchase-intent head is asked, and when: public, and the same at every site."""

    ask: Literal["session", "events", "days"] = Field(
        "session",
        description="will this session end in a purchase; one of the last events be one; or one of the next days",
    )
    after: int = Field(3, ge=1, le=1_000, description="session: asked after this many of its events")
    session_gap_minutes: Positive = Field(30.0, description="session: a longer pause begins a new one")
    horizon: int = Field(5, ge=1, le=3_650, description="events, or days, in which a purchase counts")
    asks: int = Field(
        4, ge=1, le=50, description="moments per consumer that training asks about: the judged one, earlier ones"
    )
    cut: str = Field(
        "", description="days: the public date (YYYY-MM-DD, UTC) at which every consumer is asked about"
    )

    @field_validator("cut", mode="before")
    @classmethod
    def _as_text(cls, cut: Any) -> Any:
        """A date of TOML is a date, quoted or not."""
        return cut.isoformat() if type(cut) is date else cut

    @model_validator(mode="after")
    def _dated(self) -> IntentSettings:
        if self.ask == "days" and not self.cut:
            raise ValueError(
                "intent.ask = days needs the public date intent.cut, at least a horizon before the data end"
            )
        if self.cut and self.ask != "days":
            raise ValueError(f"intent.cut is for intent.ask = days, not for {self.ask}")
        if self.cut:
            date.fromisoformat(self.cut)
        return self

    @property
    def cut_us(self) -> int | None:
        """The cut in microseconds since 1970, None where the question has no date."""
        if not self.cut:
            return None
        return (date.fromisoformat(self.cut) - date(1970, 1, 1)).days * 86_400_000_000


class SalesSettings(Section):
    """What is summed into sales series, under which public bounds, and what is forecast. Same at every site."""

    granularity: Literal["day", "week"] = Field("day", description="period of the series; weeks begin on Monday")
    start: str = Field("", description="public first day (YYYY-MM-DD); empty: the log's first, simulations only")
    periods: int = Field(
        0, ge=0, le=20_000, description="length of the series; 0: to the log's end, simulations only"
    )
    categories: tuple[str, ...] = Field(
        (), description="public list, `other` takes the rest; empty: those of the catalogue, or one: all"
    )
    horizon: int = Field(7, ge=1, le=60, description="periods ahead that are forecast")
    window: int = Field(28, ge=4, le=400, description="periods that the model reads")
    test: int = Field(28, ge=1, le=2_000, description="last periods, for measuring only")
    quantity_cap: Positive = Field(100.0, description="larger quantities of one purchase count as this")
    price_cap: Positive = Field(1_000.0, description="larger prices count as this")
    quantity_bound: Positive = Field(
        10.0, description="L2 of a consumer's quantities over all cells that reaches privacy.clip = 1"
    )
    revenue_bound: Positive = Field(
        200.0, description="L2 of a consumer's revenues over all cells that reaches privacy.clip = 1"
    )
    holidays: tuple[str, ...] = Field(
        (), description="public dates (YYYY-MM-DD) with a calendar feature of their own"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _as_text(cls, start: Any) -> Any:
        return start.isoformat() if type(start) is date else start

    @field_validator("holidays", mode="before")
    @classmethod
    def _dates_as_text(cls, found: Any) -> Any:
        return [d.isoformat() if type(d) is date else d for d in found] if isinstance(found, list) else found

    @model_validator(mode="after")
    def _dated(self) -> SalesSettings:
        for text in (*self.holidays, *([self.start] if self.start else [])):
            date.fromisoformat(text)
        if self.start and self.granularity == "week" and date.fromisoformat(self.start).weekday():
            raise ValueError(f"sales.start {self.start} is not a Monday, with which a week begins")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("sales.categories names a category twice")
        return self
