"""Photos of a folder, a file, uploads and annotated sources; nothing else can be reached."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from example_app import id_of
from example_models import random_photo
from PIL import Image


@pytest.fixture
def library(folder, tmp_path):
    from samjax.app.library import Library

    return Library(str(folder), tmp_path / "out")


def names(library) -> list[str]:
    return [entry.name for entry in library.photos()]


def received(library, data: bytes):
    file = library.receive()
    file.write(data)
    return file


def png(photo: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "PNG")
    return data.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_ids_are_of_names_and_stay(library, folder, tmp_path):
    from samjax.app.library import Library, photo_id

    assert names(library) == ["a.png", "broken.jpg", "more/b.png"]
    ids = [entry.id for entry in library.photos()]
    assert ids == [entry.id for entry in Library(str(folder), tmp_path / "elsewhere").photos()]
    assert ids[0] == photo_id("a.png") == "7f071235805fbf58"
    assert len(set(ids)) == 3


def test_a_photo_is_what_the_library_reads(library, folder):
    from samjax import read_image
    from samjax.app.library import photo_id
    from samjax.embeddings import image_hash

    photo = library.read(photo_id("more/b.png"))
    np.testing.assert_array_equal(photo.rgb, read_image(folder / "more/b.png"))
    assert (photo.size, photo.hash) == ((75, 50), image_hash(photo.rgb))


def test_an_unreadable_photo_says_why_without_paths_and_others_are_read(library, folder):
    from samjax.app.library import UnreadablePhoto, photo_id

    with pytest.raises(UnreadablePhoto, match=r"^broken\.jpg: the file cannot be read as an image") as caught:
        library.read(photo_id("broken.jpg"))
    assert str(folder) not in str(caught.value)
    assert library.read(photo_id("a.png")).size == (60, 90)


def test_a_repaired_photo_is_read_and_a_changed_one_is_another(library, folder):
    from samjax.app.library import UnreadablePhoto, photo_id

    with pytest.raises(UnreadablePhoto):
        library.read(photo_id("broken.jpg"))
    Image.fromarray(random_photo(30, 40)).save(folder / "broken.jpg")
    first = library.read(photo_id("broken.jpg"))
    Image.fromarray(random_photo(31, 40)).save(folder / "broken.jpg")
    assert library.facts(photo_id("broken.jpg")).size == (31, 40)
    assert library.read(photo_id("broken.jpg")).hash != first.hash


def test_photos_that_appear_are_listed(library, folder, monkeypatch):
    monkeypatch.setattr("samjax.app.library._RESCAN", 0.0)
    names(library)
    Image.fromarray(random_photo(20, 20)).save(folder / "new.png")
    assert "new.png" in names(library)
    (folder / "new.png").unlink()
    assert "new.png" not in names(library)


@pytest.mark.parametrize("id", ["../a.png", "a.png", "", "a" * 16, "\0", "..%2fa.png"])
def test_only_ids_that_were_given_out_are_photos(library, id):
    from samjax.app.library import UnknownPhoto

    with pytest.raises(UnknownPhoto):
        library.read(id)


def test_links_out_of_the_folder_are_not_followed(library, folder, tmp_path):
    from samjax.app.library import UnreadablePhoto, photo_id

    Image.fromarray(random_photo(20, 20)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to(folder / "a.png")
    (tmp_path / "secrets").mkdir()
    Image.fromarray(random_photo(20, 20)).save(tmp_path / "secrets/s.png")
    (folder / "linked").symlink_to(tmp_path / "secrets")
    assert "linked/s.png" not in names(library)
    with pytest.raises(UnreadablePhoto, match="a link out of the folder"):
        library.read(photo_id("link.png"))
    assert library.read(photo_id("inside.png")).size == (60, 90)


def test_a_photo_that_becomes_a_link_is_not_followed_either(library, folder, tmp_path):
    from samjax.app.library import UnreadablePhoto, photo_id

    Image.fromarray(random_photo(20, 20)).save(tmp_path / "secret.png")
    names(library)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UnreadablePhoto, match="a link out of the folder"):
        library.read(photo_id("a.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_what_is_no_file_is_no_photo(library, folder):
    from samjax.app.library import UnreadablePhoto, photo_id

    os.mkfifo(folder / "pipe.png")
    with pytest.raises(UnreadablePhoto):
        library.read(photo_id("pipe.png"))


def test_one_image_is_a_library(folder, tmp_path):
    from samjax.app.library import Library, photo_id

    library = Library(str(folder / "more/b.png"), tmp_path / "out")
    assert names(library) == ["b.png"]
    assert library.read(photo_id("b.png")).size == (75, 50)


def test_a_missing_folder_is_an_error(tmp_path):
    from samjax.app.library import Library

    with pytest.raises(ValueError, match="there is no image or folder"):
        Library(str(tmp_path / "missing"), tmp_path / "out")


def test_annotated_photos_come_with_their_records(tmp_path):
    from samjax.app.library import Library

    for name, data in (("images", random_photo(40, 50)), ("maps", np.eye(40, 50, dtype=np.uint8))):
        (tmp_path / name).mkdir()
        Image.fromarray(data).save(tmp_path / name / "x.png")
    library = Library(f"labelmap={tmp_path / 'images'},{tmp_path / 'maps'}", tmp_path / "out")
    (entry,) = library.photos()
    assert entry.name.startswith("labelmap/x")
    np.testing.assert_array_equal(library.read(entry.id).rgb, random_photo(40, 50))
    assert len(library.record(entry.id).masks) == 1


def test_photos_beyond_the_bounds_are_not_decoded(folder, tmp_path):
    from samjax.app.library import Library, UnreadablePhoto, photo_id

    (folder / "bomb.png").write_bytes(png_that_claims(60_000, 60_000))
    library = Library(str(folder), tmp_path / "out")
    with pytest.raises(UnreadablePhoto, match=r"bomb.png: .*pixels"):
        library.read(photo_id("bomb.png"))
    small = Library(str(folder), tmp_path / "out", most_pixels=60 * 90 - 1)
    with pytest.raises(UnreadablePhoto, match=r"it has 90 x 60 pixels; at most 0.005399 megapixels are read"):
        small.read(photo_id("a.png"))
    short = Library(str(folder), tmp_path / "out", most_bytes=100)
    with pytest.raises(UnreadablePhoto, match="at most 100 are read"):
        short.read(photo_id("a.png"))


def test_memory_is_bounded_and_facts_stay(folder, tmp_path):
    from samjax.app.library import Library, photo_id

    library = Library(str(folder), tmp_path / "out", memory=60 * 90 * 3)
    first = library.read(photo_id("a.png"))
    assert library.read(photo_id("a.png")) is first
    library.read(photo_id("more/b.png"))
    assert library.facts(photo_id("a.png")).hash == first.hash
    assert library.read(photo_id("a.png")) is not first


class TestUploads:
    def test_an_upload_is_a_photo_from_then_on(self, library, tmp_path):
        data = png(random_photo(33, 44))
        entry = library.add("dog.png", received(library, data))
        assert entry.name == "uploads/dog.png"
        assert library.read(entry.id).size == (33, 44)
        assert (tmp_path / "out/photos/dog.png").read_bytes() == data

    def test_what_a_killed_server_left_is_swept_away(self, library, tmp_path):
        received(library, b"half").finish()
        library.add("dog.png", received(library, png(random_photo(33, 44))))
        library.sweep()
        assert [file.name for file in (tmp_path / "out/photos").iterdir()] == ["dog.png"]

    def test_nothing_is_overwritten(self, library, tmp_path):
        first, second = png(random_photo(33, 44)), png(random_photo(22, 11))
        library.add("dog.png", received(library, first))
        again = library.add("DOG.png", received(library, second))
        assert again.name == "uploads/DOG (2).png"
        assert (tmp_path / "out/photos/dog.png").read_bytes() == first

    @pytest.mark.parametrize(
        ("name", "kept"),
        [
            ("../../etc/x.png", "x.png"),
            ("C:\\photos\\x.PNG", "x.png"),
            ("/abs/olute.jpg", "olute.jpg"),
            ("a\0b\n<c>.png", "a_b__c_.png"),
            ("...png.png", "png.png"),
            ("con.png", "_con.png"),
            ("Müller 2.jpeg", "Müller 2.jpeg"),
            ("x" * 300 + ".png", "x" * 80 + ".png"),
        ],
    )
    def test_names_are_made_safe(self, name, kept):
        from samjax.app.library import safe_name

        assert safe_name(name) == kept

    @pytest.mark.parametrize("name", ["", ".png", "x.exe", "x", "..", "x.png/..", "x.svg"])
    def test_names_of_no_photo_are_refused(self, name):
        from samjax.app.library import safe_name
        from samjax.app.steps import BadRequest

        with pytest.raises(BadRequest, match="a photo's name ends with one of"):
            safe_name(name)

    @pytest.mark.parametrize("kind", ["truncated", "bomb", "text", "empty"])
    def test_what_cannot_be_read_is_not_kept(self, library, tmp_path, kind):
        from samjax.app.library import UnreadablePhoto

        data = {
            "truncated": png(random_photo(200, 200))[:5000],
            "bomb": png_that_claims(40_000, 40_000),
            "text": b"<svg/>",
            "empty": b"",
        }[kind]
        file = received(library, data)
        with pytest.raises(UnreadablePhoto, match=r"^x\.png: "):
            library.add("x.png", file)
        file.discard()
        assert list((tmp_path / "out/photos").iterdir()) == []


class TestResultsOfOtherSessions:
    """Pictures that samjax app has written in an --out elsewhere are no photos."""

    def names(self, folder, tmp_path) -> list[str]:
        from samjax.app.library import Library

        return [entry.name for entry in Library(str(folder), tmp_path / "elsewhere").photos()]

    def picture(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_photo(10, 10)).save(path)

    def test_they_are_left_out(self, folder, tmp_path):
        before = self.names(folder, tmp_path)
        self.picture(folder / "samjax-work" / "photos" / "uploaded.png")
        self.picture(folder / "mine" / "pixels" / "a.png")
        (folder / "mine" / "a.png.samjax.json").write_text("{}")
        self.picture(folder / "other" / "export" / "png" / "a" / "0.png")
        (folder / "other" / "export" / "png" / ".samjax-export.json").write_text("[]")
        assert self.names(folder, tmp_path) == before

    def test_photos_beside_their_work_are_photos(self, folder, tmp_path):
        before = self.names(folder, tmp_path)
        (folder / "more" / "b.png.samjax.json").write_text("{}")
        (folder / "gone.png.samjax.json").write_text("{}")  # in the folder that was named
        assert self.names(folder, tmp_path) == before

    def test_a_folder_of_results_can_be_opened_itself(self, folder, tmp_path):
        self.picture(folder / "samjax-work" / "photos" / "uploaded.png")
        assert self.names(folder / "samjax-work", tmp_path) == ["photos/uploaded.png"]

    def test_exports_are_known_by_the_file_that_they_have(self):
        from samjax.app.exports import _WRITTEN
        from samjax.everything.photos import EXPORTED

        assert EXPORTED == _WRITTEN


def test_an_error_of_the_system_is_not_remembered(folder, tmp_path, monkeypatch):
    import errno

    from samjax.app.library import Library, UnreadablePhoto

    library = Library(str(folder), tmp_path / "out")
    with monkeypatch.context() as patch:

        def fail(*_, **__):
            raise OSError(errno.EMFILE, "Too many open files")

        patch.setattr(Image, "open", fail)
        with pytest.raises(UnreadablePhoto, match="Too many open files"):
            library.read(id_of("a.png"))
    assert library.read(id_of("a.png")).size == (60, 90)
    with pytest.raises(UnreadablePhoto):
        library.read(id_of("broken.jpg"))
    assert isinstance(library.known(id_of("broken.jpg")), UnreadablePhoto)  # a damaged file stays so
