"""`magpie duplicates`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from local.client import CallFailed, Client
from local.commands.options import (
    counted_bar,
    customer_option,
    examples,
    home_option,
    json_option,
    print_json,
    table_console,
    tell,
)
from local.customers import reading
from local.duplicate_sections import EXACT, KINDS, RE_ENCODED, SAME_ITEM, Section, section, section_json
from local.duplicates import Group, Pictures, describe, find_same_items, read_pictures
from local.duplicates_page import render
from local.home import Home
from magpie.services.duplicates import DEFAULT_PROBABILITY

PATIENCE_SECONDS = 60.0  # a walk may take hours: it outlives a restart of the api


@click.command(
    "duplicates",
    epilog=examples(
        "magpie duplicates --customer my-shop",
        "magpie duplicates --customer my-shop --kind exact --kind re-encoded   # without the slow one",
        "magpie duplicates --customer my-shop --kind same-item --min-probability 0.95",
        "magpie duplicates --customer my-shop --html duplicates.html",
    ),
)
@customer_option
@click.option(
    "--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="This section alone; repeatable."
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=DEFAULT_PROBABILITY,
    show_default=True,
    metavar="P",
    help="How likely two products must be the same item.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write a page with pictures.",
)
@home_option
@json_option
def command(
    customer: str,
    kinds: tuple[str, ...],
    min_probability: float,
    html: Path | None,
    home: Home,
    as_json: bool,
) -> None:
    """What is in a catalogue more than once. Nothing is changed by it.

    \b
    exact       the same file, byte for byte, listed by several products
    re-encoded  one picture saved again: smaller, as a worse JPEG, a little cut
    same-item   different pictures that show the same product, as likely as asked

    What one section tells of two products, no later one tells again. A picture stands for every product that
    lists it. Every two pictures of a group are linked with one another; the measure beside a group is that of
    its weakest link. Products of one `group` are marked as variants and come last. The last section searches
    for every picture in turn; the others take seconds.
    """
    asked = kinds or tuple(KINDS)
    with reading(home, customer, PATIENCE_SECONDS) as client, counted_bar(transient=as_json) as bar:
        pictures, sections, stale = _sections(client, asked, min_probability, html is not None, bar)
        remarks = _remarks(pictures, stale)
        if html:
            page = render(customer, len(pictures.holders), sections, remarks, client.fetch)
            html.write_text(page, encoding="utf-8")
    for remark in remarks:
        tell(remark)
    if html:
        tell(f"wrote {html}")
    if as_json:
        _print_json(pictures, sections)
    else:
        for found in sections:
            _print(found)


def _sections(
    client: Client, kinds: tuple[str, ...], min_probability: float, with_urls: bool, bar: Progress
) -> tuple[Pictures, list[Section], bool]:
    reading_task = bar.add_task("reading fingerprints", total=None)
    pictures = read_pictures(client, lambda step, total: _advance(bar, reading_task, step, total))
    # What the first two tell, the third does not: it needs them, asked for or not.
    groups: dict[str, list[Group]] = {
        EXACT.name: pictures.same_bytes(),
        RE_ENCODED.name: pictures.re_encoded(),
    }
    stale, missing = False, ""
    if SAME_ITEM.name in kinds:
        task = bar.add_task("comparing items", total=None)
        try:
            pairs, stale = find_same_items(
                client, min_probability, lambda step, total: _advance(bar, task, step, total)
            )
        except CallFailed as error:
            if error.status != "FAILED_PRECONDITION" or kinds == (SAME_ITEM.name,):
                raise
            missing = str(error)
            bar.remove_task(task)
        else:
            groups[SAME_ITEM.name] = pictures.same_item(pairs)
    shown = [group for name in kinds for group in groups.get(name, ())]
    described = describe(client, shown, with_urls)
    sections = [
        Section(kind, [], missing) if name not in groups else section(kind, groups[name], described)
        for name, kind in KINDS.items()
        if name in kinds
    ]
    return pictures, sections, stale


def _remarks(pictures: Pictures, stale: bool) -> list[str]:
    remarks = []
    if pictures.lacking:
        remarks.append(
            f"{pictures.lacking} pictures were indexed by a release that kept no fingerprints: they are "
            "missing among the re-encoded ones until they are indexed again"
        )
    if stale:
        remarks.append("the catalogue's newest changes may be missing")
    return remarks


def _print(found: Section) -> None:
    table_console.print(f"{found.kind.title}: {found.kind.about}", highlight=False, markup=False)
    if not found.groups:
        table_console.print(f"  {found.missing or 'none'}\n", highlight=False, markup=False)
        return
    whole: dict[str, Any] = {"overflow": "fold"}  # ids are for copying: never cut
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("product", **whole)
    table.add_column("title")
    table.add_column("picture", **whole)
    table.add_column(found.kind.measure)
    table.add_column("")
    for number, group in enumerate(found.groups, start=1):
        variants = f"variants of {group.variants_of}" if group.variants_of else ""
        for row, product in enumerate(group.products):
            of_group = (str(number), group.weakest, variants) if row == 0 else ("", "", "")
            texts = (product.image.product_id, product.title, product.image.sha256[:12])
            table.add_row(of_group[0], *map(Text, texts), of_group[1], Text(of_group[2]))
    table_console.print(table)
    table_console.print()


def _print_json(pictures: Pictures, sections: list[Section]) -> None:
    answer: dict[str, Any] = {
        "products": len(pictures.images),
        "pictures": len(pictures.holders),
        "without_fingerprint": pictures.lacking,
    }
    for found in sections:
        name = found.kind.name.replace("-", "_")
        answer[name] = None if found.missing else section_json(found)
        if found.missing:
            answer[f"{name}_missing"] = found.missing
    print_json(answer)


def _advance(bar: Progress, task: TaskID, step: int, total: int) -> None:
    bar.update(task, advance=step, total=total)
