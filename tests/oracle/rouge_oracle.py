"""Naive ROUGE-n: every n-gram of the answer strikes one like it out of the reference's list."""

import re


def words(text):
    """Runs of letters and digits of any script that puts spaces between words."""
    return re.findall(r"[^\W_]+", text.lower())


def rouge(reference, answer, n):
    """(f-measure, recall)."""
    wanted = [tuple(words(reference)[i:i + n]) for i in range(len(words(reference)) - n + 1)]
    given = [tuple(words(answer)[i:i + n]) for i in range(len(words(answer)) - n + 1)]
    left, shared = list(wanted), 0
    for gram in given:
        if gram in left:
            left.remove(gram)
            shared += 1
    if not shared:
        return 0.0, 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall), recall
