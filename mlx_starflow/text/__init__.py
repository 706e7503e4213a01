"""From prompts to the text features that a flow is conditioned on."""

from .features import Cut, TextEncoder, TextFeatures
from .registry import load_encoder
from .templates import prompt_text

__all__ = ["Cut", "TextEncoder", "TextFeatures", "load_encoder", "prompt_text"]
