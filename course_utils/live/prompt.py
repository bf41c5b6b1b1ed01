"""A caption, a seed and guidance: the picture that a text-to-image model draws."""

from __future__ import annotations

from typing import Any

from course_utils.data.captions import (
    COLOUR_WORDS,
    DIGIT_WORDS,
    LANGUAGES,
    Language,
    Vocabulary,
    after_prefix,
    describe,
    plain_words,
)
from course_utils.data.colours import NAMES
from course_utils.data.mnist import DIGITS, SIDE
from course_utils.live.colours import palette
from course_utils.live.digits import classifier_layers
from course_utils.live.network import (
    check_decoder,
    check_size,
    check_weights,
    halves,
    layers_apart,
    network_state,
)
from course_utils.live.panel import LivePanel, encode, self_contained
from course_utils.models.classifier import Classifier
from course_utils.models.flow_matching.velocity import TimeFeatures, VelocityNet
from course_utils.models.latent_diffusion.model import TextToImage
from course_utils.models.vae.model import GaussianDecoder
from course_utils.networks.basic import MLPBackbone
from course_utils.networks.conditioning import Words


class PromptPanel(LivePanel):
    """The reader types a caption in either language; ``model`` draws it in the browser.

    Caption, seed, guidance and steps can be chosen. The panel shows the picture, some
    moments on the way to it with the end that the model then expects, and which digit
    and colour it has. The noise of a seed is the browser's own, not torch's. The
    weights, in half precision, are loaded when the reader asks for them.

    Args:
        name: names the panel's state on the built site.
        model: of coloured digits; it runs as in evaluation.
        classifier: reads the picture's digit; without one its colour alone is read.

    Raises:
        TypeError: not a :class:`TextToImage` of the parts that ``caption_flow`` and
            ``conv_vae`` have; a layer that the browser lacks; a classifier of another
            type.
        ValueError: parts with settings that the browser lacks, images of another shape,
            a vocabulary without the words of the usual captions, a classifier of other
            images or classes; weights out of range or more than 3,000,000 characters of
            them.
    """

    _esm = self_contained("prompt.js")
    _css = self_contained("prompt.css")
    module = "prompt"

    def __init__(
        self, name: str, model: TextToImage, classifier: Classifier | None = None
    ) -> None:
        network, weights = model_state(model, classifier)
        state = {
            "model": network,
            "vocabulary": {
                "words": list(model.vocabulary.words),
                "length": model.vocabulary.length,
            },
            "captions": {one: _captions(one) for one in LANGUAGES},
            "named": _named(model.vocabulary),
            "palette": palette(),
            "bytes": len(weights),
        }
        super().__init__(name, check_size(state), check_weights(weights))


def model_state(
    model: TextToImage, classifier: Classifier | None = None
) -> tuple[dict[str, Any], bytes]:
    """What ``prompt.js`` has to know of the networks, and their weights.

    The weights lie in the order in which it takes them: the table of words, "nothing",
    then ``mix``, ``net``, ``decoder`` and ``classifier``.

    Raises:
        TypeError, ValueError: see :class:`PromptPanel`.
    """
    if not isinstance(model, TextToImage):
        got = type(model).__name__
        raise TypeError(f"the panel runs a TextToImage, got {got}")
    words, time, backbone = _parts(model.flow.velocity)
    space, decoder = model.space, model.space.vae.decoder
    if type(decoder) is not GaussianDecoder:
        got = type(decoder).__name__
        raise TypeError(f"the panel runs a GaussianDecoder, got {got}")
    networks = {
        "mix": layers_apart(network_state(words.mix)),
        "net": layers_apart(network_state(backbone.net)),
        "decoder": layers_apart(network_state(decoder.network)),
    }
    check_decoder(decoder.network, space.dim, (3, SIDE, SIDE))
    model.vocabulary.encode([text for one in LANGUAGES for text in _texts(one)])
    assert words.nothing is not None
    weights = halves(words.table.weight) + halves(words.nothing)
    weights += b"".join(values for _, values in networks.values())
    state: dict[str, Any] = {name: layers for name, (layers, _) in networks.items()}
    state["classifier"] = []
    if classifier is not None:
        state["classifier"], values = layers_apart(classifier_layers(classifier))
        weights += values
    return {
        **state,
        "words": words.words,
        "embedding": words.out_dim,
        "time_k": time.waves.k.tolist(),
        "nearest": time.NEAREST,
        "mean": encode(space.mean),
        "std": encode(space.std),
    }, weights


def _parts(velocity: object) -> tuple[Words, TimeFeatures, MLPBackbone]:
    """Text encoder, features of the time and network of a velocity that can be run."""
    expected = "the panel runs a preconditioned VelocityNet of linear layers"
    if type(velocity) is not VelocityNet:
        raise TypeError(f"{expected}, got {type(velocity).__name__}")
    words, time, backbone = velocity.condition, velocity.time, velocity.backbone
    if not velocity.preconditioned:
        raise ValueError(f"{expected}, got a plain one")
    if type(time) is not TimeFeatures:
        raise TypeError(f"{expected}, got one with {type(time).__name__}")
    if type(backbone) is not MLPBackbone:
        raise TypeError(f"{expected}, got one with {type(backbone).__name__}")
    if len(backbone.space.k):
        raise ValueError(
            f"{expected} that sees latents as they are, got one with"
            f" {len(backbone.space.k)} frequencies"
        )
    if type(words) is not Words:
        raise TypeError(f"{expected} that knows Words, got {type(words).__name__}")
    if words.nothing is None:
        raise ValueError(
            "guidance needs a model that was also trained without its texts: expected"
            " Words with drop > 0, got drop=0"
        )
    return words, time, backbone


# --- captions -------------------------------------------------------------------------

_DIGITS = (None, *range(DIGITS))
_COLOURS = (None, *range(len(NAMES)))


def _captions(language: Language) -> list[list[str]]:
    """The usual captions: a row for no digit, then for each; in it, no colour first."""
    return [
        [
            "" if (digit, colour) == (None, None) else describe(language, digit, colour)
            for colour in _COLOURS
        ]
        for digit in _DIGITS
    ]


def _texts(language: Language) -> list[str]:
    """The same one after the other, without the empty one."""
    return [text for row in _captions(language) for text in row if text]


def _named(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Which words say a digit or a colour, the longest first: "sky blue", then "blue".

    In Hebrew a colour may also have "in" before it, as one word with it.
    """
    said: list[tuple[str, str, int]] = []
    for one in LANGUAGES:
        for digit, texts in enumerate(DIGIT_WORDS[one]):
            said += [(text, "digit", digit) for text in texts]
        for colour, texts in enumerate(COLOUR_WORDS[one]):
            inside = [after_prefix(f"ב{text}") for text in texts] if one == "he" else []
            said += [(text, "colour", colour) for text in (*texts, *inside)]
    rows = {tuple(plain_words(text)): (kind, value) for text, kind, value in said}
    known = [row for row in rows if all(word in vocabulary.place for word in row)]
    known.sort(key=len, reverse=True)
    return [{"words": list(row), rows[row][0]: rows[row][1]} for row in known]
