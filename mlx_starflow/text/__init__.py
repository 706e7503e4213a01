"""From prompts to the features a flow is conditioned on."""

from .encoder import load_encoder
from .features import Cut, TextEncoder, TextFeatures
from .templates import prompt_text

__all__ = ["Cut", "TextEncoder", "TextFeatures", "load_encoder", "prompt_text"]
