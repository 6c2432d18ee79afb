"""`polygraft`: verbs, no logic. A verb is imported when it is called, so that `--help` answers at once."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import click

from polygraft import __version__
from polygraft.cli.group import Verbs
from polygraft.errors import UserError

# verb -> (where it lives, one line for --help). A value of the form {sub: ...} is a group; "" in it is the group's own name.
VERBS: dict = {
    "demo": ("polygraft.cli.demo:demo", "Everything on a small real model, offline, in minutes; ends in report.html."),
    "init": ("polygraft.cli.init:init", "Print a commented recipe for a goal."),
    "plan": ("polygraft.cli.recipes:plan", "Say what a recipe will do, need and fail at; headers only."),
    "run": ("polygraft.cli.recipes:run", "Do a recipe; the same command resumes."),
    "report": ("polygraft.cli.recipes:report", "Write a run's report.html again."),
    "verify": ("polygraft.cli.recipes:verify", "Compare a folder with its manifest: any flipped bit, missing or extra file."),
    "inspect": ("polygraft.cli.models:inspect", "Show a model's anatomy; --check proves it on the live model."),
    "ask": ("polygraft.cli.models:ask", "Ask one or more models, answers side by side."),
    "analyze": {
        "delta": ("step:analyze.delta", "What changed between checkpoints, per layer and matrix."),
        "activity": ("step:analyze.activity", "Read text once: what every neuron and layer does in each language, for the others."),
        "neurons": ("step:analyze.neurons", "Which FFN neurons belong to a language: LAPE and others, beside chance."),
        "deviation": ("step:analyze.deviation", "Which layers deal with languages, and the layers to tune for it."),
        "subspace": ("step:analyze.subspace", "Which directions of the stream tell languages apart."),
        "tokenizer": ("step:analyze.tokenizer", "What tokenizers do to text, side by side, and what their vocabularies hold."),
    },
    "steer": ("step:steer", "Run a model with neurons or its residual stream edited; what that changes, beside random edits."),
    "merge": {
        "swap": ("step:merge.swap", "Bottom and top layers of a language expert, the middle of a task expert."),
        "soup": ("step:merge.soup", "Weighted average of models."),
        "task": ("step:merge.task", "Task arithmetic: base plus scaled differences."),
        "ties": ("step:merge.ties", "TIES: trim, elect signs, merge what agrees."),
        "dare-ties": ("step:merge.dare_ties", "DARE: drop at random and rescale, then TIES."),
        "revert": ("step:merge.revert", "Train-then-revert: an expert with some layers put back to its base."),
        "slerp": ("step:merge.slerp", "Spherical interpolation, tensor by tensor."),
        "search": ("step:merge.search", "Which layers from which expert: candidates evaluated unwritten, the best confirmed."),
        "auto": ("step:merge.auto", "Layers chosen by what training changed, beside the paper's default, soup and chance."),
    },
    "tune": {
        "sft": ("step:tune.sft", "Supervised fine-tuning, full or LoRA, loss on answers only."),
        "slam": ("step:tune.slam", "Teach a model that reasons in English other languages: up and down of a few layers."),
        "lora": ("step:tune.lora", "An adapter on chosen parts, layers or neurons."),
        "partition": ("step:tune.partition", "A task and a language at once, each in a part of the model that is its own."),
        "neurons": ("step:tune.neurons", "Train chosen FFN neurons and nothing else."),
        "embeddings": ("step:tune.embeddings", "Train rows of the embedding and the output head: new words, or all."),
    },
    "vocab": {
        "assess": ("step:vocab.assess", "Before anything is trained: what another vocabulary gains and costs, and which way fits."),
        "train": ("step:vocab.train", "A new tokenizer in place of a model's, BPE or Unigram."),
        "extend": ("step:vocab.extend", "Further merges for a model's BPE tokenizer; every old id stays, or the least used go."),
        "trim": ("step:vocab.trim", "Take tokens that some languages do not use out of tokenizer and model."),
        "init": ("step:vocab.init", "A model takes on a new tokenizer: rows of new tokens are made of old ones."),
        "propagate": ("step:vocab.propagate", "Give an instruct model the vocabulary that a donor learned on its base."),
        "calibrate": ("step:vocab.calibrate", "Examples that teach an adapted model its new tokens: copies, its own answers."),
        "gate": ("step:vocab.gate", "May an adapted model take its start's place: copies, bits per byte, files; exit 6 if not."),
    },
    "prune": {
        "": ("step:prune", "Weights that text in some languages needs least become zero."),
        "study": ("step:prune.study", "What the language of calibration does: every language's text against every language."),
        "plan": ("step:prune.plan", "What pruning would leave on disk and in memory, and where it would be faster: headers only."),
        "lowbit": ("step:prune.lowbit", "What rounding weights to few bits costs every language, by what it is calibrated on."),
        "experts": ("step:prune.experts", "Take experts out of a mixture: those that text in some languages needs least."),
        "text": ("step:prune.text", "Calibration text in the model's own words, in every language."),
        "gram": ("step:prune.gram", "Read text in every language once, to score any mask or mixture without reading again."),
        "score": ("step:prune.score", "What masks and mixtures cost every language, from what `gram` kept."),
        "imatrix": ("step:prune.imatrix", "An importance matrix for llama.cpp's quantiser, from text in several languages."),
        "depth": ("step:prune.depth", "Take out whole layers: those that change text least, in any language."),
    },
    "world": ("step:world", "Make a small world of artificial languages, with texts, tasks and a model to train."),
    "poc": ("polygraft.cli.poc:poc", "A proof of concept: methods that apply, at equal budget, one decision report."),
    "watch": ("polygraft.cli.watch:watch", "A scheduled check of a model against its first ancestor: drift over many updates."),
    "tasks": ("polygraft.cli.tasks:tasks", "What can be asked; check a task file and see its first item."),
    "eval": ("step:eval", "Score models with intervals and paired tests."),
    "compare": ("polygraft.cli.compare:compare", "Finished evaluations: which checkpoint or method is better, worse, neither."),
    "ab": {
        "write": ("polygraft.cli.ab:write", "Two models' answers side by side without names, for a person to choose from."),
        "read": ("polygraft.cli.ab:read_", "What was chosen: wins, ties, losses, sign tests."),
    },
}
GROUP_HELP = {"analyze": "Find where language and skill live in a model.", "merge": "Graft experts into one model.",
              "tune": "Train.", "vocab": "Fit a model's vocabulary to a language.",
              "prune": "Weights that text in some languages needs least become zero.", "ab": "Compare two models blind, by people."}


def load(target: str) -> click.Command:
    """The command that a table entry names."""
    module, _, name = target.partition(":")
    if module == "step":
        from polygraft.cli.verb import step_command

        return step_command(name)
    return getattr(import_module(module), name)


@click.pass_context
def _root(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"polygraft {__version__}")
        ctx.exit()


CODES = ("Exit codes: 0 ok, 1 our bug, 2 recipe or usage, 3 input refused, 4 resources, 5 step failed, 6 criteria not met, "
         "130 interrupted. Every verb has --help.")
VERSION = click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")
root = Verbs(VERBS, load, GROUP_HELP, name="polygraft", callback=_root, invoke_without_command=True, epilog=CODES, params=[VERSION],
             help="Make an open decoder LLM good at another language, cheaply, and prove what it cost.")


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with a documented code; a traceback is shown only when asked for."""
    sys.exit(run(sys.argv[1:] if args is None else args))


def run(args: list[str]) -> int:
    """The exit code of one command line."""
    try:
        code = root.main(args=args, prog_name="polygraft", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as e:
        e.show()
        return 2
    except UserError as e:
        click.echo(click.style("error: ", fg="red", bold=True) + e.render(), err=True)
        return e.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command goes on where it stopped", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FileNotFoundError as e:
        if e.filename is not None:
            return _bug(e)
        click.echo("error: the current folder is gone\n  fix: change to a folder that exists", err=True)
        return 4
    except OSError as e:
        if e.errno != errno.ENOSPC:
            return _bug(e)
        click.echo("error: no room to write the output\n  fix: free some room, or write elsewhere", err=True)
        return 4
    except MemoryError:
        click.echo("error: out of memory\n  fix: `polygraft plan` says how much a step needs", err=True)
        return 4
    except Exception as e:
        return _bug(e)


def _bug(e: Exception) -> int:
    """Own up to it; the traceback is for those who ask."""
    if os.environ.get("POLYGRAFT_TRACEBACK"):
        raise e
    click.echo(f"error: this is a bug in polygraft: {type(e).__name__}: {e}\n"
               "  fix: please report it with the output of the same command under POLYGRAFT_TRACEBACK=1", err=True)
    return 1
