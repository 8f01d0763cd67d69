"""The command `samjax`. Each sub-command parses, calls the library and prints; it holds no mathematics.

Sub-commands import what they call when they run: `--help` and errors of use do not wait for JAX.
"""

import atexit
import contextlib
import functools
import gc
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

import samjax
from samjax.assets import BUNDLED
from samjax.atomic import check_writable
from samjax.cli.descriptions import print_description, print_tuned
from samjax.cli.everything import everything
from samjax.cli.options import Checkpoint, Dtype, ImageSize, TunedFile
from samjax.download import cache_dir
from samjax.names import portable, print_anything, printable

Drop = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(metavar="PATTERN", help="Leave out tensors of such names ('loss.*'), no part of the model. Repeatable."),
]
Format = Annotated[
    Literal["native", "meta", "huggingface"] | None,
    arg(help="Format to write; by default the ending decides: .pth or .safetensors is meta, no ending native."),
]
Overwrite = Annotated[bool, arg(help="Replace what is there if it is a file or a checkpoint folder.")]

app = tyro.extras.SubcommandApp()


def command(function: Callable[..., int], name: str | None = None) -> Callable[..., int]:
    """Adds a sub-command, which finds compiled programs kept."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> int:
        _keep_compiled_programs(cache_dir() / "compiled")
        return function(*args, **kwargs)

    app.command(name=name)(run)
    return function


command(everything)


@functools.partial(command, name="segment")
def segment_images(
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...", help="Photos to segment.")],
    out: Annotated[Path, arg(metavar="DIR", help="Folder for overlay and mask PNGs and JSON.")],
    checkpoint: Checkpoint = BUNDLED,
    tuned: TunedFile = None,
    point: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="X,Y[,LABEL]", help="A point in pixels; label 1 (default) on the object, 0 beside it. Repeatable."),
    ] = (),
    box: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="X0,Y0,X1,Y1", help="A box in pixels. Repeatable: each box is an object of its own."),
    ] = (),
    mask: Annotated[Path | None, arg(metavar="FILE", help="A binary mask of the photo's size as a prompt.")] = None,
    multimask: Annotated[bool, arg(help="Three masks for an ambiguous prompt instead of one.")] = False,
    dtype: Dtype = "float32",
    embeddings: Annotated[Path | None, arg(metavar="DIR", help="Reuse image embeddings stored here.")] = None,
    save_embeddings: Annotated[
        Path | None, arg(metavar="DIR", help="Reuse image embeddings stored here, and store those that are missing.")
    ] = None,
    image_size: ImageSize = None,
) -> int:
    """Segment objects in photos, given points, boxes or a mask."""
    from tqdm import tqdm

    from samjax import hub, maps, pictures
    from samjax.embeddings import EmbeddingStore
    from samjax.segment import Request, segment
    from samjax.writers.answers import write_answer

    names = _output_names(images)
    mask_array = maps.read_mask(mask) if mask else None
    request = Request(tuple(map(_parse_point, point)), tuple(map(_parse_box, box)), mask_array)
    if embeddings and save_embeddings:
        raise ValueError("--embeddings only reads, --save-embeddings reads and stores: give one of them")
    if embeddings and not embeddings.is_dir():
        raise ValueError(f"--embeddings: there is no folder {embeddings}")
    for folder in filter(None, (out, save_embeddings)):
        check_writable(folder)
    sam = hub.load(checkpoint, image_size=image_size, tuned=tuned).with_dtype(dtype)
    sam.check_reads_files()
    stored = embeddings or save_embeddings
    store = EmbeddingStore(stored, sam) if stored else None
    reused = 0
    failures = []
    for path, name in tqdm(list(zip(images, names, strict=True)), unit="image", disable=len(images) == 1):
        try:
            with warnings.catch_warnings(record=True) as caught:
                rgb = pictures.read_image(path)
                embedding = store.get(rgb) if store else None
                reused += embedding is not None
                if embedding is None:
                    embedding = sam.encode(rgb)
                    if store and save_embeddings:
                        store.put(rgb, embedding)
                answer = segment(sam, rgb, embedding, request, multimask=multimask)
                described = {
                    "image": portable(path),
                    "model": {
                        "checkpoint": checkpoint,
                        **({} if tuned is None else {"tuned": portable(tuned)}),
                        "variant": sam.config.variant,
                        "dtype": dtype,
                    },
                }
                written = write_answer(out, name, rgb, request, answer, described)
        except (ValueError, OSError) as error:
            failures.append(printable(f"{path}: {error}"))
            continue
        for warning in caught:
            tqdm.write(printable(f"samjax: warning: {path}: {warning.message}"), file=sys.stderr)
        scores = ", ".join(f"{score:.3f}" for score in answer.iou.ravel())
        tqdm.write(printable(f"{path}: {answer.iou.size} mask(s), predicted IoU {scores} -> {written[0]}"))
    if store:
        print(f"{reused} of {len(images)} embedding(s) reused from {store.folder}")
    if failures and len(images) == 1:
        raise ValueError(failures[0])
    if failures:
        raise ValueError(f"{len(failures)} of {len(images)} image(s) failed:\n  " + "\n  ".join(failures))
    return 0


@command
def convert(
    source: Annotated[Positional[str], arg(metavar="SRC", help="A known name, a file or a folder of any format.")],
    destination: Annotated[Positional[Path], arg(metavar="DST", help="The file or folder to write.")],
    to: Format = None,
    overwrite: Overwrite = False,
    verify: Annotated[
        bool, arg(help="Run the PyTorch reference beside samjax on a photo and print every stage's error.")
    ] = False,
    photo: Annotated[Path | None, arg(metavar="IMAGE", help="Photo for --verify; a bundled one by default.")] = None,
    drop: Drop = (),
) -> int:
    """Convert a checkpoint between Meta's, Hugging Face's and the native format, without PyTorch."""
    from samjax import assets, hub
    from samjax import convert as converter

    if verify:
        from samjax.convert.verify import require_reference

        require_reference()
    path = hub.locate(source)
    print_description(destination, converter.convert(path, destination, to, overwrite=overwrite, drop=drop))
    return _verify(path, destination, photo or assets.photo(), drop) if verify else 0


@command
def merge(
    base: Annotated[
        Positional[str], arg(metavar="BASE", help="The model before tuning: a known name, file or folder.")
    ],
    tuned: Annotated[
        Positional[str],
        arg(metavar="TUNED", help="The model after: a run's folder, its export, whole or --tuned, or another model."),
    ],
    destination: Annotated[Positional[Path], arg(metavar="OUT", help="The file or folder to write.")],
    alpha: Annotated[float, arg(help="Share of TUNED: 0 is BASE, 1 is TUNED.")],
    to: Format = None,
    overwrite: Overwrite = False,
) -> int:
    """Average the weights of a base and a tuned model, (1 - alpha) BASE + alpha TUNED, against forgetting."""
    from samjax import convert as converter
    from samjax import hub

    with contextlib.ExitStack() as stack:
        if _is_run(Path(tuned)):
            from samjax.train.export import export

            after = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
            written = export(tuned, after)
            print(printable(f"{tuned}: step {written.step} ({written.why}), {written.weights} parameters"))
        else:
            after = hub.locate(tuned)
        described = converter.merge(hub.locate(base), after, destination, alpha, to, overwrite=overwrite)
    print_description(destination, described)
    return 0


def _is_run(path: Path) -> bool:
    """True for the folder of a training run, which is no checkpoint."""
    return (path / "config.json").is_file() and (path / "checkpoints").is_dir()


@command
def info(
    checkpoint: Positional[Checkpoint],
    parameters: Annotated[
        bool,
        arg(help="Also list all parameters, by the names that training's --optim.frozen and --optim.no-decay fit."),
    ] = False,
    drop: Drop = (),
) -> int:
    """Say what a checkpoint holds: variant, parameters, dtype, provenance, checksum, what of the file is skipped.

    Of a file that `samjax export RUN FILE --tuned` has written: its base, mode and options, parameters, provenance.
    """
    from samjax import convert as converter
    from samjax import hub

    path = hub.locate(checkpoint)
    if converter.is_tuned(path):
        if drop:
            raise ValueError(f"{path} holds what was tuned alone: there is nothing to drop")
        print_tuned(path, tuned := converter.read_tuned(path))
        if parameters:
            _list_parameters(tuned.leaves)
        return 0
    description = converter.describe(path, drop=drop)
    print_description(path, description)
    if parameters:
        from flax.traverse_util import flatten_dict

        from samjax.model import abstract_params

        _list_parameters(flatten_dict(abstract_params(description.config), sep="/"))
    return 0


def _list_parameters(leaves: Mapping[str, Any]) -> None:
    for name, leaf in leaves.items():
        print(f"  {name:<76}{' x '.join(map(str, leaf.shape))}")


@command
def warmup(
    checkpoint: Checkpoint,
    tuned: TunedFile = None,
    points: Annotated[tuple[int, ...], arg(help="Numbers of points a prompt will have.")] = (1, 4, 8, 16),
    prompts: Annotated[tuple[int, ...], arg(help="Numbers of prompts that will be asked at once.")] = (1,),
    photo_sizes: Annotated[
        tuple[tuple[int, int], ...], arg(metavar="H W", help="Heights and widths of photos that will be segmented.")
    ] = (),
    mask_prompts: Annotated[bool, arg(help="Also for prompts with a mask.")] = False,
    dtype: Dtype = "float32",
    image_size: ImageSize = None,
) -> int:
    """Compile the programs ahead of time and keep them in the cache folder."""
    from samjax import hub

    sam = hub.load(checkpoint, image_size=image_size, tuned=tuned).with_dtype(dtype)
    print(f"{'program':<66}{'compile s':>10}{'run s':>10}")
    for timing in sam.warmup(points=points, prompts=prompts, mask_prompts=mask_prompts, photo_sizes=photo_sizes):
        print(f"{timing.program:<66}{timing.compile_seconds:>10.2f}{timing.run_seconds:>10.3f}")
    return 0


@command
def demo(
    out: Annotated[Path, arg(metavar="DIR", help="Folder for the results.")] = Path("demo"), dtype: Dtype = "float32"
) -> int:
    """Segment bundled photos with the bundled model, offline: by a point, by a box, and everything."""
    from samjax.demo import run

    check_writable(out)
    for number, (what, path) in enumerate(run(out, dtype)):
        if number == 0:  # whatever can fail has not
            print(f"Segmented with {BUNDLED}, which is in the package. Written:")
        print(f"  {path}  ({what})")
    print("\nYour own photo: samjax segment PHOTO --point X,Y --out DIR, or samjax everything PHOTO --out DIR.")
    print("--checkpoint vit_b (vit_l, vit_h) takes Meta's large models instead; they are downloaded once.")
    return 0


@command
def replay(
    works: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="WORK...", help="Work files of `samjax app` (NAME.samjax.json), or folders of them."),
    ],
    checkpoint: Annotated[
        str | None, arg(metavar="C", help="The model that made the masks; by default the one that the work files name.")
    ] = None,
    tuned: TunedFile = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, arg(help="Dtype to compute in; by default that of the work files.")
    ] = None,
    image_size: ImageSize = None,
) -> int:
    """Compute the masks of work again, by the clicks and settings that are kept, and compare: 1 if any differs."""
    from samjax import hub
    from samjax.app.replay import run

    def load(name: str | None, stated: str | None, size: tuple[int, int] | None) -> tuple[Any, str]:
        chosen = checkpoint or name or BUNDLED
        sam = hub.load(chosen, image_size=image_size or size, tuned=tuned)
        return sam.with_dtype(dtype or stated or "float32"), chosen

    return run(works, load, lambda line: print(line, flush=True))


@functools.partial(command, name="app")
def app_server(
    source: Annotated[
        Positional[str | None],
        arg(metavar="IMAGE|FOLDER|FORMAT=PATH", help="A photo, a folder of photos, or annotated photos to correct."),
    ] = None,
    annotations: Annotated[
        tuple[str, ...],
        arg(metavar="FORMAT=PATH", help="Annotations of the photos to begin with, as `samjax train` takes them."),
    ] = (),
    checkpoint: Checkpoint = BUNDLED,
    tuned: TunedFile = None,
    dtype: Dtype = "float32",
    image_size: ImageSize = None,
    host: Annotated[str, arg(help="Address to listen at; one that other machines reach needs a --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, arg(help="Port to listen at; 0 takes a free one.")] = 8765,
    token: Annotated[
        str | None, arg(metavar="T", help="Secret that requests must come with; the printed address has it.")
    ] = None,
    out: Annotated[
        Path | None,
        arg(metavar="DIR", help="Folder of what is segmented; samjax-work in the folder or beside the image."),
    ] = None,
) -> int:
    """Segment photos by clicks in a page of the browser, on this machine."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"the page needs packages that are not installed ({error}): pip install 'samjax[app]'"
        ) from None
    from samjax.app.command import run

    return run(
        source,
        annotations=annotations,
        out=out,
        checkpoint=checkpoint,
        tuned=tuned,
        dtype=dtype,
        image_size=image_size,
        host=host,
        port=port,
        token=token,
    )


