"""GPT: a language model, a decoder-only transformer.

model.py      the transformer, GPT-2 or a modern recipe, and its loss
training.py   Muon or AdamW, on blocks of tokens
scoring.py    log-probability token by token, learning while reading, generation
inside.py     attention of a token; embeddings that make the model say a text
"""

from course_utils.models.gpt.inside import (
    Inversion,
    Nearest,
    attention_before,
    invert,
    nearest_tokens,
    of_words,
)
from course_utils.models.gpt.model import (
    GPT,
    MODERN,
    PLAIN,
    Block,
    Look,
    Recipe,
    next_token_loss,
)
from course_utils.models.gpt.scoring import (
    adaptive_log_probs,
    generate,
    log_probs,
    sampling_law,
    window_start,
)
from course_utils.models.gpt.training import adamw_turn, muon_turn, train_gpt

__all__ = [
    "GPT",
    "MODERN",
    "PLAIN",
    "Block",
    "Inversion",
    "Look",
    "Nearest",
    "Recipe",
    "adamw_turn",
    "adaptive_log_probs",
    "attention_before",
    "generate",
    "invert",
    "log_probs",
    "muon_turn",
    "nearest_tokens",
    "next_token_loss",
    "of_words",
    "sampling_law",
    "train_gpt",
    "window_start",
]
