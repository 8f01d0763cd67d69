"""`samjax train RECIPE`: a recipe, changed by the command line, becomes a run."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from samjax.names import printable

from . import configs, run_folder
from .automatic import settled
from .config import VALUES_OF_OTHERS, RunConfig, TrainConfig
from .cores import use_cores
from .data.report import TooManyBadRecords
from .loop import NotFinite, Outcome, run_network, train
from .metrics import JSONL, RETAINED, validations
from .trainable import warn_of_unread

USAGE = "usage: samjax train RECIPE [--out DIR] [--print-config] [--distributed] [--FIELD.SUB VALUE ...]"


@dataclasses.dataclass(frozen=True)
class Command:
    """The options beside the recipe."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help="The run's folder; continues a run it holds.")] = None
    print_config: Annotated[bool, tyro.conf.arg(help="Print the configuration as JSON and do nothing.")] = False
    distributed: Annotated[
        bool, tyro.conf.arg(help="One of several processes of a cluster that JAX recognises (TPU pods, Slurm, MPI).")
    ] = False


def main(args: Sequence[str]) -> int:
    """Runs the command and returns its exit status. Raises ValueError and OSError for what the user can mend."""
    if not args or args[0].startswith("-"):
        print(f"{USAGE}\n\nRECIPE is one of these, a Python file with a CONFIG like theirs, or a run's config.json:\n")
        for name in recipe_names():
            print(f"  {name:<16}{summary(name)}")
        print("\nsamjax train RECIPE --help lists every field with its value in that recipe.")
        print("samjax export RUN FILE writes the weights of a run.")
        return 0
    recipe, *rest = args
    command = tyro.cli(
        Command,
        prog=f"samjax train {recipe}",
        description=f"{_description(recipe)}\n\n{VALUES_OF_OTHERS}",
        default=Command(load_recipe(recipe)),
        args=rest,
    )
    if command.print_config:
        print(run_folder.to_json(command.config), end="")
        return 0
    if command.out is None:
        raise ValueError("--out DIR is missing: the folder for the run's checkpoints, curves and pictures")
    if command.distributed:
        jax.distributed.initialize()
    config, said = settled(command.config, command.out)
    if said and (not command.distributed or jax.process_index() == 0):
        print(said)
    warn_of_unread(config.tune)
    if not command.distributed and (said := use_cores(config, functools.partial(run_network, config, command.out))):
        print(said)
    if _is_saved(recipe) and not run_folder.is_started(command.out) and (more := run_folder.extensions(recipe)):
        warnings.warn(
            f"the run of {recipe} was given more steps when it had finished, at step {more[-1].at:,}; a new run has "
            f"one schedule over all {command.config.run.steps:,} steps, so its curve is another",
            stacklevel=2,
        )
    try:
        outcome = train(config, command.out)
    except (NotFinite, TooManyBadRecords) as error:
        print(f"samjax: error: {printable(str(error))}", file=sys.stderr)
        return 3
    if jax.process_index() == 0:
        print(_summary(outcome, command.config.run))
    return 0


def _summary(outcome: Outcome, run: RunConfig) -> str:
    """The scores of a run, and beside them those at its start."""
    state = "finished" if outcome.finished else "stopped; the same command continues"
    length = f"of {run.steps}" if run.minutes is None else f"in {run.minutes:g} minutes"
    lines = [f"{printable(outcome.folder)}: step {outcome.step} {length}, {state}"]
    told = False
    for kind in ("val", RETAINED):
        measured = validations(outcome.folder / JSONL, kind)
        if not measured:
            continue
        first, last = min(measured), max(measured)
        if not told:
            steps = f" at step {last}" if first == last else f", step {first} -> step {last}"
            lines.append(f"  validation{steps}")
            told = True
        for name, value in measured[last].items():
            shown = f"{kind}/{name:<{20 - len(kind) - 1}}"
            if name == "masks":
                lines.append(f"  {shown}{value:.0f}")
            else:
                before = f"{measured[first][name]:.4f} -> " if first != last and name in measured[first] else ""
                lines.append(f"  {shown}{before}{value:.4f}")
    if outcome.step:
        lines.append(f"the weights for other programs: samjax export {printable(outcome.folder)} FILE")
    if outcome.finished and run.minutes is None:
        lines.append(f"more steps: the same command with --run.steps above {run.steps}")
    return "\n".join(lines)


def recipe_names() -> list[str]:
    """The names of the recipes in `samjax.train.configs`, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load_recipe(name: str) -> TrainConfig:
    """A recipe by its name, one of the user's own in a Python file, or a run's saved configuration.

    Raises ValueError with the names that there are.
    """
    if name in recipe_names():
        return importlib.import_module(f"{configs.__name__}.{name}").CONFIG
    if name.endswith(".py") and Path(name).is_file():
        config = runpy.run_path(name).get("CONFIG")
        if not isinstance(config, TrainConfig):
            raise ValueError(f"{name} is no recipe: it defines no CONFIG that is a samjax.train.config.TrainConfig")
        return config
    if Path(name).exists():
        return run_folder.read_config(name)[0]
    raise ValueError(f"there is no recipe {name!r} and no file of that name; recipes are {', '.join(recipe_names())}")


def _is_saved(recipe: str) -> bool:
    """True if a recipe is a run's saved configuration, or its folder."""
    return recipe not in recipe_names() and not recipe.endswith(".py")


def summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return _description(name).partition(".\n")[0].partition("\n\n")[0].replace("\n", " ")


def _description(name: str) -> str:
    if name not in recipe_names():
        return f"The configuration in {name}."
    return inspect.getdoc(importlib.import_module(f"{configs.__name__}.{name}")) or ""
