"""What may import what (ARCHITECTURE.md), read from the source without running it."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# Top-level folders and the packages that they are installed as.
PACKAGES = {"samjax": "samjax", "convert": "samjax.convert", "train": "samjax.train"}
EXAMPLES_OF_NAMES = {"image_encoder/blocks/0/attn/qkv/kernel"}  # of parameters
MODEL_PARTS = {"samjax.nn.encoders", "samjax.nn.prompt_encoder", "samjax.nn.mask_decoder"}


def imports_of(file: Path, package: str) -> Iterator[tuple[str, int]]:
    """Full names of everything that a file imports, wherever in it, and the level of relative imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield module, node.level
            yield from ((f"{module}.{alias.name}", node.level) for alias in node.names)


@pytest.fixture(scope="module")
def imports(root) -> dict[str, set[tuple[str, int]]]:
    """By module: the names it imports."""
    found = {}
    for folder, installed_as in PACKAGES.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            package = ".".join([installed_as, *parts[:-1]])
            module = package if parts[-1] == "__init__" else f"{package}.{parts[-1]}"
            found[module] = set(imports_of(file, package))
    assert len(found) > 15
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def offenders(imports, importer, imported) -> list[str]:
    """Imports, as text, from a module for which `importer` holds of a name for which `imported` holds."""
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        if importer(module)
        for name, _ in sorted(names)
        if imported(name)
    ]


def is_library(module: str) -> bool:
    return not within(module, "samjax.convert") and not within(module, "samjax.train")


def test_torch_is_imported_by_nothing_but_the_verifier(imports):
    frameworks = ("torch", "torchvision", "transformers", "segment_anything")
    assert not offenders(
        imports,
        lambda module: module != "samjax.convert.verify",
        lambda name: any(within(name, framework) for framework in frameworks),
    )


def test_the_library_knows_the_converter_in_hub_and_cli_only(imports):
    assert not offenders(
        imports,
        lambda module: is_library(module) and module not in ("samjax.hub", "samjax.cli.command"),
        lambda name: within(name, "samjax.convert"),
    )


def test_the_library_knows_training_in_cli_only(imports):
    assert not offenders(
        imports,
        lambda module: is_library(module) and module != "samjax.cli.command",
        lambda name: within(name, "samjax.train"),
    )


def test_readers_of_annotated_photos_know_no_one_who_reads_with_them(imports):
    readers = ("samjax.train", "samjax.evaluation", "samjax.app")
    assert not offenders(
        imports,
        lambda module: within(module, "samjax.readers"),
        lambda name: any(within(name, reader) for reader in readers),
    )
    assert not offenders(
        imports,
        lambda module: not any(within(module, reader) for reader in (*readers, "samjax.readers")),
        lambda name: within(name, "samjax.readers"),
    )


def test_the_library_knows_its_page_in_cli_only(imports):
    assert not offenders(
        imports,
        lambda module: not within(module, "samjax.app") and module != "samjax.cli.command",
        lambda name: within(name, "samjax.app"),
    )


def test_the_page_s_server_is_the_only_one_that_needs_its_packages(imports):
    assert not offenders(
        imports,
        lambda module: not within(module, "samjax.app") and module != "samjax.cli.command",
        lambda name: any(within(name, package) for package in ("starlette", "uvicorn")),
    )


def test_what_computes_for_the_page_knows_no_http(imports):
    """Photos, tiles, queue and model serve whoever asks; only these modules know that it is by HTTP."""
    http = {f"samjax.app.{name}" for name in ("connections", "http", "routes", "server", "command", "objects")}
    assert not offenders(
        imports,
        lambda module: within(module, "samjax.app") and module not in http,
        lambda name: within(name, "starlette") or name in http,
    )


def test_types_know_the_configuration_only(imports):
    assert not offenders(
        imports,
        lambda module: module == "samjax.types",
        lambda name: within(name, "samjax") and not within(name, "samjax.config"),
    )


