"""Panels that run a model in the reader's browser, with or without a kernel."""

from course_utils.live.digits import DigitPad
from course_utils.live.flow import FlowPanel
from course_utils.live.joint import Dial, JointPanel
from course_utils.live.language import LanguagePanel
from course_utils.live.latent import LatentMap
from course_utils.live.layers import LayersPanel
from course_utils.live.prompt import PromptPanel
from course_utils.live.translation import TranslationPanel

__all__ = [
    "Dial",
    "DigitPad",
    "FlowPanel",
    "JointPanel",
    "LanguagePanel",
    "LatentMap",
    "LayersPanel",
    "PromptPanel",
    "TranslationPanel",
]
