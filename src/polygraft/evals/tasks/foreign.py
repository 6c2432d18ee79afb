"""lm-eval's own tasks: `lm-eval:NAME`, or a YAML or folder in its format, run as lm-eval runs them, with our engine and records.

Such a file may run Python (`!function`, metrics fetched from the hub), and its templates are not sandboxed by lm-eval. Files of
lm-eval itself are as trusted as the package; any other that runs code is refused unless `trust_task_code` says otherwise, and
templates are sandboxed here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from polygraft.errors import InputError, RecipeError, UserError, suggestion

PREFIX = "lm-eval:"
LOCAL = frozenset({"json", "csv", "parquet", "text", "arrow"})  # dataset_path of data that lies in files
KEYS = frozenset({"dataset_path", "include", "group", "test_split", "validation_split", "custom_dataset"})
BINARY = frozenset({"acc", "acc_norm", "acc_bytes", "exact_match"})  # right or wrong, as lm-eval itself computes them
NAMED = re.compile(rb"^(?:task|group|tag): *[\"']?([\w.-]+)", re.MULTILINE)  # the names that a file of lm-eval's gives
LANGUAGE = "und"  # lm-eval's tasks do not say which language they are in


@dataclass(frozen=True)
class Foreign:
    """One task of lm-eval, loaded: `task` is its Task object, `shots` and `limit` what the evaluation asks of it."""

    name: str
    version: str
    task: Any
    shots: int
    limit: int | None

    @property
    def size(self) -> int:
        """Items that will be asked."""
        n = len(self.task.eval_docs)
        return n if self.limit is None else min(n, self.limit)


def is_foreign(word: str) -> bool:
    """Whether a task is named by lm-eval's name for it, or by a file or folder in its format."""
    if word.startswith(PREFIX) or Path(word).is_dir():
        return True
    return word.endswith((".yaml", ".yml")) and Path(word).is_file() and bool(KEYS & _keys(Path(word)))


def check(word: str, *, trusted: bool, offline: bool) -> None:
    """Refuse, before lm-eval is imported, what would run code or needs a network that may not be used. Raises UserError."""
    if word.startswith(PREFIX):
        named(word.removeprefix(PREFIX))
        if offline:
            raise InputError("lm-eval's tasks read their data from the hub, and this run is offline", where=word,
                             fix="name a task file whose data lies in files (`dataset_path: json`)")
        return
    if Path(word).is_dir() and not any(_keys(f) & (KEYS | {"task"}) for f in _files(Path(word))):
        model = (Path(word) / "config.json").is_file()
        raise InputError("a model's folder, not a task" if model else "no task files of lm-eval's kind in this folder", where=word,
                         expected="a folder of YAML files with `task:` and `dataset_path:`",
                         fix="name it as a model, and a task as `polygraft tasks` lists it" if model else "name a .yaml file, or a "
                         "task as `polygraft tasks` lists it")
    for path in _files(Path(word)):
        tree = _compose(path)
        for node, key, value in _entries(tree):
            where = f"{path}:{node.start_mark.line + 1}"
            if not trusted and _runs_code(node, key, value):
                raise InputError("this task file runs code", where=where, found=f"{key}: {value}"[:80],
                                 fix="read that code; if you trust it, set `trust_task_code: true`")
            if offline and key == "dataset_path" and value not in LOCAL:
                raise InputError("the task's data would come from the hub, and this run is offline", where=where, found=value,
                                 expected="one of " + ", ".join(sorted(LOCAL)) + " with `data_files`")


def named(name: str) -> None:
    """Refuse a name that none of lm-eval's files holds. Reading them as text takes a second; lm-eval's own index half a minute.

    Raises RecipeError with the nearest name.
    """
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return
    whole, known = re.compile(rb"(?<![\w.-])" + re.escape(name.encode()) + rb"(?![\w.-])"), set()
    for file in sorted(Path(spec.submodule_search_locations[0], "tasks").rglob("*.yaml")):
        raw = file.read_bytes()
        if whole.search(raw):
            return
        known.update(NAMED.findall(raw))
    raise RecipeError("lm-eval has no such task", found=name, fix=_near(name, [k.decode() for k in known]))


def _runs_code(node: yaml.Node, key: str, value: str) -> bool:
    tagged = node.tag.startswith("!")
    asks = key in ("trust_remote_code", "hf_evaluate", "unsafe_code") and value.lower() not in ("false", "no", "")
    return tagged or asks or (key in ("dataset_path", "class") and value.endswith(".py"))


