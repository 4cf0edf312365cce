"""What `magpie train embedding` takes to train on AWS, and how such a run is sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import FailedPrecondition, InvalidArgument
from training import recipe_file
from training.commands.options import tell
from training.datasets.catalogue_of_cards import card_of
from training.embedding.recipe import EmbeddingRecipe, read_recipe
from training.job import remote, stack
from training.job.recipe_text import toml
from training.job.remote import RemoteRun, RunState
from training.job.s3_folder import S3Folder, Transfer

DEFAULT_STACK = "magpie"

stack_option = click.option(
    "--stack",
    default=DEFAULT_STACK,
    envvar="MAGPIE_STACK",
    show_default=True,
    show_envvar=True,
    help="CloudFormation stack, deployed with Training=on.",
)


@dataclass(frozen=True)
class Remote:
    """Train on AWS, and how."""

    stack: str = DEFAULT_STACK
    run: str = ""  # the run's name; without it the recipe's
    upload: bool = False  # send the data first
    follow: bool = False  # stay and show its log


def remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--remote` and what belongs to it; the command gets `remote: Remote | None` in their place."""

    @click.option("--remote", "is_remote", is_flag=True, help="On a spot GPU of your AWS account, not here.")
    @click.option("--run", "run_name", default="", metavar="NAME", help="With --remote.  [default: RECIPE]")
    @click.option(
        "--upload", is_flag=True, help="With --remote: send the data first, what has changed of it."
    )
    @click.option("--follow", is_flag=True, help="With --remote: show its log until it ends.")
    @stack_option
    @functools.wraps(command)
    def wrapped(
        *arguments: Any,
        is_remote: bool,
        run_name: str,
        upload: bool,
        follow: bool,
        stack: str,
        **options: Any,
    ) -> Any:
        if not is_remote and (run_name or upload or follow):
            raise click.UsageError("--run, --upload and --follow go with --remote")
        chosen = Remote(stack, run_name, upload, follow) if is_remote else None
        return command(*arguments, remote=chosen, **options)

    return wrapped


def submit_embedding(
    recipe: Path, changes: Mapping[str, str], data: Path | str, options: Remote
) -> tuple[RemoteRun, RunState | None]:
    """Send a training of the embedder; with `options.follow`, how it ended.

    `data` is the local folder of the data sets, whose copy is s3://BUCKET/data/FOLDER_NAME, or an address in
    the stack's bucket. The recipe is checked here first. Raises Magpie's errors: InvalidArgument for recipe,
    data or name, NotFound without stack or data, FailedPrecondition if the run cannot be sent as it is.
    """
    chosen = read_recipe(recipe, changes)
    if chosen.start:
        raise InvalidArgument("start", f"{chosen.start} lies on this machine, a remote run does not see it")
    name = options.run or recipe.stem
    remote.check_name(name)
    place = stack.find(options.stack)
    stack.check_image(place)
    if isinstance(data, str) and data.startswith("s3://"):
        folder = place.own_data(data)
        if options.upload:
            raise InvalidArgument("--upload", "needs a local folder as --data")
    else:
        root = Path(data)
        folder = place.data(root.resolve().name)
        if options.upload:
            _upload(root, _parts(chosen, root), folder)
    # MLflow's local database would go with the machine; the metrics are in the run folder.
    arguments = ["embedding", "--recipe", "{recipe}", "--no-track"]
    for key, value in changes.items():
        arguments += ["--set", f"{key}={value}"]
    run = remote.submit(place, name, folder, toml(recipe_file.table(recipe)), arguments)
    tell(f"sent: {run.folder}{', goes on from its checkpoint' if run.resumes else ''}")
    if not options.follow:
        tell(f"next: magpie train remote follow {name} --stack {options.stack}")
        return run, None
    return run, follow(place, name)


def follow(place: stack.TrainingStack, name: str) -> RunState:
    """Show the run's log until it ends. Raises FailedPrecondition if it failed."""
    try:
        state = remote.follow(place, name, click.echo)
    except KeyboardInterrupt:
        tell(f"the run goes on: magpie train remote follow {name}, or cancel {name}")
        raise
    if state.status == "FAILED":
        raise FailedPrecondition(f"run {name} failed: {state.reason}")
    return state


class Bar:
    """A progress bar of a transfer, in bytes."""

    def __init__(self, what: str) -> None:
        self._bar = tqdm(desc=what, unit="B", unit_scale=True, mininterval=0.2)

    def __call__(self, state: Transfer) -> None:
        """The next state."""
        self._bar.total = state.size
        self._bar.set_postfix_str(f"{state.files_done}/{state.files} files", refresh=False)
        self._bar.update(state.size_done - self._bar.n)

    def close(self) -> None:
        """Leave it as it is."""
        self._bar.close()


def _upload(root: Path, parts: list[str], folder: S3Folder) -> None:
    bar = Bar("data")
    try:
        done, extra = remote.upload_data(root, parts, folder, bar)
    finally:
        bar.close()
    tell(f"data: {done.files} files sent, {done.unchanged} were there, {folder}")
    if extra:
        tell(f"{len(extra)} files there are not in {root}, such as {extra[0]}: they stay, and are trained on")


def _parts(recipe: EmbeddingRecipe, root: Path) -> list[str]:
    """The sub-folders of `root` that the recipe reads; none if it reads in `root` itself: then it is all."""
    names = [
        name
        for entry in (*recipe.data, *recipe.held_out)
        for name in (card_of(entry.data, root).path, entry.photos, _card_file(entry.data, root))
        if name
    ]
    if recipe.hard_negatives.file:
        names.append(recipe.hard_negatives.file)
    paths = [(root / name).resolve() for name in names]
    outside = [path for path in paths if not path.is_relative_to(root.resolve())]
    if outside:
        raise InvalidArgument("data", f"{outside[0]} lies outside {root}, a remote run does not see it")
    # What a CSV in `root` itself names can lie anywhere in it.
    tops = {path.relative_to(root.resolve()).parts[0] if path != root.resolve() else "" for path in paths}
    return sorted(tops) if all((root / top).is_dir() and top for top in tops) else []


def _card_file(name: str, root: Path) -> str:
    return name if name.endswith(".toml") and (root / name).is_file() else ""
