"""Export a trained model: `python -m training.export detector --run DIR --out BUNDLE`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from magpie.errors import MagpieError
from training.detection import export as detection

COMMANDS = (detection,)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="MODEL")
    for model in COMMANDS:
        model.add_command(commands)
    for subparser in commands.choices.values():
        subparser.add_argument("--data", type=Path, help="folder of the data sets; default $MAGPIE_DATA")
        subparser.add_argument("--run", type=Path, required=True, help="run folder of the training")
        subparser.add_argument("--out", type=Path, required=True, help="bundle folder")
    arguments = parser.parse_args()
    if arguments.data is None:
        if "MAGPIE_DATA" not in os.environ:
            parser.error("--data is missing, and so is MAGPIE_DATA")
        arguments.data = Path(os.environ["MAGPIE_DATA"])
    torch.set_num_threads(1)
    try:
        arguments.command(arguments)
    except MagpieError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