@command
def train(recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="See `samjax train --help`.")]) -> int:
    """Train or fine-tune a model: samjax train RECIPE --out DIR [--FIELD.SUB VALUE ...]."""
    return _train([recipe])


def _train(args: Sequence[str]) -> int:
    _keep_compiled_programs(cache_dir() / "compiled")
    try:
        from samjax.train.command import main
    except ImportError as error:
        raise ValueError(
            f"training needs packages that inference does not ({error}): pip install 'samjax[train]'"
        ) from None
    return main(args)


@command
def export(
    run: Annotated[Positional[Path], arg(metavar="RUN", help="The folder of a training run, which may be running.")],
    destination: Annotated[Positional[Path], arg(metavar="FILE", help="The file or folder to write.")],
    to: Format = None,
    step: Annotated[
        int | None, arg(help="The checkpoint; by default the one with the best val/iou, without validation the latest.")
    ] = None,
    raw: Annotated[bool, arg(help="The parameters themselves where the run also averages them.")] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        arg(help="Round parameters to this; by default they stay as trained."),
    ] = None,
    tuned: Annotated[
        bool, arg(help="Only what was tuned, to share: a .safetensors that --tuned elsewhere applies to its base.")
    ] = False,
    overwrite: Overwrite = False,
) -> int:
    """Write a training run's weights for inference and other programs: native, Meta's or Hugging Face's format."""
    from samjax.checkpoint import Description
    from samjax.train.export import export

    written = export(run, destination, to=to, step=step, raw=raw, dtype=dtype, tuned=tuned, overwrite=overwrite)
    described = written.description
    if isinstance(described, Description):
        print(f"{destination}: {described.format} {described.variant}, {described.parameters:,} parameters")
    else:
        count, mode = sum(leaf.size for leaf in described.leaves.values()), described.tune["mode"]
        print(f"{destination}: {mode} of {described.base.name}, {count:,} parameters")
    print(f"  step {written.step} ({written.why})")
    print(f"  {written.weights} parameters" + ("" if written.decay is None else f" (optim.ema {written.decay:g})"))
    of = " (of the averaged parameters)" if written.unmeasured else ""
    scores = {"val/iou": "iou", "retain/iou": "retain/iou"}
    for shown, name in scores.items():
        if name in written.metrics:
            before = f", {written.at_start[name]:.4f} at step 0" if name in written.at_start else ""
            print(f"  {shown} {written.metrics[name]:.4f}{before}{of}")
    if not any(name in written.metrics for name in scores.values()):
        print("  not validated at this step")
    return 0


