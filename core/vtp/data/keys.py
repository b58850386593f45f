"""Randomness and hashes that depend on a key and on nothing else: not on the worker, the rank, the order of calls, or a
resume."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["hash64", "keyed_generator"]


def hash64(text: str) -> int:
    """A number in [0, 2**64) for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def keyed_generator(*key: int | str) -> np.random.Generator:
    """A generator whose stream is a function of ``key`` alone, for example ``keyed_generator(seed, "augment", epoch,
    index)``.

    The key is hashed with BLAKE2b, so that neighbouring keys give unrelated streams and 1 differs from "1".
    """
    text = "\x1f".join(f"s{part}" if isinstance(part, str) else f"i{int(part)}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
