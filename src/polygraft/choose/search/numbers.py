"""Lists of whole numbers as they are typed: `0..14`, `0..14:2`, `0,2,5`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from polygraft.config import Unfit

RANGE = re.compile(r"(\d{1,4})\.\.(\d{1,4})(?::(\d{1,4}))?")
MOST = 1000


def parse(text: str) -> tuple[int, ...]:
    """The numbers, sorted, each once. Raises Unfit (a ValueError) for what is not such a list."""
    found: set[int] = set()
    for word in text.replace(" ", "").split(","):
        if (spans := RANGE.fullmatch(word)) and (step := int(spans[3] or 1)):
            found.update(range(int(spans[1]), int(spans[2]) + 1, step))
        elif re.fullmatch(r"\d{1,4}", word):
            found.add(int(word))
        else:
            raise Unfit("not a list of whole numbers", found=text[:60], expected="numbers such as 0..14, 0..14:2 or 0,2,5")
    if not found or len(found) > MOST:
        raise Unfit("not a list that can be tried", found=text[:60], expected=f"1 to {MOST} numbers, the smaller first: 0..14")
    return tuple(sorted(found))


def _checked(text: str) -> str:
    parse(text)
    return text


Numbers = Annotated[str, AfterValidator(_checked)]