@command
def evaluate(protocol: Annotated[Positional[str], arg(metavar="PROTOCOL", help="See `samjax evaluate -h`.")]) -> int:
    """Measure how good a model is: samjax evaluate PROTOCOL --data FORMAT=PATH --checkpoint C --out DIR."""
    return _evaluate([protocol])


def _evaluate(args: Sequence[str]) -> int:
    _keep_compiled_programs(cache_dir() / "compiled")
    from samjax.evaluation.command import main

    return main(args)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line; errors of use are one line on standard error and exit code 2.

    Without `args` it is the process's own, whose garbage collector is then set for a process that ends soon.
    """
    if args is None:
        args = sys.argv[1:]
        # Importing and tracing make a million objects that stay: looking through them takes a fifth of a short command.
        gc.set_threshold(10_000, 20, 20)
        atexit.register(gc.freeze)
    if list(args) == ["--version"]:
        from importlib.metadata import version

        print(f"samjax {version('samjax')}")
        return 0
    print_anything()
    run = functools.partial(app.cli, prog="samjax", description=samjax.__doc__, args=args)
    if list(args[:1]) == ["train"]:  # its options are those of the recipe that is named first
        run = functools.partial(_train, args[1:])
    elif list(args[:1]) == ["evaluate"]:
        run = functools.partial(_evaluate, args[1:])
    with warnings.catch_warnings(), _without_remarks():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        try:
            code = run()
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
            return 141  # a shell's status of a program that SIGPIPE ended
        except (ValueError, OSError) as error:
            print(f"samjax: error: {printable(str(error), keep=chr(10))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            import jax

            if missing := _missing_device():  # for which JAX raises several kinds
                print(f"samjax: error: {missing}", file=sys.stderr)
                return 2
            if not isinstance(error, jax.errors.JaxRuntimeError):
                raise
            print(f"samjax: error: the device failed: {str(error).splitlines()[0]}", file=sys.stderr)
            if "RESOURCE_EXHAUSTED" in str(error):
                print("Its memory is full; --dtype bfloat16 or a smaller --image-size needs less.", file=sys.stderr)
            return 1


def _missing_device() -> str | None:
    """Explains why JAX has no device to compute on; None if it has one."""
    import jax

    try:
        jax.devices()
    except Exception as error:
        reason = "".join(str(error).splitlines()[:1]) or "JAX is installed without it"
        if platforms := jax.config.jax_platforms:  # pyright: ignore[reportAttributeAccessIssue]  (made at run time)
            return (
                f"JAX_PLATFORMS={platforms} asks for a device that JAX cannot use here ({reason}); unset it to compute "
                "on what there is, or install JAX for that device"
            )
        return f"JAX cannot use this machine's device ({reason}); JAX_PLATFORMS=cpu computes without it"
    return None


def _keep_compiled_programs(folder: Path) -> None:
    """Keeps compiled programs in `folder`, unless JAX has been told of another one (JAX_COMPILATION_CACHE_DIR)."""
    import jax

    # pyright does not see flags that are made at run time.
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    try:
        check_writable(folder)
    except ValueError as error:
        print(f"samjax: warning: compiled programs are not kept: {error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keeps the remarks of orbax and grain on how they work, which they log by absl as warnings, off the console. Their
    errors are shown, and what goes wrong is raised besides."""
    from absl import logging as absl_logging

    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"samjax: warning: {printable(str(message), keep=chr(10))}", file=sys.stderr)


