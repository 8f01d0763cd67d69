"""More steps for a run that has finished: when they may be asked for, and what they change."""

import dataclasses
import datetime
from pathlib import Path

from . import run_folder
from .config import TrainConfig
from .optim import make_schedule
from .run_folder import Extension


def requested(folder: Path, config: TrainConfig) -> Extension | None:
    """The steps that `config` adds to the run in `folder`, which is the same but for `run.steps`; None: nothing.

    Raises ValueError if the run has not finished or has more steps than that behind it.
    """
    before, after = run_folder.read_config(folder)[0].run.steps, config.run.steps
    if before == after:
        return None
    done = run_folder.steps_done(folder)
    if after <= done:
        raise ValueError(
            f"run.steps is {after:,}, but the run in {folder} has done {done:,} steps of {before:,}; steps cannot be "
            f"taken back: ask for more, or see what it has kept with `samjax export {folder} FILE --step N`"
        )
    last = next(reversed(run_folder.extensions(folder)), None)
    if last is not None and last.at == done:  # given more already, and nothing done since: the number may be changed
        before = last.steps_before
    elif done < before:
        raise ValueError(
            f"the run in {folder} is at step {done:,} of {before:,}, and run.steps is {after:,} now. The learning rate "
            "follows the number of steps, so it can be changed only when the run has finished: let it finish "
            f"(samjax train {folder / run_folder.CONFIG} --out {folder}) and give it more steps then, or give the new "
            f"run another folder; --model.init EXPORT starts it from this one's weights (samjax export {folder} EXPORT)"
        )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Extension(at=done, steps=after, steps_before=before, time=now)


def record(folder: Path, extension: Extension) -> None:
    """Writes it into the run's configuration, of which nothing else changes."""
    config, sam = run_folder.read_config(folder)[0], run_folder.network(folder)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=extension.steps))
    before = [known for known in run_folder.extensions(folder) if known.at != extension.at]
    kept = run_folder.thresholds(folder), run_folder.base(folder)
    run_folder.write_config(folder, config, sam, [*before, extension], *kept)


def explained(extension: Extension, config: TrainConfig) -> str:
    """The message about more steps at the run's console; `config` has their new number."""
    optim, at = config.optim, extension.at
    rate_before = float(make_schedule(optim, extension.steps_before)(max(at - 1, 0)))
    rate = float(make_schedule(optim, extension.steps)(at))
    text = f"the run had finished at step {at:,} and gets {extension.steps:,} steps in all; config.json notes it. "
    if optim.schedule == "constant":
        text += f"The learning rate stays {rate:.3g}"
    else:
        text += (
            f"Its schedule ({optim.schedule}) is laid over all {extension.steps:,} steps: the learning rate was "
            f"{rate_before:.3g} at step {at:,} and is {rate:.3g} at step {at + 1:,}"
        )
    if at >= optim.warmup_steps > 0:
        text += "; there is no second warm-up"
    was, now = (config.loss.balanced_until * steps for steps in (extension.steps_before, extension.steps))
    if config.loss.balanced and at < now:
        text += f"; the balanced cross-entropy falls to zero at step {now:,.0f} now, not at {was:,.0f}"
    return text
