"""The words that a micro world's look is made of, and the prompts that say them.

A prompt names a place, a colour, a time of day and a weather; which sentence carries them is drawn too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PLACES = ("corridor", "courtyard", "plain", "hills")
COLOUR_NAMES = ("red", "orange", "yellow", "green", "blue", "violet", "white", "grey")
TIMES = ("dawn", "noon", "dusk", "night")
AIRS = ("clear", "misty", "snowy")

SENTENCES = (
    "a {colour} {place} at {light}, {weather}",
    "{weather} {light}, a {place} with {colour} walls",
    "walking through a {colour} {place}, {weather} air, {light}",
    "{place}, {colour}, {light}, {weather}",
)


@dataclass(frozen=True, slots=True)
class Words:
    """One look by its four words."""

    place: str
    colour: str
    light: str
    weather: str

    def prompt(self, sentence: int) -> str:
        """The look said in one of ``SENTENCES``."""
        return SENTENCES[sentence % len(SENTENCES)].format(
            colour=self.colour, place=self.place, light=self.light, weather=self.weather
        )


def draw_words(draw: np.random.Generator) -> Words:
    """A look, every word as likely as its neighbours."""
    place, colour, light, weather = (
        names[int(draw.integers(len(names)))] for names in (PLACES, COLOUR_NAMES, TIMES, AIRS)
    )
    return Words(place, colour, light, weather)
