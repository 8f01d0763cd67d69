"""Label maps against label maps: metrics from one confusion matrix over all pixels of a data set (Long et al. 2015)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Integer

VOID = 255  # the label of pixels that are not judged


@dataclasses.dataclass(frozen=True)
class SemanticScores:
    """Shares between 0 and 1; a class that occurs in neither truth nor prediction has NaN and is in no mean."""

    pixel_accuracy: float
    mean_accuracy: float  # over classes that occur in the truth
    mean_iou: float  # over classes that occur in the truth or are predicted
    mean_dice: float
    accuracy: Float64[np.ndarray, " K"]  # by class
    iou: Float64[np.ndarray, " K"]
    dice: Float64[np.ndarray, " K"]


def confusion_matrix(
    truth: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "_ _"], classes: int, *, void: int | None = VOID
) -> Int[np.ndarray, "K K"]:
    """n_ij: how many pixels of class i are predicted to be of class j.

    Pixels whose TRUE label is `void` are left out. Raises ValueError where the maps differ in size, or where another
    label than 0 to classes - 1 occurs at a pixel that is judged; a prediction has no void.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the true map is {truth.shape} (height, width), the predicted one {predicted.shape}")
    judged = np.ones(truth.shape, bool) if void is None else truth != void
    row, column = truth[judged].astype(np.int64), predicted[judged].astype(np.int64)
    for name, labels in (("true", row), ("predicted", column)):
        strange = np.unique(labels[(labels < 0) | (labels >= classes)])
        if len(strange):
            raise ValueError(
                f"the {name} map has label(s) {', '.join(map(str, strange[:5]))}; with {classes} classes they are 0 to "
                f"{classes - 1}{'' if void is None or name == 'predicted' else f', and {void} for void'}"
            )
    return np.bincount(row * classes + column, minlength=classes**2).reshape(classes, classes)


def semantic_scores(confusion: Integer[np.ndarray, "K K"]) -> SemanticScores:
    """Pixel accuracy, mean accuracy, IoU and dice from n_ij (true i, predicted j).

    Raises ValueError for a matrix without a pixel.
    """
    correct = np.diag(confusion).astype(np.float64)
    true, predicted = confusion.sum(1), confusion.sum(0)
    if not true.sum():
        raise ValueError("no pixel was judged: every map is empty or void everywhere")
    accuracy = _shares(correct, true)
    iou = _shares(correct, true + predicted - np.diag(confusion))
    dice = _shares(2 * correct, true + predicted)
    means = (float(np.nanmean(values)) for values in (accuracy, iou, dice))
    return SemanticScores(float(correct.sum() / true.sum()), *means, accuracy, iou, dice)


def evaluate_label_maps(
    predicted_folder: str | Path, truth_folder: str | Path, classes: int | Sequence[str], *, void: int | None = VOID
) -> tuple[SemanticScores, Int[np.ndarray, "K K"]]:
    """Scores of a folder of label maps, and their confusion matrix.

    Files (pictures of one channel, or with a palette, whose pixels are labels) are paired by their names without
    ending; every true map needs a predicted one. `classes` is their number or their names.
    Raises FileNotFoundError or ValueError, naming the file.
    """
    count = classes if isinstance(classes, int) else len(classes)
    if count < 1:
        raise ValueError("there must be at least one class")
    truths, predictions = _label_maps(truth_folder), _label_maps(predicted_folder)
    missing = sorted(truths.keys() - predictions.keys())
    if missing:
        raise FileNotFoundError(
            f"{predicted_folder} lacks {len(missing)} of the {len(truths)} maps in {truth_folder}: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    confusion = np.zeros((count, count), np.int64)
    for name, path in truths.items():
        try:
            confusion += confusion_matrix(read_labels(path), read_labels(predictions[name]), count, void=void)
        except ValueError as error:
            raise ValueError(f"{predictions[name]} against {path}: {error}") from error
    return semantic_scores(confusion), confusion


def read_labels(path: str | Path) -> Integer[np.ndarray, "H W"]:
    """A picture whose pixels are labels: of one channel, 8 or 16 bits, or with a palette, whose indices count.

    Raises ValueError for a picture in colour.
    """
    from samjax.transforms import open_upright

    picture = open_upright(path)
    labels = np.asarray(picture)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path} is no label map but a picture of mode {picture.mode}; expected one channel of labels")
    return labels


def _label_maps(folder: str | Path) -> dict[str, Path]:
    """Files by their names without ending, in the order of the names."""
    found: dict[str, Path] = {}
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in (".png", ".tif", ".tiff", ".bmp", ".gif"):
            if path.stem in found:
                raise ValueError(f"{folder} has two maps called {path.stem}: {found[path.stem].name} and {path.name}")
            found[path.stem] = path
    if not found:
        raise FileNotFoundError(f"{folder} has no label maps; expected .png, .tif, .bmp or .gif files")
    return found


def _shares(part: Float64[np.ndarray, " K"], whole: Int[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
