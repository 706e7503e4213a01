"""Prompt templates: the text around the prompt that a model was trained with."""

from __future__ import annotations

from ..config import TextConfig

EXTEND = "(extend) "  # before the caption of a clip whose first latent frame was removed


def prompt_text(prompt: str, config: TextConfig, aspect_ratio: str = "1:1", fps: int = 0) -> str:
    """The prompt with all additions that the model's text settings ask for.

    ``fps``: frames per second of a clip, 0 for a picture. The null caption is the empty prompt with
    the same additions.
    """
    text = prompt
    if config.fps:
        text = f"A video with {fps} fps:\n{text}\n" if fps else f"An image:\n{text}\n"
    if config.noise_level is not None:
        text = f"Noise Level {int(1000 * config.noise_level)}:\n{text}"
    if config.aspect_ratio:
        text = f"{text}\n in a {aspect_ratio} aspect ratio.\n"
    if config.chat_template:
        what = "a video" if fps else "an image"
        text = (
            f"<start_of_turn>user\nPlease generate {what} about: {text}<end_of_turn>\n"
            "<start_of_turn>model\n"
        )
    return text
