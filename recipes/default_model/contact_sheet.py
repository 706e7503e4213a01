"""Make the README's contact sheet: six subjects in six places, seeds 0 to 35, none left out.

python -m recipes.default_model.contact_sheet [BUNDLE] [--output docs/images/contact-sheet.webp]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlx_starflow as sf
from mlx_starflow.pictures.sheet import contact_sheet

BUNDLE = Path(__file__).parents[2] / "mlx_starflow" / "assets" / "default"
SUBJECTS = ("a fox", "a white rabbit", "an elephant", "a castle", "a red car", "a penguin")
PLACES = (
    "in snow",
    "in the forest",
    "in the desert",
    "on the beach",
    "in the mountains",
    "in the city",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--output", type=Path, default=Path("docs/images/contact-sheet.webp"))
    arguments = parser.parse_args()
    prompts = [f"{subject} {place}" for subject in SUBJECTS for place in PLACES]
    with sf.load(arguments.bundle) as pipe:
        pictures = [pipe.generate(p, seed=seed).images[0] for seed, p in enumerate(prompts)]
    contact_sheet(pictures, columns=len(PLACES)).save(arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
