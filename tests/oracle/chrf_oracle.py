"""chrF and BLEU by their papers, sentence after sentence: lists of n-grams, each crossed out once it is matched."""

import math


def grams(units, n):
    return [tuple(units[i:i + n]) for i in range(len(units) - n + 1)]


def matches(a, b):
    left, found = list(b), 0
    for g in a:
        if g in left:
            left.remove(g)
            found += 1
    return found


def chrf(texts, references):
    """Popovic 2015, beta 2, 1 to 6 characters, counts of the corpus; lengths that one side never has are left out."""
    strip = [("".join(t.split()), "".join(r.split())) for t, r in zip(texts, references)]
    precisions, recalls = [], []
    for n in range(1, 7):
        both = [(grams(t, n), grams(r, n)) for t, r in strip]
        hits = sum(matches(t, r) for t, r in both)
        said, wanted = sum(len(t) for t, r in both if r), sum(len(r) for _, r in both)
        if said and wanted:
            precisions.append(hits / said)
            recalls.append(hits / wanted)
    p, r = (sum(x) / max(1, len(x)) for x in (precisions, recalls))
    return 100 * 5 * p * r / (4 * p + r) if p + r else 0.0


def bleu(texts, references):
    """Papineni et al. 2002 on words; the k-th length without a match counts 1 / 2^k of one."""
    pairs, logs, halves = [(t.split(), r.split()) for t, r in zip(texts, references)], [], 1.0
    for n in range(1, 5):
        hits, said = (sum(f(grams(t, n), grams(r, n)) for t, r in pairs) for f in (matches, lambda t, r: len(t)))
        if said == 0 or (n == 1 and hits == 0):
            return 0.0
        halves = halves / 2 if hits == 0 else halves
        logs.append(math.log((hits or halves) / said))
    length, wanted = (sum(len(p[i]) for p in pairs) for i in (0, 1))
    return 100 * math.exp(sum(logs) / 4 + min(0.0, 1 - wanted / length))
