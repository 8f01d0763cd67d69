"""Features on disk: within their budget, beside other runs and whatever else is in the folder."""

import os
import threading

import numpy as np
import pytest

from samjax.atomic import check_writable
from samjax.train.cached.store import DiskStore, make_room

PHOTO = {"image": np.zeros(1000, np.float32)}  # 4,000 bytes, and a header
OURS, OTHERS = "0" * 16, "f" * 16


def key(number):
    return f"{number:032x}"


def kept(folder):
    """Which photos there are, by weights."""
    files = sorted(folder.glob("features-*/*.safetensors"))
    return [(file.parent.name[-1], int(file.stem, 16)) for file in files]


def used_at(second, folder, weights, number):
    os.utime(folder / f"features-{weights}" / f"{key(number)}.safetensors", (second, second))


def test_features_give_way_one_by_one_those_used_least_recently_first_whatever_their_weights(tmp_path):
    own, other = (DiskStore(tmp_path, weights, 1_000_000) for weights in (OURS, OTHERS))
    for number in range(3):
        for store, weights, second in ((own, OURS, 2 * number + 1), (other, OTHERS, 2 * number + 2)):
            store.put(key(number), PHOTO)
            used_at(second, tmp_path, weights, number)
    assert len(kept(tmp_path)) == 6
    assert own.get(key(0)) is not None  # and is the one used last
    assert make_room(tmp_path, 17_500) < 17_500
    assert kept(tmp_path) == [("0", 0), ("0", 2), ("f", 2)]
    assert make_room(tmp_path, 17_500) == make_room(tmp_path, 0, needed=17_500)  # what is needed is not deleted
    assert make_room(tmp_path, 0) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_the_folder_within_its_budget(tmp_path):
    """Also where earlier runs from the same weights had other augmentations."""
    store = DiskStore(tmp_path, OURS, 20_000)
    for number in range(20):
        store.put(key(number), PHOTO)
        os.utime(tmp_path / f"features-{OURS}" / f"{key(number)}.safetensors", (number, number))
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 20_000 + 5_000
    assert kept(tmp_path)[-1] == ("0", 19)


def test_two_runs_keep_a_folder_within_its_budget(tmp_path):
    """Each counts what the other has written."""
    stores = [DiskStore(tmp_path, weights, 100_000) for weights in (OURS, OTHERS)]
    for number in range(20):
        for store in stores:
            store.put(key(number), PHOTO)
            assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 100_000 + 2 * 5_000


def test_two_runs_may_delete_what_the_other_is_about_to(tmp_path):
    stores = [DiskStore(tmp_path, weights, 100_000) for weights in (OURS, OTHERS)]

    def fill(store):
        for number in range(200):
            store.put(key(number), PHOTO)
            store.get(key(number // 2))

    threads = [threading.Thread(target=fill, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 100_000 + 2 * 5_000


def test_what_a_killed_run_left_half_written_is_counted_and_deleted(tmp_path, monkeypatch):
    from samjax import atomic

    with monkeypatch.context() as killed:
        killed.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
        killed.setattr(atomic.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.warns(UserWarning, match="cannot be written"):
            DiskStore(tmp_path, OURS, 1_000_000).put(key(1), PHOTO)
    assert kept(tmp_path) == []
    assert make_room(tmp_path, 1_000_000) > 4000
    assert make_room(tmp_path, 0) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_not_features_stays(tmp_path):
    foreign = [
        "precious/model.safetensors",
        "precious/sub/notes.txt",
        f"{OURS}/{key(1)}.safetensors",
        f"features-{OURS}/model.safetensors",
        f"features-{OURS}/notes.txt",
        f"features-mine/{key(1)}.safetensors",
        f"sub/features-{OURS}/{key(1)}.safetensors",
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(5000))
    DiskStore(tmp_path, OTHERS, 0).put(key(1), PHOTO)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(foreign)


def test_a_folder_that_becomes_unwritable_is_said_once(tmp_path):
    (tmp_path / "taken").write_text("no folder")
    store = DiskStore(tmp_path / "taken", OURS, 1_000_000)
    with pytest.warns(UserWarning, match="features cannot be written"):
        store.put(key(1), PHOTO)
    store.put(key(2), PHOTO)  # another warning would be an error
    assert store.get(key(1)) is None


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(ValueError, match=r"cache\.folder: cannot write into the folder .*taken/sub: Not a directory"):
        check_writable(tmp_path / "taken" / "sub", "cache.folder")
    check_writable(tmp_path / "new" / "sub")
    assert (tmp_path / "new" / "sub").is_dir()
