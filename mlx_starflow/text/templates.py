"""Prompt templates: the text around the prompt that a model was trained with."""

from __future__ import annotations

from ..config import TextConfig


def prompt_text(prompt: str, config: TextConfig, aspect_ratio: str = "1:1") -> str:
    """The prompt with all additions that the model's text settings ask for.

    The null caption is the empty prompt with the same additions.
    """
    text = prompt
    if config.fps:  # 0 frames per second: a picture, not a video
        text = f"An image:\n{text}\n"
    if config.noise_level is not None:
        text = f"Noise Level {int(1000 * config.noise_level)}:\n{text}"
    if config.aspect_ratio:
        text = f"{text}\n in a {aspect_ratio} aspect ratio.\n"
    if config.chat_template:
        text = (
            f"<start_of_turn>user\nPlease generate an image about: {text}<end_of_turn>\n"
            "<start_of_turn>model\n"
        )
    return text
