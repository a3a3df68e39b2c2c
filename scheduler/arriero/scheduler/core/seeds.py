"""Numbers that look random and are the same on every run: the only "randomness" that the core has."""

from hashlib import blake2b

_SPAN = 2**64


def fraction(seed: str, *parts: object) -> float:
    """Hash a seed and what it is for to a number in [0, 1).

    Parameters
    ----------
    seed
        Usually the uuid of a rule.
    parts
        What tells this number from others of the same seed; their text counts.
    """
    text = "\x1f".join([seed, *(str(part) for part in parts)])
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (_SPAN >> 11)
