"""The part of an answer that is in some human language: no code, formulas, addresses or markup."""

from __future__ import annotations

import re

from polygraft.evals.items import Item

# each pattern is linear: no nested repeats, so that a hostile answer costs no more than a long one
FENCED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.S)
CODE = re.compile(r"`[^`\n]{1,200}`|<[/!]?[A-Za-z][^<>\n]{0,200}>|\$\$[^$]{1,2000}\$\$|\\\([^()\n]{0,400}\\\)|\\[A-Za-z]+")
ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"']{1,500}|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}")


def prose(text: str) -> str:
    """A text without code blocks, inline code, tags, formulas, web and mail addresses."""
    return ADDRESS.sub(" ", CODE.sub(" ", FENCED.sub("\n", text)))


def lines(text: str, most: int = 200) -> list[str]:
    """The lines of a text that are not blank; of more than `most`, that many evenly spaced ones."""
    found = [line for line in text.splitlines() if line.strip()]
    return found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]


def answer_language(item: Item) -> str:
    """The language that the answer should be in: the item's own, or the one a translation is asked into."""
    return str(item.extra.get("answer_language", item.language))