def test_nothing_of_samjax_knows_the_drop_in_classes(imports):
    assert not offenders(
        imports,
        lambda module: module != "samjax" and not within(module, "samjax.drop_in"),
        lambda name: within(name, "samjax.drop_in"),
    )


def test_a_folder_s_name_is_no_reason_to_load_models(imports):
    """The hub loads the network; who needs the cache folder only asks `samjax.download`."""
    assert not offenders(
        imports,
        lambda module: module != "samjax.hub",
        lambda name: name in ("samjax.hub.cache_dir", "samjax.hub.download", "samjax.hub.RemoteFile"),
    )


def test_imports_run_in_no_circles(imports):
    known = {
        module: {name for name, _ in names if name in imports and not within(module, name)}
        for module, names in imports.items()
        if module != "samjax"  # whose names are resolved when they are asked for
    }
    graphlib.TopologicalSorter(known).prepare()  # raises CycleError, which names the circle


def test_the_converter_does_not_know_the_hub(imports):
    assert not offenders(
        imports, lambda module: within(module, "samjax.convert"), lambda name: within(name, "samjax.hub")
    )


def test_operations_know_neither_flax_nor_the_rest_of_samjax(imports):
    assert not offenders(
        imports,
        lambda module: within(module, "samjax.ops"),
        lambda name: within(name, "flax") or (within(name, "samjax") and not within(name, "samjax.ops")),
    )


def test_modules_know_operations_and_configuration_only(imports):
    allowed = ("samjax.nn", "samjax.ops", "samjax.config", "samjax.execution")
    assert not offenders(
        imports,
        lambda module: within(module, "samjax.nn"),
        lambda name: within(name, "samjax.") and not any(within(name, package) for package in allowed),
    )


def test_the_three_parts_of_the_model_do_not_know_each_other(imports):
    for part in MODEL_PARTS:
        assert part in imports
        others = MODEL_PARTS - {part}
        assert not offenders(imports, part.__eq__, lambda name, others=others: any(within(name, o) for o in others))


def test_the_step_knows_no_task(imports):
    """`samjax.train.tasks` gives it one, and what is trained is a transform that the network does not know."""
    assert not offenders(
        imports,
        lambda module: not within(module, "samjax.train.tasks"),
        lambda name: within(name, "samjax.train.tasks.interactive"),
    )
    assert not offenders(
        imports, lambda module: not within(module, "samjax.train"), lambda name: within(name, "samjax.train.trainable")
    )


def test_flax_modules_stay_in_nn(imports):
    assert not offenders(
        imports, lambda module: not within(module, "samjax.nn"), lambda name: within(name, "flax.linen")
    )


def test_relative_imports_stay_in_their_package(imports):
    assert not [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name, level in names
        if level and not within(name, ".".join(module.split(".")[:2]))
    ]


def test_the_library_itself_imports_by_full_names(imports):
    assert not [module for module, names in imports.items() if is_library(module) and any(level for _, level in names)]


def test_no_module_is_a_drawer_for_everything(imports):
    drawers = {"utils", "util", "misc", "helpers", "helper", "common"}
    assert not [module for module in imports if drawers & set(module.split("."))]


def test_public_names_fit_on_one_screen(root):
    import samjax

    assert len(samjax.__all__) <= 40
    assert set(samjax.__all__) == set(samjax._MODULES)
    assert sorted(samjax.__all__) == sorted(set(samjax.__all__))
    assert all(hasattr(samjax, name) for name in samjax.__all__)


def test_paths_in_the_description_exist(root):
    quoted = set(re.findall(r"`([\w/.]+)`", (root / "ARCHITECTURE.md").read_text(encoding="utf-8")))
    paths = {name for name in quoted if "/" in name or name.endswith((".py", ".toml"))} - EXAMPLES_OF_NAMES
    assert len(paths) > 50
    assert [path for path in sorted(paths) if not (root / path).exists()] == []
