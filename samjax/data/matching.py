"""Which mask files belong to which photo, by their names."""

from collections import defaultdict
from collections.abc import Iterable

from samjax.data import files


def matched(
    images: str, masks: str, suffix: str, *, folders: bool = False
) -> tuple[list[tuple[str, tuple[str, ...]]], list[tuple[str, str]]]:
    """Photos with their mask files, sorted; and the flawed: names and reasons.

    A photo's file has its name, or that with `suffix`, in the same sub-folder, whatever the endings. With `folders`
    several files may lie in a folder that is called like the photo. Names are relative and have endings. Photos
    without a file are neither matched nor flawed. Raises ValueError where a folder is not there.
    """
    photo_names = files.names_in(images, files.PICTURES)
    mask_names = photo_names if images == masks else files.names_in(masks, files.PICTURES)
    if images == masks:  # what has the suffix is a mask, the rest are photos
        mask_names = [name for name in photo_names if stem(name).endswith(suffix)]
        photo_names = [name for name in photo_names if not stem(name).endswith(suffix)]
    photos, direct = _by_stem(photo_names), _by_stem(mask_names)
    inside: dict[str, list[str]] = defaultdict(list)
    for name in mask_names if folders else ():
        inside[name.rpartition("/")[0]].append(name)

    pairs, flawed, used = [], [], set()
    for key, names in photos.items():
        own = [*direct.get(key, ()), *direct.get(key + suffix, ())]
        found = own or inside.get(key, [])
        used.update(found)
        if len(names) > 1 and found:
            flawed += [(name, f"there are {len(names)} photos of this name, and one mask file") for name in names]
        elif len(own) > 1:
            flawed.append((names[0], f"there are several mask files of its name: {', '.join(own)}"))
        elif found:
            pairs.append((names[0], tuple(found)))
    flawed += [(f"{name} (masks)", "there is no photo of this name") for name in mask_names if name not in used]
    return pairs, flawed


def stem(name: str) -> str:
    """A relative name without its ending."""
    return name[: len(name) - len(files.ending(name))]


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[stem(name)].append(name)
    return dict(found)