def _verify(source: Path, converted: Path, photo: Path, drop: tuple[str, ...]) -> int:
    """Prints every stage's error; 1 where one is more than rounding explains."""
    from samjax import hub, pictures
    from samjax.convert.verify import load_reference, verify

    reference = load_reference(source, drop=drop)
    stages = verify(hub.load(converted), reference, pictures.read_image(photo))
    print(f"\n{'stage':<32}{'error':>10}{'allowed':>10}")
    for stage in stages:
        print(f"{stage.name:<32}{stage.error:>10.1e}{stage.allowed:>10.0e}{'' if stage.passed else '   TOO LARGE'}")
    return 0 if all(stage.passed for stage in stages) else 1


def _output_names(images: Sequence[Path]) -> list[str]:
    """The prefix of each photo's outputs: its name without the ending, or with it if that tells photos apart."""
    if not images:
        raise ValueError("no image was given")
    stems = [image.stem for image in images]
    names = [image.stem if stems.count(image.stem) == 1 else image.name.replace(".", "_") for image in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"several images are called {', '.join(twice)}: their results would overwrite each other; "
            "run them apart, each into an --out of its own"
        )
    return names


def _parse_numbers(text: str, kind: str, form: str, counts: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise ValueError(f"a {kind} is {form}, numbers with commas and no spaces; got {text!r}")
    return numbers


def _parse_point(text: str) -> tuple[float, float, int]:
    x, y, *label = _parse_numbers(text, "point", "X,Y or X,Y,LABEL", (2, 3))
    if label and label[0] not in (0, 1):
        raise ValueError(f"a point's label is 1 (on the object) or 0 (beside it), got {text!r}")
    return x, y, int(label[0]) if label else 1


def _parse_box(text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _parse_numbers(text, "box", "X0,Y0,X1,Y1", (4,))
    return x0, y0, x1, y1
