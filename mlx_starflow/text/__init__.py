"""From prompts to the text features that a flow is conditioned on."""

from .features import Cut, TextEncoder, TextFeatures, Unread
from .registry import load_encoder
from .templates import prompt_text

__all__ = ["Cut", "TextEncoder", "TextFeatures", "Unread", "load_encoder", "prompt_text"]
