"""Print which of several captions fits each picture best, by exact likelihood.

python examples/name_pictures.py fox.png cat.png --captions "a fox in snow" "a cat in snow"
"""

from __future__ import annotations

import argparse

import mlx_starflow as sf
from mlx_starflow.editing.inputs import latents_of, prepared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--captions", nargs="+", required=True)
    parser.add_argument("--model", help="a directory, a known name or a hub repository")
    arguments = parser.parse_args()

    with sf.load(arguments.model) as pipe:
        # Pictures of other sizes are cropped around the centre and scaled to the model's size.
        pictures = [prepared(pipe, path, fit="crop")[0] for path in arguments.pictures]
        x = latents_of(pipe, [picture.image for picture in pictures])
        scores = sf.score_pictures(pipe.flow, x, pipe.encode_prompts(arguments.captions))
    for picture, score in zip(pictures, scores, strict=True):
        best = int(score.mean.argmax())
        print(f"{picture.path}: {arguments.captions[best]} ({score.posterior()[best]:.0%})")


if __name__ == "__main__":
    main()
