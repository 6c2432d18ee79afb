"""Texts of recipes/search-domain.yaml, from Microsoft's course texts (MIT, CC0 1.0) and the Spanish novels of ELTeC (CC BY 4.0).

    python recipes/courses.py DATA          DATA holds ms_courses/{en,es}.jsonl.xz and eltec_novels/spa.jsonl.xz

Writes recipes/texts: English courses to train on, two paragraphs each of 80 others in both languages to read, and the novels.
"""

import json
import lzma
import random
import sys
from pathlib import Path

LANGUAGES, HELD_OUT = ("en", "es"), 80


def rows(path: Path) -> list[dict[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def paragraphs(text: str) -> list[str]:
    """The second and third paragraph of prose: the first are alike in many courses."""
    found = (line.strip() for line in text.split("\n"))
    return [line for line in found if 150 <= len(line) <= 500 and not line.startswith(("#", "|", ">"))][1:3]


def main(data: Path, out: Path) -> None:
    courses = {g: {r["doc"]: r["text"] for r in rows(data / "ms_courses" / f"{g}.jsonl.xz")} for g in LANGUAGES}
    docs = sorted(set.intersection(*map(set, courses.values())))
    random.Random(0).shuffle(docs)
    read, learned = docs[:HELD_OUT], docs[HELD_OUT:]
    out.mkdir(exist_ok=True)
    train = [{"text": courses["en"][doc]} for doc in learned]
    novels = [{"text": r["text"]} for r in rows(data / "eltec_novels" / "spa.jsonl.xz")]
    for name, texts in (("courses.en", train), ("novels.es", novels)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts), encoding="utf-8")
    for g in LANGUAGES:
        lines = [p for doc in read for p in paragraphs(courses[g][doc])]
        (out / f"courses.{g}.read.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "texts")
