"""Which prompts are for training, validation and test: by a hash of the text, so for good."""

import hashlib
from collections import Counter
from collections.abc import Iterable

from panacea_lib.errors import InputError
from panacea_lib.problem_data import Split
from panacea_lib.records import Side

SPLIT_SALT = "panacea"  # raised only to draw all splits anew: every figure changes with it


def split_of(prompt_text: str, split: Split, salt: str = SPLIT_SALT) -> Side:
    """The side of a prompt: the same on every machine, whatever else is in the file.

    White space does not count, so a prompt that is written twice with another line end is not
    on two sides.
    """
    text = " ".join(prompt_text.split())
    digest = hashlib.sha256(f"{salt}\0{text}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64
    if position < split.test:
        return "test"
    return "validation" if position < split.test + split.validation else "train"


def split_prompts(
    texts: Iterable[str], split: Split, where: str, salt: str = SPLIT_SALT
) -> dict[str, Side]:
    """The side of each text; `where` names the data in an error.

    InputError: fewer than two different prompts, or a side that comes out empty.
    """
    sides: dict[str, Side] = {text: split_of(text, split, salt) for text in texts}
    if len(sides) < 2:
        raise InputError(
            f"{where}: all rows have one and the same prompt; training, validation and test need "
            "different prompts: add rows with other prompts (at least about 30)"
        )
    sizes: Counter[str] = Counter(sides.values())
    remedies = {
        "train": "add prompts",
        "validation": f"add prompts or raise data.split.validation above {split.validation}",
        "test": f"add prompts or raise data.split.test above {split.test}",
    }
    for side, remedy in remedies.items():
        if not sizes[side]:
            raise InputError(
                f"{where}: none of the {len(sides)} different prompts falls on the {side} side; "
                f"{remedy}"
            )
    return sides
