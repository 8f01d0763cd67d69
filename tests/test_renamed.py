"""Modules are found under the names that they had in 0.1."""

import json
import sys

import pytest

from samjax.renamed import RENAMED, install, new_name

EVERY_OLD_NAME = """
import importlib, json, warnings
import samjax
from samjax.renamed import RENAMED
told = {}
for old, new in RENAMED.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = importlib.import_module(old)
    assert module is importlib.import_module(new) and module.__spec__.name == new, old
    told[old] = [str(warning.message) for warning in caught if warning.category is FutureWarning]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from samjax.data.sources import open_sources
import samjax.readers.sources
assert open_sources is samjax.readers.sources.open_sources
print(json.dumps(told))
"""

ONE_OLD_NAME = """import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from samjax.formats.coco import finish
print(json.dumps([[warning.filename, warning.lineno, str(warning.message)] for warning in caught]))
"""

UNKNOWN_NAMES = """
import importlib, warnings
warnings.simplefilter("error")
import samjax
for name in ("samjax.database", "samjax.nowhere"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error.name)
"""


def test_modules_of_0_1_are_found_under_their_old_names_with_a_warning(run_python):
    told = json.loads(run_python(EVERY_OLD_NAME))
    assert len(told) > 15
    for old, messages in told.items():
        assert any(message.startswith(f"{old} is now samjax.") for message in messages), (old, messages)


def test_the_warning_is_of_the_line_that_imports_and_names_what_to_write_there(run_python):
    rest = "the old name goes with the next release"
    assert json.loads(run_python(ONE_OLD_NAME)) == [
        ["<string>", 4, f"samjax.formats is now samjax.writers; {rest}"],
        ["<string>", 4, f"samjax.formats.coco is now samjax.writers.coco; {rest}"],
    ]


def test_a_module_that_never_was_is_missed_under_its_own_name_without_a_warning(run_python):
    assert run_python(UNKNOWN_NAMES).split() == ["samjax.database", "samjax.nowhere"]


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("samjax.data", "samjax.readers"),
        ("samjax.data.coco", "samjax.readers.coco"),
        ("samjax.formats.geojson", "samjax.writers.geojson"),
        ("samjax.evaluation.points", "samjax.evaluation.protocols.points"),
        ("samjax.database", None),
        ("samjax.train.data", None),
        ("samjax", None),
    ],
)
def test_what_was_below_an_old_name_is_below_the_new_one(name, new):
    assert new_name(name) == new


def test_no_module_of_today_has_an_old_name(root):
    """It would be hidden."""
    assert [new for new in RENAMED.values() if new_name(new)] == []
    paths = [root / old.replace(".", "/") for old in RENAMED]
    assert [path for path in paths if path.with_suffix(".py").exists() or (path / "__init__.py").exists()] == []


def test_installing_again_changes_nothing(monkeypatch):
    finders = list(sys.meta_path)
    monkeypatch.setattr(sys, "meta_path", list(finders))
    install()
    assert sys.meta_path == finders
