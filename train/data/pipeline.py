"""Batches from a source, by grain: the seed and the step name a batch, on any number of processes and threads."""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from samjax.config import SamConfig
from samjax.readers.record import Source

from ..batch import Batch, cell_ratio
from ..config import DataConfig
from .mixing import MixedRows, MixedSource, OldData
from .report import BadRecords
from .rows import ExampleFields, LocalRows, Rows, TrainingRows, ValidationRows


class Pipeline:
    """Random access to the batches of a run: `batch_at` makes one, `batches` iterates from any step.

    Of each batch this process gets the rows that are its part; together the parts of all processes are the batch that a
    single process would get.
    """

    def __init__(
        self,
        config: DataConfig,
        source: Source,
        model: SamConfig,
        *,
        batch: int,
        seed: int,
        report: BadRecords,
        process_index: int = 0,
        process_count: int = 1,
        validation_images: int | None = None,
        old: OldData | None = None,
        views: int = 0,
        clicks: bool = False,
    ) -> None:
        """
        Args:
            batch: photos of a step, in all processes together.
            seed: of the order and the augmentation; no negative number.
            report: where bad records are noted.
            process_index: which part of each batch is ours, of `process_count`; see `samjax.train.prefetch.data_part`.
            validation_images: instead of training's endless shuffled epochs, one pass over the first so many records in
                the source's order, unaugmented; the last batch is padded with rows that have no valid mask.
            old: in training, data of which `config.mix_share` of the rows are; their records count from the end of
                `source`'s on.
            views: in training, fixed augmentations of each photo (`TrainingRows`); 0: another one each time.
            clicks: in training, batches have the first recorded clicks of masks.

        Raises:
            ValueError: a setting that cannot be met, an empty source, or a patch size that cells cannot have.
        """
        cell_ratio(model)
        if batch < 1 or batch % process_count:
            raise ValueError(f"run.batch must be a positive multiple of the {process_count} processes, got {batch}")
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index must lie in 0..{process_count - 1}, got {process_index}")
        if len(source) == 0 or (old is not None and len(old.source) == 0):
            raise ValueError("the data hold no records; check the sources' paths in data.train, data.val and data.mix")
        self.report, self.old = report, old
        self.new_records, self.new_share = len(source), 1.0
        if validation_images is not None:
            rows: Rows = ValidationRows(source, model, config, report, validation_images)
        else:
            rows = TrainingRows(source, model, config, report, seed, views, clicks=clicks)
            if old is not None:
                self.new_share -= config.mix_share
                old_rows = TrainingRows(old.source, model, config, old.report, seed, views, clicks=clicks)
                rows = MixedRows(rows, old_rows, config.mix_share)
                source = MixedSource(source, old.source)
        self.config, self.source = config, source
        self.batch, self.seed = batch, seed
        self.validation_images = validation_images
        self._rows = LocalRows(rows, batch, process_index, process_count)

    @property
    def steps(self) -> int:
        """The batches of a validation pass; in training, as many as there are positions to tell apart."""
        return self._rows.steps

    @property
    def photos(self) -> int:
        """How many photos there are to see: all of the source, or those that are validated on."""
        return len(self.source) if self.validation_images is None else min(self.validation_images, len(self.source))

    def epoch_at(self, step: int) -> float:
        """The number of times that the source has been gone through before a step, not counting old data."""
        return step * self.batch * self.new_share / self.new_records

    def batch_at(self, step: int) -> Batch:
        """Our part of the batch of a step, made here and now. Raises ValueError for a step that there is not."""
        if not 0 <= step < self.steps:
            raise ValueError(f"steps run from 0 to {self.steps - 1}, got {step}")
        start = step * self._rows.share
        return _stack([self._rows[index] for index in range(start, start + self._rows.share)])

    def batches(self, step: int = 0) -> "PipelineBatches":
        """Our parts of the batches from a step on, read ahead by threads and processes."""
        return PipelineBatches(self, step)

    @property
    def identity(self) -> dict[str, int]:
        """The values that, with the data's configuration, decide which batch a step names."""
        mixed = {} if self.old is None else {"mixed": len(self.old.source)}
        return {"seed": self.seed, "batch": self.batch, "records": self.new_records, **mixed}

    def _dataset(self, step: int) -> grain.IterDataset:
        share, config = self._rows.share, self.config
        rows = grain.MapDataset.source(self._rows)[step * share :]
        # Rows are megabytes, so no more wait than keep everyone busy. Batches are put together after the workers:
        # within them, their composition would depend on how many there are.
        buffer = max(-(-share // max(config.workers, 1)), 2 * config.threads)
        dataset = rows.to_iter_dataset(
            grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=buffer if config.threads else 0)
        )
        if config.workers:
            # grain asks for command-line flags of absl, which nobody has parsed here.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=2)
            )
        return dataset.batch(share, batch_fn=_stack)


class PipelineBatches:
    """An iterator over batches whose whole state is the step that comes next.

    The state is plain JSON. It does not depend on threads, workers and processes, so a run may resume with others.
    Close it, or use it as a context, to stop what reads ahead.
    """

    def __init__(self, pipeline: Pipeline, step: int = 0) -> None:
        self.pipeline, self.step = pipeline, step
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> "PipelineBatches":
        return self

    def __next__(self) -> Batch:
        if self.step >= self.pipeline.steps:
            raise StopIteration
        iterator: Any = self._iterator or iter(self.pipeline._dataset(self.step))
        self._iterator = iterator
        batch = next(iterator)
        self.step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The position, as plain JSON: the next step and `Pipeline.identity`."""
        return {"step": self.step, **self.pipeline.identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to where `get_state` was called. Raises ValueError for a state of other data or another batch size."""
        was = {name: value for name, value in state.items() if name != "step"}
        if was != self.pipeline.identity:
            raise ValueError(
                f"the saved position in the data belongs to {was}, but this run has {self.pipeline.identity}; "
                "continue with the same data, batch size and seed, or start a new run from the weights"
            )
        self.close()
        self.step = int(state["step"])

    def close(self) -> None:
        """Stops what reads ahead; the next batch starts it again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def __enter__(self) -> "PipelineBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stack(rows: Sequence[ExampleFields]) -> Batch:
    fields = {}
    for name, first in rows[0].items():
        # Into plain memory: what comes from worker processes lies in memory that is shared with them.
        fields[name] = np.empty((len(rows), *first.shape), first.dtype)
        np.stack([row[name] for row in rows], out=fields[name])
    return Batch(**fields)
