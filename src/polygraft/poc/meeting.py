"""The page for a decision meeting: a few plain sentences, each number in them a link to its place in the table below.

A pure function of the Decision. Sentences are made of its values, not of its English words, so that they are the same in every
language of `meeting_words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from polygraft.poc.decision import REASONS as REASONS_EN
from polygraft.poc.decision import Decision, Effect, Outcome, Reason
from polygraft.poc.meeting_words import METHODS_JA, NAMES, REASONS, STATUSES, WORDS
from polygraft.report import intervals, views
from polygraft.report.escape import one_line
from polygraft.report.numbers import duration, number, size
from polygraft.report.strings import name_of, named, strings

if TYPE_CHECKING:
    from markupsafe import Markup

NOTHING = "nothing"
RISKS = ("fidelity", "copy", "refusal")
COLUMNS = ("target", "english", "other", *RISKS)
LANGUAGES = tuple(WORDS)


@dataclass(frozen=True)
class Tongue:
    """What the page needs to speak: its own sentences, the report's (numbers, times, names of languages), and the decision."""

    language: str
    decision: Decision

    @property
    def t(self) -> Mapping[str, str]:
        return WORDS[self.language]

    @property
    def report(self) -> Mapping[str, str]:
        return strings(self.language)

    @property
    def target(self) -> str:
        """The target language's name."""
        return name_of(self.report, self.decision.language) or self.decision.language_name

    def say(self, key: str, **values: object) -> Markup:
        """A sentence or a piece of one; every value is escaped unless it is a link already."""
        return fill(self.t[key], values)

    def join(self, parts: Iterable[Markup]) -> Markup:
        from markupsafe import Markup

        return Markup(self.t["and"]).join(parts)

    def method(self, o: Outcome) -> str:
        return METHODS_JA.get(o.method, o.title) if self.language == "ja" else o.title

    def measure(self, e: Effect) -> str:
        """`accuracy of your evaluation`: a measure, its metric and task in the page's language."""
        metric, of, task = e.measure.partition(" of ")
        names = NAMES[self.language]
        said = names.get(metric, metric)
        return str(self.t["metric_of"].format(metric=said, task=names.get(task, task))) if of else said

    def reason(self, found: Reason) -> Markup:
        """The sentence of a reason. A language or method that it names is named in the page's language."""
        names = {self.decision.language_name: self.target} | {o.title: self.method(o) for o in self.decision.outcomes}
        effects = [e for o in self.decision.outcomes for e in o.effects]
        names |= {e.measure: self.measure(e) for e in effects}
        names |= {f"{e.measure} ({e.language})": measured(self, e) for e in effects}
        values = {k: names.get(v, self._interval(v)) for k, v in found.values.items()}
        return fill((REASONS_EN | REASONS.get(self.language, {}))[found.code], values)

    def plain(self, found: Reason) -> str:
        """The same as plain text, for what is no page."""
        return self.reason(found).unescape()

    def _interval(self, text: str) -> str:
        """A ready-made text, with the words between its numbers, and units, in the page's language."""
        text = re.sub(r"(?<=[\d%]) to (?=[-−+\d])", self.report["interval"].format(low="", high=""), text)
        return re.sub(r"(?<=\d )[a-z]+\b", lambda m: named(self.report, m.group()), text)


def fill(sentence: str, values: Mapping[str, object]) -> Markup:
    """A sentence of ours with foreign values in it."""
    from markupsafe import Markup, escape

    return Markup(escape(sentence)).format(**{k: v if isinstance(v, Markup) else one_line(v, 400) for k, v in values.items()})


# ----------------------------------------------------------------------------------------------------------- numbers, linked


