"""Everything that is shipped to be copied works: recipes, the outputs of `init`, and the recipes, commands and links in the docs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from polygraft import cli, embedded, gguf
from polygraft import recipe as engine
from polygraft.cli import fields
from polygraft.cli.group import OWN
from polygraft.cli.init import GOALS
from polygraft.config import parse
from polygraft.errors import RecipeError
from polygraft.files import MANIFEST
from polygraft.steps import TABLE

ROOT = Path(__file__).parent.parent.parent
SHIPPED = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("src/polygraft/demo/**/*.yaml")])
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
# texts that are not shipped: test_language_neurons and test_slam_stages plan and run these on made-up ones
ELSEWHERE = {"language-neurons.yaml", "slam.yaml", "slam-two-stages.yaml", "math-expert.yaml", "language-expert.yaml",
             "tuning-compared.yaml", "adapt-vocabulary-russian.yaml", "prune-study.yaml", "search-domain.yaml"}
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
TAG = re.compile(r"""<(?:img|a|source)\b[^>]*?(?:src|href|srcset)="(?P<target>[^"]+)\"""")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(*kinds: str) -> list:
    """Every fenced block of the pages of these kinds, named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [pytest.param(m["body"], id=f"{name(page)}:{text.count(chr(10), 0, m.start()) + 1}")
                  for m in FENCE.finditer(text) if m["kind"] in kinds]
    return found


# -------------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_a_shipped_recipe_is_understood(path):
    read = engine.read_recipe(path, TABLE)
    assert read.question, "a recipe that is shipped says what it asks"
    assert all(use.step.use == engine.find_step(TABLE, use.step.name).use for use in read.steps), "the newest version of every step"


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.yaml")), ids=name)
def test_the_head_of_a_recipe_says_where_its_files_lie(path):
    """One layout for all: shipped data linked as `recipes/data`, files made for one recipe in a folder of their own beside it."""
    text = path.read_text(encoding="utf-8")
    head = text.partition("recipe: 1")[0]
    files = set(re.findall(r"(?<![\w/.-])((?:[\w-]+/)+[\w.-]+\.(?:txt|jsonl|tsv)(?:\.gz|\.xz)?)", text.partition("steps:")[2]))
    steps = {use.id for use in engine.read_recipe(path, TABLE).steps}
    for file in sorted(f for f in files if f.partition("/")[0] not in steps):
        folder, _, rest = file.partition("/")
        if folder == "data":
            assert "ln -s /path/to/data recipes/data " in head and rest.partition("/")[0] in head, file
        else:
            assert f"mkdir recipes/{folder}" in head, file


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("lang", ["sw", "zh-Hant"])
def test_what_init_prints_is_understood(goal, lang, capsys):
    assert cli.run(["init", goal, "--lang", lang, "--model", "demo:smollm2"]) == 0
    read = engine.parse_recipe(capsys.readouterr().out, TABLE)
    assert read.steps and read.question


def test_slam_has_no_goal_in_english(capsys):
    assert cli.run(["init", "slam", "--lang", "en"]) == 2 and "from other languages to English" in capsys.readouterr().err


@pytest.mark.parametrize("goal", ["swap", "eval"])
@pytest.mark.parametrize("lang, task, langs", [("sw", "mgsm", ("en", "sw")), ("en", "mgsm", ("en",)), ("ko", "darumeru:ko", ("en", "ko"))])
def test_init_asks_what_the_language_has(goal, lang, task, langs, capsys):
    from polygraft.evals.jobs import entries, idle
    from polygraft.step import Context

    assert cli.run(["init", goal, "--lang", lang, "--model", "demo:smollm2"]) == 0
    config = engine.parse_recipe(capsys.readouterr().out, TABLE).steps[-1].config
    assert (config.tasks, config.langs, idle(config)) == ((task,), langs, [])
    assert lang in {e.language for e in entries(config, Context(model=str, data=Path))}


@pytest.mark.parametrize("path", [p for p in SHIPPED if "demo:" in p.read_text(encoding="utf-8") and p.name not in ELSEWHERE],
                         ids=name)
def test_a_recipe_on_the_embedded_model_plans_without_a_problem(path, tmp_path):
    if not (gguf.converted(embedded.SHA256) / MANIFEST).exists():
        pytest.skip("the embedded model is not in the cache; `polygraft inspect demo:smollm2` fetches it")
    planned = engine.plan(engine.read_recipe(path, TABLE), tmp_path, offline=True)
    assert [str(e) for e in planned.errors] == [] and all(s.key for s in planned.steps)


