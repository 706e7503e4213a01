"""A number with its noun, for messages."""


def counted(number: int, noun: str, several: str = "") -> str:
    """A number and a noun in singular or plural: "1 picture", "2 pictures"."""
    return f"{number} {noun if number == 1 else several or noun + 's'}"
