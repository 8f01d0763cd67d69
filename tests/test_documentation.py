"""The README and docs/ name files, headings, commands and options that exist."""

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "ARCHITECTURE.md", "samjax/assets/README.md", "samjax/assets/samjax-tiny.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)  # language, content
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
ANY = {"train": "few_images", "evaluate": "points"}  # their first argument, an example, decides which options there are


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `samjax ...` in code, without comments."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *re.findall(r"`([^`]+)`", FENCED.sub("", text))]:
        if line.split()[:1] == ["samjax"]:
            yield shlex.split(line, comments=True)[1:]


def content_of(heading: str) -> str:
    """A section of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def help_of(*command: str) -> str:
    """What `samjax COMMAND --help` prints."""
    from samjax.cli import command as cli
    from samjax.evaluation import command as evaluation
    from samjax.train import command as training

    printed = io.StringIO()
    run = {
        "train": lambda: training.main([*command[1:], "--help"]),
        "evaluate": lambda: evaluation.main([*command[1:], "--help"]),
    }.get(command[0], lambda: cli.app.cli(prog="samjax", args=[*command, "--help"]))
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        run()
    text = printed.getvalue()
    known = f"usage: samjax {' '.join(command)} " in " ".join(text.split())  # else the help of `samjax` itself
    assert known, f"no command: {command}"
    return text


@pytest.fixture(scope="module")
def options():
    """The options of a command, as a function that remembers them."""
    known: dict[tuple[str, ...], set[str]] = {}

    def of(*command: str) -> set[str]:
        if command not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("COLUMNS", "300")  # names are not wrapped
                known[command] = set(OPTION.findall(help_of(*command)))
        return known[command]

    return of


def sub_command(words: list[str]) -> tuple[str, ...]:
    """`segment`, or `train RECIPE`; where the recipe is a file or a placeholder, the options of any."""
    if words[0] not in ANY:
        return (words[0],)
    named = re.fullmatch(r"[a-z][a-z0-9_-]*", words[1])
    return words[0], words[1] if named else ANY[words[0]]


def is_command(words: list[str]) -> bool:
    return bool(words) and not words[0].startswith("-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for target in targets:
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_pages_are_reached_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(text)}
    assert {page.resolve() for page in (ROOT / "docs").glob("*.md")} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page, options):
    unknown = []
    for words in filter(is_command, commands(page)):
        if words[0] in ANY and (len(words) == 1 or words[1].startswith("-")):
            continue  # the list of recipes or protocols
        here = options(*sub_command(words))
        unknown += [f"samjax {words[0]} {word}" for word in words if OPTION.fullmatch(word) and word not in here]
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_prose_exist(page, options):
    every = set().union(
        *(options(name) for name in ("segment", "everything", "app", "convert", "info", "export", "warmup", "demo")),
        options("train", "few_images"),
        *(options("evaluate", name) for name in ("points", "boxes", "detections", "proposals", "edges", "semantic")),
    )
    code = re.findall(r"`([^`]+)`", FENCED.sub("", page.read_text(encoding="utf-8")))
    named = {option for span in code if span.startswith("--") for option in OPTION.findall(span)}
    unknown = named - every
    assert not unknown


def test_the_readme_begins_with_the_demo_and_the_tests():
    block = FENCED.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert [line.split("#")[0].strip() for line in block.splitlines()[1:-1]] == ["make demo", "make test"]


@pytest.mark.heavy
def test_the_readme_s_examples_run_as_they_are_written(monkeypatch, tmp_path):
    """In a folder that holds of a clone the photos alone; installing, and serving the page, are left out."""
    from samjax.cli import command

    (tmp_path / "samjax").mkdir()
    (tmp_path / "samjax/assets").symlink_to(ROOT / "samjax/assets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for language, content in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(content, names)
            continue
        for line in content.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] in ("make", "pip", "samjax")
            if words[0] == "samjax" and words[1] != "app":
                assert command.main(words[1:]) == 0, line
    stated = re.findall(r"^(?:prediction|masks) = .*# (.*)$", content_of("Use it from Python"), re.MULTILINE)
    shapes = [names["prediction"].logits.shape, names["prediction"].iou.shape, names["masks"].shape]
    assert re.findall(r"\(.*?\)", " ".join(stated)) == list(map(str, shapes))
    for file in (
        "results/astronaut_mask_0.png",
        "results/cat_mask_0_2.png",
        "everything/rocket_labels.png",
        "everything/annotations.json",
        "mine.pth",
        "tiny.pth",
        "tiny_hf/model.safetensors",
        "tiny_native",
    ):
        assert (tmp_path / file).exists(), file