# ---------------------------------------------------------------------------------------------------------- in the docs


@pytest.mark.parametrize("text", [b for b in blocks("yaml") if b.values[0].startswith("recipe:")])
def test_a_recipe_in_the_docs_is_understood(text, tmp_path):
    assert engine.parse_recipe(text, TABLE, tmp_path).steps


def commands(text: str) -> list[str]:
    """Lines that start with `polygraft`, after a prompt if there is one, with their continuations."""
    lines = [line.removeprefix("$ ").partition(" #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("polygraft ")]


def context(words: list[str]) -> click.Context:
    """Click's view of a command line: verbs found, every option known and its value of the right type. Nothing is run."""
    at = click.Context(cli.root, info_name="polygraft")
    while isinstance(at.command, click.Group):
        verb = at.command.get_command(at, words[0]) if words else None
        if verb is None and OWN in getattr(at.command, "table", {}):  # a group that is a verb itself
            verb, words = at.command.load(at.command.table[OWN][0]), [at.info_name, *words]
        assert verb is not None, f"no verb {words[:1]} in {at.command_path}"
        at, words = click.Context(verb, parent=at, info_name=words[0]), words[1:]
        if isinstance(verb, click.Group) and words[:1] == ["--help"]:
            return at
    at.resilient_parsing = "--help" in words  # shows help instead of asking for what is missing
    at.command.parse_args(at, [w for w in words if w != "--help"])
    return at


@pytest.mark.parametrize("text", [b for b in blocks("console", "sh", "bash", "") if commands(b.values[0])])
def test_a_command_in_the_docs_has_its_verb_and_options(text):
    for line in commands(text):
        words = shlex.split(line)[1:]
        if words not in (["--help"], ["--version"]):
            context(words)


INLINE = re.compile(r"`(polygraft tune [^`]+)`")
TUNED = sorted({line for page in PAGES for text in (page.read_text(encoding="utf-8"),)
                for line in (*(x for m in FENCE.finditer(text) for x in commands(m["body"])), *INLINE.findall(FENCE.sub("", text)))
                if line.startswith("polygraft tune ") and " -" in line})


def config_of(line: str):
    """What a command of a verb of training asks for, with every rule of its config."""
    at = context(shlex.split(line)[1:])
    step = next(s for s in TABLE if s.name == f"tune.{at.info_name}")
    return parse(step.config, fields.gather(step.config.model_fields, at.params))


@pytest.mark.parametrize("line", TUNED)
def test_a_training_in_the_docs_is_one_that_may_be_asked_for(line):
    assert config_of(line).model


def test_a_training_that_may_not_be_asked_for_would_be_seen():
    with pytest.raises(RecipeError, match="without `replay`"):
        config_of("polygraft tune sft base --data a.jsonl --retain-share 0.2 --out tuned")


@pytest.mark.parametrize("line", ["mrge swap", "merge swap --taks x", "inspect", "eval x --limit many --chta"])
def test_a_wrong_command_would_be_seen(line):
    with pytest.raises((AssertionError, click.UsageError)):
        context(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [m["target"] for pattern in (LINK, TAG) for m in pattern.finditer(text)]
    broken = [t for t in targets if not re.match(r"[a-z]+:|#", t) and not (page.parent / t.partition("#")[0]).exists()]
    assert broken == []


def test_the_table_of_contents_names_every_page():
    index = ROOT / "docs" / "index.md"
    named = {(index.parent / m["target"].partition("#")[0]).resolve() for m in LINK.finditer(index.read_text(encoding="utf-8"))}
    missing = [name(p) for p in ROOT.glob("docs/**/*.md") if p != index and p.resolve() not in named]
    assert missing == []


def test_every_verb_has_a_page():
    pages = {p.stem for p in (ROOT / "docs" / "verbs").glob("*.md")}
    alone = {verb for verb, entry in cli.VERBS.items() if not isinstance(entry, dict)}
    within = {f"{group}-{verb}" for group in ("analyze", "tune", "vocab") for verb in cli.VERBS[group]}
    within |= {"prune", *(f"prune-{verb}" for verb in cli.VERBS["prune"] if f"prune-{verb}" in pages)}  # the others stand in its own
    within |= {f"merge-{verb}" for verb in ("auto", "search")}
    assert alone - {"plan", "run"} | within | {"plan-run", "merge", "ab"} == pages