def anchor(o: Outcome, what: str, n: int = 0) -> str:
    """The id of a number in the table: `swap-target-1`, `swap-spent`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{o.method}-{what}" + (f"-{n}" if n else ""))


def link(place: str, text: object) -> Markup:
    from markupsafe import Markup

    return Markup('<a href="#{}">{}</a>').format(place, text)


def where(o: Outcome, e: Effect) -> str:
    """The id of an effect."""
    return anchor(o, e.role, o.of(e.role).index(e) + 1)


def change(tongue: Tongue, e: Effect) -> Markup:
    """`+11 points (3 to 19), better`."""
    shown = e.difference if e.difference.verdict else replace(e.difference, verdict="unsure")
    value, interval = intervals.words(shown, tongue.report)
    verdict = tongue.t.get(shown.verdict, shown.verdict)
    return tongue.say("change" if interval else "change_plain", value=value, interval=interval, verdict=verdict)


def linked(tongue: Tongue, o: Outcome, e: Effect) -> Markup:
    return link(where(o, e), change(tongue, e))


def measured(tongue: Tongue, e: Effect, by_language: bool = True) -> Markup:
    """`accuracy of belebele (Spanish)`."""
    from markupsafe import escape

    name = name_of(tongue.report, e.language) or views.language_name(e.language).rpartition(" (")[0] or e.language
    said = one_line(tongue.measure(e), 200)
    return tongue.say("by_language", measure=said, language=name) if by_language and name else escape(said)


def gained(e: Effect) -> float:
    """A change, signed so that more is better."""
    return e.difference.value if e.higher_is_better else -e.difference.value


def score(e: Effect, value: float) -> str:
    unit = "%" if e.difference.unit == "points" else e.difference.unit
    return f"{number(value)} {unit}".strip()


# ------------------------------------------------------------------------------------------------------------------ sentences


def sentences(tongue: Tongue) -> list[Markup]:
    """What the meeting should hear: the verdict, then what it gains and loses, the risks, the costs, and how sure all this is."""
    d = tongue.decision
    about = subject(d)
    told = verdict(tongue)
    if about is not None:
        told += [*gain(tongue, about), *losses(tongue, about), *risks(tongue, about), *costs(tongue, about), *sure(tongue, about)]
    if f"next_{d.stage}" in tongue.t:
        told.append(tongue.say(f"next_{d.stage}"))
    return told


def subject(d: Decision) -> Outcome | None:
    """The method that the sentences are about: the recommended one, else the one with the best change in the target language."""
    tried = [o for o in d.outcomes if o.method != NOTHING and o.of("target")]
    chosen = next((o for o in tried if o.method == d.recommended), None)
    return chosen or max(tried, key=lambda o: gained(o.of("target")[0]), default=None)


def verdict(tongue: Tongue) -> list[Markup]:
    d = tongue.decision
    if d.verdict == "adopt" and d.recommended:
        o = d.outcome(d.recommended)
        told = [tongue.say("adopt", method=link(anchor(o, "became"), tongue.method(o)))]
        return told if d.reason.code == "adopt" else [*told, tongue.reason(d.reason)]
    plain = tongue.say("keep" if d.verdict == "keep" else "undecided")
    return [plain] if d.reason.code == "keep" else [plain, tongue.reason(d.reason)]


def gain(tongue: Tongue, o: Outcome) -> list[Markup]:
    """What it does in the target language."""
    e = o.of("target")[0]
    said = {"language": tongue.target, "method": tongue.method(o), "measure": tongue.measure(e), "change": linked(tongue, o, e)}
    if o.method != tongue.decision.recommended:
        return [tongue.say("best", **said)]
    if e.before is None or e.after is None:
        return [tongue.say("gain", **said)]
    return [tongue.say("scores", **said, before=score(e, e.before), after=score(e, e.after))]


def losses(tongue: Tongue, o: Outcome) -> list[Markup]:
    """What it does in English and in the other languages."""
    out = []
    if english := o.of("english"):
        changes = tongue.join(tongue.say("of_measure", measure=tongue.measure(e), change=linked(tongue, o, e)) for e in english)
        out.append(tongue.say("english_change", changes=changes))
    if others := o.of("other"):
        kinds = [e.difference.verdict for e in others]
        worst = min(others, key=lambda e: (e.difference.verdict != "worse", gained(e)))
        out.append(tongue.say("others", count=len(others), worse=kinds.count("worse"), better=kinds.count("better"),
                              even=len(kinds) - kinds.count("worse") - kinds.count("better"), measure=measured(tongue, worst),
                              change=linked(tongue, o, worst)))
    return out


def risks(tongue: Tongue, o: Outcome) -> list[Markup]:
    """Language fidelity, copies and refusals: what got worse, else all of them, and what was not measured."""
    found = [e for role in RISKS for e in o.of(role)]
    worse = [e for e in found if e.difference.verdict == "worse"]
    parts = [tongue.say("in_table", measure=tongue.t[e.role], change=linked(tongue, o, e)) for e in worse or found]
    out = [tongue.say("risk" if worse else "no_risk", changes=tongue.join(parts))] if parts else []
    if missing := [tongue.t[role] for role in RISKS if not o.of(role)]:
        out.append(tongue.say("unmeasured", names=tongue.t["and"].join(missing)))
    unsure = {n.values["measure"] for n in o.notes if n.code == "note-unsure"}
    if open_ := [e for e in o.effects if f"{e.measure} ({e.language})" in unsure]:
        out.append(tongue.say("not_excluded", changes=tongue.join(link(where(o, e), measured(tongue, e)) for e in open_)))
    return out


def costs(tongue: Tongue, o: Outcome) -> list[Markup]:
    """What making and serving it takes, and what the licences oblige to."""
    made = {"spent": link(anchor(o, "spent"), spent(tongue, o))}
    out = [tongue.say("made_only", **made)] if o.touched is None else [
        tongue.say("made", **made, touched=link(anchor(o, "touched"), percent(o.touched)))]
    today = next((x for x in tongue.decision.outcomes if x.method == NOTHING), None)
    pairs = zip(served(tongue, o), served(tongue, today)) if today else ()
    if today is not None and (differing := [(a, b) for a, b in pairs if a and b and a != b]):
        now, then = (tongue.t["and"].join(parts) for parts in zip(*differing))
        out.append(tongue.say("served", serving=link(anchor(o, "serving"), now), today=link(anchor(today, "serving"), then)))
    if o.obligations:
        from markupsafe import Markup

        out.append(tongue.say("licences", told=Markup(" ").join(map(tongue.reason, o.obligations))))
    return out


def sure(tongue: Tongue, o: Outcome) -> list[Markup]:
    """On how many items it rests."""
    e = o.of("target")[0]
    if not e.difference.n:
        return []
    place = link(where(o, e), f"{e.difference.n:,}")
    if e.detectable is None:
        return [tongue.say("rests_plain", n=place)]
    least = intervals.words(replace(e.difference, value=abs(e.detectable), low=None, high=None, verdict=""), tongue.report)[0]
    return [tongue.say("rests", n=place, detectable=least)]


def spent(tongue: Tongue, o: Outcome) -> str:
    """Time, tokens and money of making it."""
    parts = [duration(o.spent.seconds, tongue.report)]
    if o.spent.tokens:
        parts.append(str(tongue.t["tokens"].format(n=number(o.spent.tokens))))
    if o.spent.money is not None:
        parts.append(money(tongue, o.spent.money))
    return tongue.t["and"].join(parts)


def serving(tongue: Tongue, o: Outcome) -> str:
    """What serving takes, all that is known of it."""
    return tongue.t["and"].join(filter(None, served(tongue, o)))


def served(tongue: Tongue, o: Outcome) -> list[str]:
    """Price, bytes stored and read, tokens a character; "" for what is not known."""
    s, t = o.serving, tongue.t
    return ["" if s.money is None else t["per_million"].format(money=money(tongue, s.money)),
            t["stored"].format(size=size(s.stored_bytes)) if s.stored_bytes else "",
            t["per_token"].format(size=size(s.bytes_per_token)) if s.bytes_per_token else "",
            "" if s.tokens_per_character is None else t["per_character"].format(n=number(s.tokens_per_character))]


def money(tongue: Tongue, amount: float) -> str:
    return f"{number(amount, t=tongue.report)} {tongue.decision.currency}".strip()


def percent(share: float) -> str:
    return f"{number(100 * share)} %"


# ------------------------------------------------------------------------------------------------------------------- the page


def page(decision: Decision, language: str = "en") -> str:
    """The page as one HTML file: sentences, the table that they point into, caveats. `language`: one of `LANGUAGES`.

    Numbers of the table lead to their steps in `decision.report`. Raises KeyError for a language or a reason that is not known.
    """
    from polygraft.report.html import filled

    tongue = Tongue(language, decision)
    title = str(tongue.t["title"].format(language=one_line(tongue.target, 60)))
    stage = tongue.say("stage", stage=tongue.t.get(decision.stage, decision.stage), reference=decision.reference)
    tried = [o for o in decision.outcomes if o.status != "absent"]
    absent = [tongue.say("in_table", measure=tongue.method(o), change=tongue.reason(o.reason))
              for o in decision.outcomes if o.status == "absent"]
    return filled("meeting.html", t=tongue.t, language=language, title=title, stage=stage, sentences=sentences(tongue),
                  methods=[method(tongue, o) for o in tried], absent=absent,
                  caveats=[*map(tongue.reason, decision.caveats), tongue.reason(decision.equal)])


def method(tongue: Tongue, o: Outcome) -> dict[str, Any]:
    """A method's part of the numbers: its title with what became of it, why, and rows of (head, cells of {text, id, href})."""
    status = STATUSES[tongue.language].get(o.status, o.status)
    rows = [(tongue.t[role].format(language=one_line(tongue.target, 60)),
             [cell(effect_text(tongue, e), where(o, e), target(tongue.decision, e)) for e in o.of(role)]) for role in COLUMNS]
    plain = (("spent", spent(tongue, o) if o.spent.seconds else ""), ("serving", serving(tongue, o)),
             ("touched", "" if o.touched is None else percent(o.touched)))
    rows += [(tongue.t[what], [cell(text, anchor(o, what))] if text else []) for what, text in plain]
    rows += [(tongue.t["obliges"], [cell(tongue.reason(r)) for r in o.obligations])]
    return {"title": tongue.say("yes_no", method=tongue.method(o), status=status), "id": anchor(o, "became"),
            "why": [tongue.reason(r) for r in (o.reason, *o.notes)], "rows": [(head, cells) for head, cells in rows if cells]}


def cell(text: str, id: str = "", href: str = "") -> dict[str, str]:
    return {"text": text, "id": id, "href": href}


def effect_text(tongue: Tongue, e: Effect) -> Markup:
    return tongue.say("in_table", measure=measured(tongue, e, by_language=e.role == "other"), change=change(tongue, e))


def target(d: Decision, e: Effect) -> str:
    """The step of the report that an effect's number is from."""
    step: Sequence[str] = e.place.partition(":")
    return f"{d.report}#{views.anchor(step[0])}" if step[0] else d.report
