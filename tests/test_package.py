"""What is built from the tree, and what it puts into site-packages."""

import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import samjax

SOURCES = ("samjax", "convert", "train", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    """Built from a copy, so that no build folder appears in the tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel's content as site-packages would hold it."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_site_packages_gains_no_top_level_name_but_samjax(installed):
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"samjax"}


def test_every_source_file_is_in_the_wheel(root, installed):
    for folder, target in (("samjax", "samjax"), ("convert", "samjax/convert"), ("train", "samjax/train")):
        sources = {path.relative_to(root / folder) for path in (root / folder).rglob("*.py")}
        packed = {path.relative_to(installed / target) for path in (installed / target).rglob("*.py")}
        assert sources <= packed


def test_data_files_are_in_the_wheel(root, installed):
    assert (installed / "samjax/py.typed").is_file()
    assets = {path.name for path in (root / "samjax/assets").iterdir() if path.is_file()}
    assert assets <= {path.name for path in (installed / "samjax/assets").iterdir()}


def test_a_notice_says_that_the_bundled_weights_have_a_licence_of_their_own(installed):
    (notice,) = installed.glob("*.dist-info/licenses/NOTICE")
    assert "samjax/assets/samjax-tiny.safetensors, are not covered" in notice.read_text()


def test_the_command_is_called_samjax(installed):
    (info,) = installed.glob("*.dist-info")
    assert "samjax = samjax.cli.command:main" in (info / "entry_points.txt").read_text()


def test_the_license_is_in_the_wheel(installed):
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


def test_help_works_from_any_folder(installed, tmp_path, monkeypatch, run_python):
    monkeypatch.chdir(tmp_path)
    code = f"""
import sys
sys.path.insert(0, {str(installed)!r})
sys.argv = ["samjax", "--help"]
import samjax.cli.command
assert list(samjax.__path__) == [{str(installed / "samjax")!r}]
samjax.cli.command.main()
"""
    assert "usage: samjax" in run_python(code)


@pytest.mark.parametrize("package", ["convert", "train"])
def test_python_started_in_a_source_tree_finds_all_of_it_there(root, package):
    """Without the finder that an editable installation adds."""
    assert PathFinder.find_spec("samjax", [str(root)]).origin == samjax.__file__
    assert PathFinder.find_spec(f"samjax.{package}", samjax.__path__).origin == str(root / package / "__init__.py")
