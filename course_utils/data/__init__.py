"""Data sets: points of the plane, whose truth is known, images, text; a file each."""

from course_utils.data.alice import load_alice
from course_utils.data.colours import ColouredImages, TwoDomains, random_tints
from course_utils.data.images import Images, ImageSplits
from course_utils.data.mixture import GaussianMixture
from course_utils.data.mnist import load_mnist
from course_utils.data.plane import PlaneData
from course_utils.data.rings import OlympicRings
from course_utils.data.spiral import Spiral
from course_utils.data.square import Square
from course_utils.data.text import Text, Tokens, load_text

__all__ = [
    "ColouredImages",
    "GaussianMixture",
    "ImageSplits",
    "Images",
    "OlympicRings",
    "PlaneData",
    "Spiral",
    "Square",
    "Text",
    "Tokens",
    "TwoDomains",
    "load_alice",
    "load_mnist",
    "load_text",
    "random_tints",
]
