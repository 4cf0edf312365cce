"""Many different texts, numbered, in arrays that can be mapped from disk: looked up without being loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import xxhash
from numpy.typing import NDArray

from magpie.index.section_file import SectionFile, SectionWriter


def text_hash(text: str) -> int:
    """64 bits of a text, the same everywhere: XXH3 (Collet)."""
    return xxhash.xxh3_64_intdigest(text.encode())


@dataclass(frozen=True)
class TextDictionary:
    """D texts in the order of their hashes; a text's number is its place."""

    hashes: NDArray[np.uint64]  # (D,), ascending
    ends: NDArray[np.uint64]  # (D,), where in `letters` each text ends
    letters: NDArray[np.uint8]  # UTF-8

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, number: int) -> str:
        start = int(self.ends[number - 1]) if number else 0
        return self.letters[start : int(self.ends[number])].tobytes().decode()

    def number_of(self, text: str) -> int | None:
        """The text's number; None: it is not there."""
        hashed = np.uint64(text_hash(text))
        number = int(np.searchsorted(self.hashes, hashed))
        while number < len(self) and self.hashes[number] == hashed:  # two texts may share a hash
            if self[number] == text:
                return number
            number += 1
        return None

    @classmethod
    def of_ordered(cls, texts: Sequence[str]) -> TextDictionary:
        """Of different texts, in the order of their hashes."""
        encoded = [text.encode() for text in texts]
        hashes = np.array([xxhash.xxh3_64_intdigest(text) for text in encoded], np.uint64)
        ends = np.cumsum([len(text) for text in encoded], dtype=np.uint64)
        return cls(hashes, ends, np.frombuffer(b"".join(encoded), np.uint8))

    def write(self, file: SectionWriter, name: str) -> None:
        """Into a file, as arrays whose names begin with `name`."""
        for part in fields(self):
            file.add(f"{name}.{part.name}", getattr(self, part.name))

    @classmethod
    def read(cls, file: SectionFile, name: str) -> TextDictionary:
        """What `write` wrote, mapped."""
        return cls(*(file.array(f"{name}.{part.name}") for part in fields(cls)))


def in_order(texts: Iterable[str]) -> list[str]:
    """As `TextDictionary.of_ordered` takes them."""
    return sorted(texts, key=lambda text: (text_hash(text), text))
