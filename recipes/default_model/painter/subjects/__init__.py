"""The table of subjects: drawing function, width and centre of each."""

from __future__ import annotations

from ..palette import Coat
from ..pen import Pen
from . import animals, buildings, farm, nature, people, spare, vehicles, winged

# Width in units of the subject's height; a test measures it.
WIDTH = {
    "fox": 0.98, "cat": 0.93, "dog": 0.86, "rabbit": 0.66, "bear": 0.77, "lion": 1.03,
    "elephant": 1.19, "horse": 1.04, "cow": 1.18, "pig": 0.85, "sheep": 1.0, "penguin": 0.83,
    "duck": 1.03, "bird": 0.81, "fish": 1.24, "butterfly": 1.13, "tree": 0.89, "flower": 0.74,
    "mushroom": 0.99, "snowman": 0.97, "girl": 0.85, "boy": 0.67, "house": 1.07, "castle": 1.11,
    "lighthouse": 0.71, "boat": 1.17, "car": 1.39, "train": 1.39, "bicycle": 1.3, "balloon": 0.8,
    "rocket": 0.71, "star": 1.03, "robot": 0.9, "teapot": 1.38, "snail": 1.32,
}  # fmt: skip
FLYING_WIDTH = {"bird": 1.16, "rocket": 1.0}  # with spread wings; tilted
# x of the drawing's centre, in units of the height (0: at the origin).
CENTRE = {
    "fox": 0.15, "cat": 0.08, "dog": 0.025, "rabbit": 0.045, "lion": 0.1, "horse": 0.07,
    "pig": 0.06, "sheep": 0.02, "duck": 0.05, "fish": -0.045, "train": 0.03, "teapot": 0.017,
    "snail": 0.028,
}  # fmt: skip
# Wide subjects are drawn smaller, so that all cover a similar share of the picture.
SCALE = {
    "fish": 0.86, "bird": 0.94, "car": 0.9, "house": 0.92, "boat": 0.92, "star": 0.86,
    "train": 0.86, "bicycle": 0.92, "butterfly": 0.86, "lighthouse": 1.12, "balloon": 1.1,
    "castle": 0.98, "duck": 0.94,
}  # fmt: skip

_DRAWERS = {
    "fox": animals.fox, "cat": animals.cat, "dog": animals.dog, "rabbit": animals.rabbit,
    "bear": animals.bear, "lion": animals.lion, "elephant": animals.elephant,
    "horse": farm.horse, "cow": farm.cow, "pig": farm.pig, "sheep": farm.sheep,
    "penguin": winged.penguin, "duck": winged.duck, "bird": winged.bird, "fish": winged.fish,
    "butterfly": winged.butterfly, "tree": nature.tree, "flower": nature.flower,
    "mushroom": nature.mushroom, "snowman": nature.snowman, "star": nature.star,
    "girl": people.girl, "boy": people.boy, "house": buildings.house, "castle": buildings.castle,
    "lighthouse": buildings.lighthouse, "boat": vehicles.boat, "car": vehicles.car,
    "train": vehicles.train, "bicycle": vehicles.bicycle, "balloon": vehicles.balloon,
    "rocket": vehicles.rocket, "robot": spare.robot, "teapot": spare.teapot,
    "snail": spare.snail,
}  # fmt: skip
_FLYING = ("bird", "rocket")  # have another drawing in the air
_LIT = ("house", "castle", "lighthouse")  # with light behind the windows at night


def draw_subject(pen: Pen, name: str, coat: Coat, turn: float, flying: bool, lit: bool) -> None:
    """Draw one subject. ``turn`` in [-1, 1]: turn of its head, or its tilt."""
    if name in _FLYING:
        _DRAWERS[name](pen, coat, turn, flying=flying)
    elif name in _LIT:
        _DRAWERS[name](pen, coat, turn, lit=lit)
    else:
        _DRAWERS[name](pen, coat, turn)
