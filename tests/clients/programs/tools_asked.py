"""What the programs ask of models: a question, a tool for it, and the form of an answer."""

from typing import Literal

from pydantic import BaseModel, Field

QUESTION = "What is the weather in Lima?"
AGAIN = "And in Oslo?"
RESULT = "Lima: 19 degrees, cloudy"  # what the tool gives
MOST_TOKENS = 160


class Weather(BaseModel):
    """Tell the weather of a city."""

    city: Literal["Lima", "Oslo", "Quito"]
    unit: Literal["celsius", "fahrenheit"]


class Report(BaseModel):
    """A report of the weather."""

    city: Literal["Lima", "Oslo", "Quito"]
    sky: Literal["clear", "cloudy", "rainy"]
    windy: bool
    warnings: list[Literal["storm", "flood"]] = Field(max_length=2)
