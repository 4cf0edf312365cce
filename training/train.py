"""Train a model: `python -m training.train detector --data DIR --out RUN_DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from magpie.errors import MagpieError
from training.detection import train as detection
from training.loop import check_run_folder
from training.memory import keep_freed_memory

COMMANDS = (detection,)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="MODEL")
    for model in COMMANDS:
        model.add_command(commands)
    for subparser in commands.choices.values():
        subparser.add_argument("--data", type=Path, help="folder of the data sets; default $MAGPIE_DATA")
        subparser.add_argument("--out", type=Path, required=True, help="run folder: checkpoint, metrics")
        subparser.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
        subparser.add_argument("--seed", type=int, default=1, help="default %(default)s")
        subparser.add_argument("--threads", type=int, default=1, help="torch threads; default %(default)s")
    arguments = parser.parse_args()
    if arguments.data is None:
        if "MAGPIE_DATA" not in os.environ:
            parser.error("--data is missing, and so is MAGPIE_DATA")
        arguments.data = Path(os.environ["MAGPIE_DATA"])
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    try:
        check_run_folder(arguments.out, resume=arguments.resume)  # before minutes of preparation
        arguments.command(arguments)
    except MagpieError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