def _files(path: Path) -> list[Path]:
    """The files that lm-eval may read for this one: its includes, and for a group or folder all beside it."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml") or p.name.endswith("_yaml"))
    entries = [(key, value) for _, key, value in _entries(_compose(path))]
    if any(key == "group" for key, _ in entries):
        return _files(path.parent)
    return [path, *(f for key, value in entries if key == "include" for f in _files(path.parent / value))]


def _compose(path: Path) -> yaml.Node:
    """The file as YAML nodes; nothing is constructed."""
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InputError("not a readable YAML file", where=path, found=str(e).replace("\n", " ")[:200]) from e
    if node is None:
        raise InputError("the file is empty", where=path, expected="a task")
    return node


def _entries(node: yaml.Node, key: str = "") -> Iterator[tuple[yaml.Node, str, str]]:
    """(node, key it stands under, text) of every scalar, and of everything that has a tag of its own."""
    if isinstance(node, yaml.MappingNode):
        for k, v in node.value:
            yield from _entries(v, str(k.value))
    elif isinstance(node, yaml.SequenceNode):
        for v in node.value:
            yield from _entries(v, key)
    else:
        yield node, key, str(node.value)
        return
    if node.tag.startswith("!"):
        yield node, key, node.tag


def _keys(path: Path) -> set[str]:
    try:
        node = _compose(path)
    except UserError:
        return set()
    found = {str(k.value) for k, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
    return set() if "source" in found else found


# ------------------------------------------------------------------------------------------------------------------ load


def load(word: str, *, shots: int | None, limit: int | None, seed: int, trusted: bool, offline: bool = False) -> list[Foreign]:
    """The tasks that a word stands for (a group is several), with their data. Raises UserError."""
    from lm_eval.tasks import TaskManager

    check(word, trusted=trusted, offline=offline)
    path = None if word.startswith(PREFIX) else Path(word)
    with quiet(sandbox=not trusted):
        if path is None:
            manager, wanted = TaskManager(), [word.removeprefix(PREFIX)]
            if wanted[0] not in manager.all_tasks:
                raise RecipeError("lm-eval has no such task", found=wanted[0], fix=_near(wanted[0], manager.all_tasks))
        elif path.is_dir():
            manager = TaskManager(include_path=str(path), include_defaults=False)
            wanted = list(manager.all_subtasks)
        else:
            manager, wanted = TaskManager(include_path=str(path.parent), include_defaults=False), [str(path)]
        try:
            found = manager.load(wanted)["tasks"]
        except UserError:
            raise
        except Exception as e:  # lm-eval and the hub's clients raise many kinds; all of them mean that the task did not load
            said = f"{type(e).__name__}: {e}"[:300]
            raise InputError("lm-eval could not load the task", where=word, found=said, fix="check the file and its data") from e
    if not found:
        raise InputError("no tasks of lm-eval's here", where=word, expected="YAML files with `task:`")
    return [_prepared(name, task, shots, limit, seed) for name, task in found.items()]


def _near(word: str, known: Sequence[str]) -> str:
    near = suggestion(word, known)
    return near if near.startswith("did you mean") else "`lm-eval ls tasks` lists them"


def _prepared(name: str, task: Any, shots: int | None, limit: int | None, seed: int) -> Foreign:
    if shots is not None:
        task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=seed)
    return Foreign(name, str(task.VERSION), task, int(task.config.num_fewshot or 0), limit)


# ------------------------------------------------------------------------------------------------------------------- run


@contextlib.contextmanager
def quiet(*, sandbox: bool = True) -> Iterator[None]:
    """Keep lm-eval's notices and progress bars off the terminal, and its templates away from Python's insides."""
    import datasets
    import lm_eval.api.task as module
    import lm_eval.utils as utils
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    logger = logging.getLogger("lm_eval")
    level, bar, env = logger.level, module.tqdm, utils.env
    logger.setLevel(logging.ERROR)
    module.tqdm = lambda found, **_: found
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bar()
    if sandbox:
        utils.env = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        utils.env.filters["regex_replace"] = utils.regex_replace
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bar()
        module.tqdm, utils.env = bar, env


def samples(lm: Any, foreign: Foreign, *, chat: bool, system: str, trusted: bool) -> list[dict[str, Any]]:
    """What lm-eval logged for every item (and every filter of its answers). Raises InputError when lm-eval fails."""
    from lm_eval.evaluator import evaluate

    try:
        with quiet(sandbox=not trusted):
            found = evaluate(lm=lm, task_dict={"tasks": {foreign.name: foreign.task}}, limit=foreign.limit, bootstrap_iters=0,
                             apply_chat_template=chat, system_instruction=system or None, fewshot_as_multiturn=chat,
                             confirm_run_unsafe_code=trusted)
    except UserError:
        raise
    except Exception as e:  # the task's templates, filters and metrics are its author's
        raise InputError("lm-eval could not run the task", where=foreign.name, found=f"{type(e).__name__}: {e}"[:300],
                         fix="check the task's file") from e
    assert found is not None
    return sorted(found["samples"][foreign.name], key=lambda s: s["doc_id"])


def records(foreign: Foreign, logged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record an item; a metric that lm-eval averages over numbers of items becomes columns (value, 1), others are left out."""
    from polygraft.evals.records import prompt_hash

    out: dict[int, dict[str, Any]] = {}
    several = len({s["filter"] for s in logged}) > 1
    for s in logged:
        prompt = str(s["arguments"][0][0])
        row = out.setdefault(s["doc_id"], {
            "id": str(s["doc_id"]), "language": LANGUAGE, "prompt": prompt, "shots": foreign.shots,
            "prompt_sha256_16": prompt_hash(prompt), "gold": _plain(s["target"]), **_answered(s), "seconds": 0.0, "scores": {}})
        for name in s["metrics"]:
            key, value = _key(foreign.task, name, s["filter"] if several else ""), s[name]
            if key and isinstance(value, int | float):
                row["scores"][key] = [float(value), 1.0] if math.isfinite(value) else [0.0, 0.0]
    return list(out.values())


def _answered(sample: dict[str, Any]) -> dict[str, Any]:
    first = sample["filtered_resps"][0]
    if isinstance(first, tuple | list) and len(first) == 2:
        nats = [-float(r[0]) for r in sample["filtered_resps"]]
        return {"choices": [str(a[1]) for a in sample["arguments"]], "choice_nats": nats}
    return {"output": str(_plain(first))}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else str(value)


def _key(task: Any, name: str, kept: str) -> str:
    """The metric's name in records, from which `metrics.get` makes it again (`lm-eval:acc:binary`); "" for what is no mean."""
    if getattr(task.aggregation().get(name), "__name__", "") not in ("mean", "nanmean"):
        return ""
    binary = name in BINARY and task.config.process_results is None
    lower = task.higher_is_better().get(name) is False
    return PREFIX + name + (f" ({kept})" if kept else "") + ":binary" * binary + ":lower" * lower
