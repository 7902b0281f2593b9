"""Counter-based chance: a draw is a hash of the seed and of what it is for, whatever was drawn before it."""

import hashlib


def draw(seed: int, *names: str | int) -> int:
    """Return the integer in [0, 2**63) that belongs to `seed` and `names`."""
    text = "\x1f".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def fraction(seed: int, *names: str | int) -> float:
    """Return the number in [0, 1) that belongs to `seed` and `names`."""
    return (draw(seed, *names) >> 10) / 2**53
