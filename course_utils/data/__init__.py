"""Data sets: those of the plane, whose truth is known, and MNIST; one file each."""

from course_utils.data.mnist import MNIST, Images, load_mnist
from course_utils.data.plane import PlaneData
from course_utils.data.rings import OlympicRings
from course_utils.data.spiral import Spiral
from course_utils.data.square import Square

__all__ = [
    "MNIST",
    "Images",
    "OlympicRings",
    "PlaneData",
    "Spiral",
    "Square",
    "load_mnist",
]
