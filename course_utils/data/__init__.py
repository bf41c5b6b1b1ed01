"""Data sets whose truth is known: one file each."""

from course_utils.data.plane import PlaneData
from course_utils.data.rings import OlympicRings
from course_utils.data.spiral import Spiral
from course_utils.data.square import Square

__all__ = ["OlympicRings", "PlaneData", "Spiral", "Square"]
