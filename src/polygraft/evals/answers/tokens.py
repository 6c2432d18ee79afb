"""The number grammar: every number in a text that `clean` has prepared, with all values that its writing can mean.

Where conventions disagree both readings are kept: `2,125` is two thousand or two and an eighth, `20%` twenty or a fifth.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from polygraft.evals.answers import han, words
from polygraft.evals.answers.clean import GROUP_ONLY, lower

CURRENCY = "$€£¥₹₽₩฿৳₫₺₪₦₱₴₡¢￥￡￦"
LONGEST = 100  # digits; nothing that is asked has a longer answer, and converting endless numbers takes quadratic time
CLOSERS = ")]}%" + CURRENCY
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without space between words
_COUNTERS = (
    "个 個 箇 ヶ か つ 本 枚 人 匹 台 円 元 块 塊 只 隻 条 條 张 張 头 頭 杯 箱 盒 袋 瓶 件 位 名 天 日 年 月 周 週 小时 小時 "
    "时 時 分钟 分鐘 分間 秒 岁 歳 才 倍 次 回 度 朵 棵 颗 粒 支 页 頁 章 斤 公 米 美 ドル 千克 冊 册 双 套 包 打 串 辆 輛 "
    "架 艘 座 间 間 点 キロ メートル"
)
_VULGAR = "".join(map(chr, [*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189]))
_H = han.NUMERALS
_PLAIN = rf"\d+(?:['.,\u066b{GROUP_ONLY}]\d+)*"
_SPACED = r"\d{1,3}(?:[ ]\d{3})+(?!\d)(?:[.,\u066b]\d+)?"


def is_spaced(c: str) -> bool:
    """Whether the script of this letter puts spaces between words."""
    return re.match(f"[{UNSPACED}]", c) is None


def one_of(found: Iterable[str]) -> str:
    """A pattern for any of these, the longest first; where the script puts spaces between words, whole words only."""
    return "|".join(re.escape(w) + (r"(?![^\W\d_])" if is_spaced(w[-1]) else "") for w in longest_first(found))


def longest_first(found: Iterable[str]) -> list[str]:
    """In small letters."""
    return sorted(map(lower, found), key=len, reverse=True)


_CORE = re.compile(rf"""
    (?=[\d{_H}{_VULGAR}.^])(?:  # most characters begin no number
    (?P<none>\d+(?:/\d+){{2,}} | \d+(?::\d+)+ | \d*\^\{{?-?\d+\}}? | (?<=m)[23](?![\d.,/]))   # dates, times, powers, m2
  | (?:(?P<whole>[{_H}]+|\d+)又)?(?P<below>[{_H}]+|\d+)\ ?(?:分之|分の|분의)\ ?(?P<above>[{_H}]+(?:[点點][{_H}]+)?|\d+(?:\.\d+)?)
  | (?P<han>[{_H}]+(?:[点點・][{_H}]+)?)
  | (?P<units>(?:{_PLAIN}\ ?(?:千(?![克米瓦卡焦帕])|[{han.UNITS.replace("千", "")}])\ ?)+\d*)
  | (?:(?P<int>\d{{1,4}})\ )?(?P<top>{_PLAIN})/(?P<bottom>{_PLAIN})(?!/?\d)
  | (?P<vulgar>(?:\d+\ ?)?[{_VULGAR}])
  | (?P<e>\d{{1,20}}(?:\.\d{{1,20}})?[eE][+-]?\d{{1,2}})(?!\w)
  | (?P<plain>{_SPACED} | {_PLAIN} | (?<![\w.])\.\d+)
    )
