"""What was found about subspaces in sentences, and what it cannot tell."""

from __future__ import annotations

from polygraft.analysis.subspace.found import Found
from polygraft.analysis.subspace.tables import figures, latent
from polygraft.result import Estimate

CAVEATS = (
    "A direction that tells languages apart need not be used by the model: only an edit (`polygraft steer`) can tell.",
    "In a model that speaks one language, languages are told apart by script and by how their words fall into pieces.",
)


def summary(found: Found) -> tuple[str, ...]:
    """Where language weighs most, where it can be told, and what the lens sees."""
    return (_weight(found), _probe(found), _silhouette(found), *_lens(found))


def _percent(e: Estimate) -> str:
    return f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}]"


def _weight(found: Found) -> str:
    top, low = (pick(range(1, found.depths), key=lambda d: found.energies[d].specific.mean()) for pick in (max, min))
    f, e = figures(found, top), found.energies[top]
    least = figures(found, low)["specific"]
    return (f"Language weighs most after layer {top - 1} and least after layer {low - 1}: {found.spaces[top].rank} of "
            f"{found.hidden} directions hold {_percent(f['specific'])} and {_percent(least)} of the mean state; at the most they "
            f"hold {_percent(f['language'])} of what differs between languages and {_percent(f['content'])} of what differs "
            f"between texts of one language (spread evenly: {e.chance:.2%}).")


def _probe(found: Found) -> str:
    depths = range(1, found.depths)
    accuracy = [found.separations[d].accuracy for d in depths]
    chance = f"chance is {1 / len(found.languages):.1%}"
    best = depths[accuracy.index(max(accuracy))]
    said = f"A linear probe names the language of other text in {_percent(figures(found, best)['probe'])}"
    if min(accuracy) == max(accuracy):
        return f"{said} after every layer; {chance}."
    worst = depths[accuracy.index(min(accuracy))]
    return f"{said} after layer {best - 1}, and in {_percent(figures(found, worst)['probe'])} after layer {worst - 1}; {chance}."


def _silhouette(found: Found) -> str:
    top = max(range(1, found.depths), key=lambda d: found.separations[d].silhouette)
    s = figures(found, top)["silhouette"]
    return (f"Languages stand apart most after layer {top - 1}: silhouette {s.value:.2f} [{s.low:.2f}, {s.high:.2f}], "
            f"{found.separations[top].silhouette_chance:.2f} with languages dealt anew.")


def _lens(found: Found) -> list[str]:
    """For each language of text: from which layer on its own tokens lead, and which other language's lead elsewhere."""
    if found.lens is None:
        return []
    said, leads = [], latent(found)
    for k, language in enumerate(found.languages):
        mine = next((d for d in range(1, found.depths) if all(leads[k, d:] == k)), None)
        till = "its own tokens do not lead at the end" if mine is None else f"its own tokens lead from layer {mine - 1} to the end"
        others = [found.languages[i] for i in leads[k, 1:] if i >= 0 and i != k]
        most = max(sorted(set(others)), key=others.count, default="")
        said.append(f"Logit lens on text in {language}: {till}"
                    + (f"; those of {most} lead after {others.count(most)} of {found.depths - 1} layers." if most else "."))
    return said
