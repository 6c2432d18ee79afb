"""Naive question answering and class metrics: SQuAD's rules in English, and label lists counted one by one in float64."""

import re
import string

import numpy as np


def squad_words(text):
    """SQuAD 1.1: lower case, no ASCII punctuation, no English articles, split at spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(gold, answer):
    """F1 by striking out one shared word after the other."""
    a, b, left, shared = squad_words(gold), squad_words(answer), squad_words(gold), 0
    for word in b:
        if word in left:
            left.remove(word)
            shared += 1
    return 0.0 if not shared else 2 * (shared / len(a)) * (shared / len(b)) / (shared / len(a) + shared / len(b))


def mcc(right, given):
    """The correlation of the two one-hot matrices, summed over classes (Gorodkin 2004); 0 where one of them is constant."""
    classes = sorted({*right, *given})
    x, y = (np.array([[c == k for k in classes] for c in found], float) for found in (right, given))
    x, y = x - x.mean(0), y - y.mean(0)
    under = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / under) if under > 1e-12 else 0.0


def macro_f1(right, given, classes):
    """F1 of each class that is right or given somewhere, by true and false positives and negatives."""
    each, found = [], list(zip(right, given))
    for k in range(classes):
        hit, miss, false = found.count((k, k)), sum(a == k != b for a, b in found), sum(a != k == b for a, b in found)
        if hit + miss + false:
            each.append(2 * hit / (2 * hit + miss + false))
    return float(np.mean(each)) if each else 0.0