""", re.VERBOSE)  # fmt: skip
_SIGN = re.compile(rf"([-–])(?:[A-Z]{{0,3}}[{CURRENCY}] ?)?\Z")
_MINUS = tuple(longest_first(words.MINUS))
_BEFORE = tuple(longest_first([*words.PERCENT_BEFORE, *words.SCALES_BEFORE, *words.HALF_BEFORE]))
_SCALES = {lower(w): n for w, n in words.SCALES.items()}
_AFTER = re.compile(rf"""
    (?P<half>\ ?(?:[个個天日年月周週倍时時米斤元块]|小时|小時|時間|か月|ヶ月|個月|个月)?半(?!分) | \ ?반(?!\w)
           | \ ?(?:[^\W\d_]{{1,20}}\ )?(?:{one_of(words.HALF)}))?
    (?P<scale>\ ?(?:{one_of(words.SCALES)}))?
    (?P<percent>\ ?[%‰] | \ ?(?:{one_of(words.PERCENT)}))?
""", re.VERBOSE | re.IGNORECASE)  # fmt: skip
_UNIT = re.compile(rf"({_PLAIN})\s?([{han.UNITS}]?)")
_COUNTED = re.compile(r"\s?(?:" + "|".join(map(re.escape, _COUNTERS.split())) + ")")


@dataclass(frozen=True)
class Token:
    """A number in a text. `values` is empty for what only looks like one (a date, a time). weak: 一 in 一共, 十 in 十分."""

    start: int
    end: int
    text: str
    values: frozenset[Fraction]
    weak: bool = False


def tokens(text: str) -> list[Token]:
    """Every number of a cleaned text, in order."""
    found, last = [], 0
    for m in _CORE.finditer(text):
        if m.start() >= last:  # not inside the words after the number before
            found.append(_token(m, last))
            last = found[-1].end
    return found


def _token(core: re.Match[str], last: int) -> Token:
    """The number around a core: the sign and words before it (not before `last`) and the words after it."""
    text, start, values = core.string, core.start(), _base(core)
    after = _AFTER.match(text, core.end())
    assert after is not None
    start, word = _word_before(text, last, start, _BEFORE)
    values = _scaled(values, word, after)
    signed, minus = _word_before(text, last, start, _MINUS)
    if not minus and (m := _SIGN.search(text, max(last, start - 7), start)):
        signed, minus = m.start(), m[1]
    if minus and _is_sign(text, signed):
        start, values = signed, {-v for v in values}
    return Token(start, after.end(), text[start : after.end()], frozenset(values), bool(core["han"]) and _is_weak(core, after))


def _word_before(text: str, low: int, at: int, table: tuple[str, ...]) -> tuple[int, str]:
    """(start, word) of the word of the table that ends here, maybe before a space; (at, "") when there is none."""
    end = at - (text[at - 1 : at] == " ")
    window = lower(text[max(low, end - len(table[0])) : end])
    if not window.endswith(table):
        return at, ""
    word = next(w for w in table if window.endswith(w))
    start = end - len(word)
    inside = is_spaced(word[0]) and text[max(start - 1, 0) : start].isalpha()
    return (at, "") if inside else (start, word)


def _is_sign(text: str, at: int) -> bool:
    """A minus is a sign unless something stands before it to subtract from, or it joins two parts of a word."""
    before = text[max(at - 2, 0) : at]
    if before.strip() and (before.strip()[-1].isdigit() or before.strip()[-1] in CLOSERS):
        return False
    return re.search(rf"(?:[-–]|[^\W{UNSPACED}])$", before) is None


def _is_weak(core: re.Match[str], after: re.Match[str]) -> bool:
    """Whether numerals may just be part of a word: one between letters without a counter (三角), any such 一 (一个), ordinals, bare
    units (千万). What stands alone (`三。`) is a number."""
    run, text = core["han"], core.string
    around = text[max(core.start() - 1, 0) : core.start()] + text[core.end() : core.end() + 1]
    if not any(c.isalpha() for c in around):
        return False
    counted = after.end() > after.start() or _COUNTED.match(text, core.end()) is not None
    if len(run) == 1:
        return not counted or run in "一壱" or around[0] == "第"
    return not counted and run[0] not in han.DIGITS and run[0] not in "十拾廿卅卌"


def _scaled(values: set[Fraction], word: str, after: re.Match[str]) -> set[Fraction]:
    """With the half, the scale (5 million; the 5 too) and the share (20%; the 20 too) that words around a number add."""
    if after["half"] or word in words.HALF_BEFORE:
        values = {v + Fraction(1, 2) for v in values}
    scale = _SCALES.get((after["scale"] or "").strip().lower()) or words.SCALES_BEFORE.get(word)
    if scale:
        values = values | {v * scale for v in values}
    if after["percent"] or word in words.PERCENT_BEFORE:
        values = values | {v / (1000 if (after["percent"] or "").endswith("‰") else 100) for v in values}
    return values


def _base(m: re.Match[str]) -> set[Fraction]:
    if m["none"]:
        return set()
    if m["below"]:
        return _han_fraction(m)
    if m["han"]:
        return han.decimal(m["han"])
    if m["units"]:
        return _with_units(m["units"])
    if m["top"]:
        found = {a / b for a in plain_values(m["top"]) for b in plain_values(m["bottom"]) if b}
        return {int(m["int"]) + v for v in found} if m["int"] and all(v < 1 for v in found) else found
    if m["e"]:
        return {Fraction(m["e"])}
    if m["vulgar"]:
        over = unicodedata.normalize("NFKC", m["vulgar"][-1]).split("\u2044")
        before = plain_values(m["vulgar"][:-1].strip() or "0")
        return {v + Fraction(int(over[0]), int(over[1])) for v in before}
    return plain_values(m["plain"])


def _han_fraction(m: re.Match[str]) -> set[Fraction]:
    """三分之一, 二又三分之一, 百分之二十 (a fifth, or the twenty that is asked for)."""
    above, below = _either(m["above"]), _either(m["below"])
    whole = _either(m["whole"]) if m["whole"] else {Fraction(0)}
    found = {w + a / b for w in whole for a in above for b in below if b}
    return found | above if m["below"] in ("百", "100") else found


def _either(text: str) -> set[Fraction]:
    return plain_values(text) if text[0].isdigit() else han.decimal(text)


def _with_units(text: str) -> set[Fraction]:
    """3万5千; with one unit alone the number before it too (3万 where the question asks for 万)."""
    pieces = [(plain_values(n), unit) for n, unit in _UNIT.findall(text)]
    if not all(n for n, _ in pieces):
        return set()
    found = {han.between_units([(min(n), unit) for n, unit in pieces]), han.between_units([(max(n), unit) for n, unit in pieces])}
    return found | pieces[0][0] if len(pieces) == 1 else found


# --------------------------------------------------------------------------------------------------------- separators


def plain_values(body: str) -> set[Fraction]:
    """Digits with separators: `1,00,000` is one value, `1.234` two, `1.2.3` none."""
    if len(body) > LONGEST:
        return set()
    if body.isdecimal():
        return {Fraction(int(body))}
    if body[:1] == ".":
        return {Fraction("0" + body)}
    parts = re.split(r"[^\d]", body)
    marks = re.findall(r"[^\d]", body)
    texts = set()
    if _groups(parts, marks):
        texts.add("".join(parts))
    if marks and marks[-1] in ".,\u066b" and marks.count(marks[-1]) == 1 and _groups(parts[:-1], marks[:-1]):
        texts.add("".join(parts[:-1]) + "." + parts[-1])
    return {Fraction(t) for t in texts}


def _groups(parts: Sequence[str], marks: Sequence[str]) -> bool:
    """Whether the separators group digits: all the same mark, groups of three (or two, as in India) and three at the end."""
    if not marks:
        return True
    whole = len(set(marks)) == 1 and len(parts[-1]) == 3 and 1 <= len(parts[0]) <= 3 and not (parts[0] in "0" and len(parts) == 2)
    return whole and marks[0] != "\u066b" and all(len(p) in (2, 3) for p in parts[1:-1])
