"""Matching of mask files with photos by their names."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from samjax.readers import files
from samjax.readers.left_out import Problem, Reason, Tally

# What tools put behind a photo's name for its mask, in upper or lower case: cellpose, ISIC, Carvana, samjax and others.
SUFFIXES = ("_mask", "_masks", "_cp_masks", "_label", "_labels", "_gt", "_seg", "_segmentation")
NAMES = f"NAME, {', '.join(f'NAME{suffix}' for suffix in SUFFIXES)}; endings {', '.join(files.PICTURES)}"

Matches = list[tuple[str, tuple[str, ...]]]  # photos with their mask files


def match_photos(
    images: str, masks: str, suffix: str, *, folders: bool = False
) -> tuple[Matches, list[Problem], Tally]:
    """Photos with their mask files, sorted; the flawed; and how many photos have no mask file, which are neither.

    A photo's file has its name, or that with one of `SUFFIXES`, in the same sub-folder, whatever the endings. Its own
    name and that with `suffix`, the format's own, come first; what has another suffix is looked at where there is
    neither. With `folders` several files may lie in a folder that is called like the photo. Names are relative and have
    endings. Where photos and masks share a folder, a mask is what is called like a photo there with a suffix.

    Raises ValueError if a folder is not there.
    """
    photo_names = files.names_in(images, files.PICTURES)
    mask_names = photo_names if images == masks else files.names_in(masks, files.PICTURES)
    if images == masks:
        photo_names, mask_names = _told_apart(photo_names)
    photos, found = _by_stem(photo_names), _by_stem(mask_names)
    inside: dict[str, list[str]] = defaultdict(list)
    for name in mask_names if folders else ():
        inside[name.rpartition("/")[0]].append(name)

    first, second = defaultdict(list), defaultdict(list)  # by the stem of the photo: files by the two kinds of name
    flawed, used = [], set()
    for key, names in found.items():
        owners = [(key, "")] if key in photos else [owner for owner in _owners(key) if owner[0] in photos]
        if len(owners) > 1:
            several = " and ".join(photos[owner][0] for owner, _ in owners)
            flaw = f"it may be the mask of {several}: rename it to one of them, with the mask's ending"
            flawed += [_stray(name, flaw, Reason.AMBIGUOUS) for name in names]
            used.update(names)
        for owner, its in owners if len(owners) == 1 else ():
            (first if its in ("", suffix) else second)[owner] += names
            used.update(names)

    pairs = []
    for key, names in photos.items():
        own = first[key] or second[key]
        mask_files = own or inside.get(key, [])
        used.update(mask_files)
        if len(names) > 1 and mask_files:
            flaw = f"there are {len(names)} photos of this name, and one mask file"
            flawed += [Problem(name, flaw, Reason.AMBIGUOUS) for name in names]
        elif len(own) > 1:
            flaw = f"there are several mask files of its name: {', '.join(own)}"
            flawed.append(Problem(names[0], flaw, Reason.AMBIGUOUS))
        elif mask_files:
            pairs.append((names[0], tuple(mask_files)))
    elsewhere = _by_last(photo_names)
    flawed += [_without_photo(name, elsewhere) for name in mask_names if name not in used]
    matched_photos = {name for name, _ in pairs} | {flaw.what for flaw in flawed}
    missing = sum(name not in matched_photos for name in photo_names)
    return pairs, flawed, Tally(+Counter({Reason.NO_ANNOTATIONS.value: missing}))


def stem(name: str) -> str:
    """A relative name without its ending, ".ome.tif" being one."""
    bare = name[: len(name) - len(files.ending(name))]
    is_ome = files.ending(name) in (".tif", ".tiff") and bare.lower().endswith(".ome")
    return bare[: -len(".ome")] if is_ome else bare


def _owners(key: str) -> Iterator[tuple[str, str]]:
    """The stems that a mask's stem may belong to, each with the suffix that it then has."""
    for suffix in SUFFIXES:
        if key.lower().endswith(suffix) and not key[: -len(suffix)].endswith("/") and len(key) > len(suffix):
            yield key[: -len(suffix)], suffix


def _told_apart(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Photos and masks of one folder.

    A mask is called like a photo with a suffix. What has a suffix without such a photo is one itself where there is a
    mask for it; else it is a mask whose photo is missing.
    """
    stems = {stem(name) for name in names}
    masks: set[str] = set()
    for key in sorted(stems, key=len):  # photos have shorter names than their masks
        if any(owner in stems and owner not in masks for owner, _ in _owners(key)):
            masks.add(key)
    owned = {owner for key in masks for owner, _ in _owners(key)}
    masks |= {key for key in stems - owned if any(_owners(key))}
    return [name for name in names if stem(name) not in masks], [name for name in names if stem(name) in masks]


def _without_photo(name: str, elsewhere: dict[str, list[str]]) -> Problem:
    last = stem(name).rpartition("/")[2]
    candidates = [last, *(owner for owner, _ in _owners(last))]
    others = [photo for candidate in candidates for photo in elsewhere.get(candidate, ())]
    if len(others) > 1:
        flaw = f"it may belong to {' or '.join(others[:5])}: put it into the sub-folder of its photo"
        return _stray(name, flaw, Reason.AMBIGUOUS)
    flaw = "there is no photo of this name, nor of what stands before its suffix"
    if others:
        flaw = f"there is no photo of this name in its sub-folder, but {others[0]}: put it into the same one"
    return _stray(name, flaw, Reason.NO_PHOTO)


def _stray(name: str, flaw: str, reason: Reason) -> Problem:
    return Problem(f"{name} (masks)", flaw, reason, stray="files")


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[stem(name)].append(name)
    return dict(found)


def _by_last(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their stems without sub-folders."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[stem(name).rpartition("/")[2]].append(name)
    return found
