"""Pictures through the real upload path: presigned form, bucket, event, three queues, index. 500 of them.

The peer decodes, embeds whole and adds to faiss, in process and with nothing to survive a crash.
"""

from __future__ import annotations

import csv
import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from local.catalogue_file import read_catalogue
from local.customers import writing
from local.indexing import index
from magpie.bootstrap import application
from magpie.synthesis.products import TRAINING_FAMILIES, render
from magpie.synthesis.shop_pictures import packshot
from tests.bench.harness import measure, report, row_of
from tests.bench.local_system import local_system, memory
from tests.bench.peer import SPACE, PlainRecipe

CUSTOMER = "bench"
PICTURES = 500


def main(pictures: int = PICTURES) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalogue = read_catalogue(write_catalogue(Path(folder), pictures))
        with local_system() as (home, system), writing(home, CUSTOMER) as client:
            begin = time.perf_counter()
            outcome = index(client, catalogue, lambda _: None)
            seconds = time.perf_counter() - begin
            assert outcome.indexed == pictures, outcome.failed[:3]
            again = index(client, catalogue, lambda _: None)
            assert again.unchanged == pictures
            served_by = memory(system)
        files = [picture.path.read_bytes() for picture in catalogue.pictures[:100]]
    app = application()
    peer = PlainRecipe(
        app.bundle, np.zeros((0, app.bundle.embedder_card.spaces[SPACE]), np.float32), app.settings.threads
    )
    waiting = itertools.cycle(files)
    mean = "mean of the whole run"
    each, each_again = seconds / pictures, again.seconds / pictures
    rows = [
        row_of("index, a picture", [each * 1000], each, note=mean),
        row_of("index again, a picture", [each_again * 1000], each_again, note=f"{mean}, nothing changed"),
        measure("plain recipe", lambda: peer.embed(peer.decode(next(waiting))), note="peer: in process"),
    ]
    report("ingest", rows, pictures=pictures, seconds=round(seconds, 1), memory_mb=served_by)


def write_catalogue(folder: Path, pictures: int) -> Path:
    """Rendered products on white, 512 px JPEGs, one a product."""
    path = folder / "catalogue.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["product_id", "image", "category"])
        for number in range(pictures):
            family = TRAINING_FAMILIES[number % len(TRAINING_FAMILIES)]
            packshot(render(family, number, 256)).save(folder / f"{number}.jpg", quality=92)
            rows.writerow([f"product-{number}", f"{number}.jpg", family])
    return path


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
