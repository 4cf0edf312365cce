"""The data report counts what a plain loop counts; sources read strictly; the command shows it all."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.tables.problems import BadFile
from training.commands.report_data import command
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.example import Example
from training.datasets.measured_picture import measure
from training.datasets.quality_check import faults
from training.datasets.report import ClassCount, DataReport, report


def blots(seed: int, side: int = 160) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def counted(examples: list[Example]) -> DataReport:
    return report(examples, {}, {})


def random_examples(count: int = 300) -> list[Example]:
    rng = np.random.default_rng(0)
    examples = []
    for n in range(count):
        product = int(rng.integers(40))
        labels = {"category": f"c{product % 7}"} if rng.random() < 0.8 else {}
        examples.append(
            Example(
                Path(f"/{n}.jpg"),
                "shop",
                f"p{product}" if rng.random() < 0.9 else None,
                labels,
                catalogue=bool(rng.random() < 0.3),
                source=f"s{int(rng.geometric(0.3))}" if rng.random() < 0.7 else None,
                split=["train", "val"][int(rng.integers(2))],
            )
        )
    return examples


def test_counts_are_those_of_a_plain_loop() -> None:
    examples = random_examples()
    (dataset,) = counted(examples).datasets
    for name, values in {
        "product": [e.product for e in examples if e.product],
        "category": [e.labels["category"] for e in examples if e.labels],
    }.items():
        column, counts = dataset.column(name), Counter(values)
        assert column is not None
        assert {entry.name: entry.pictures for entry in column.classes} == counts
        assert column.pictures == len(values)
        assert column.coverage == len(values) / len(examples)
        assert (column.fewest, column.most) == (min(counts.values()), max(counts.values()))
        assert column.median == statistics.median(counts.values())
        assert set(column.single) == {value for value, count in counts.items() if count == 1}
    assert dataset.catalogue == sum(e.catalogue for e in examples)
    assert dataset.photos + dataset.catalogue == len(examples)
    sources = Counter(e.source for e in examples if e.source)
    assert dataset.sources.largest[0] == ClassCount(*sources.most_common(1)[0])
    assert dataset.sources.largest_share == max(sources.values()) / sum(sources.values())
    photographed = {e.product for e in examples if e.product and not e.catalogue}
    assert set(dataset.products_without_photo) == {e.product for e in examples if e.product} - photographed


def test_a_category_under_two_departments_is_named() -> None:
    rows = [("apple", "fruit")] * 5 + [("pear", "fruit")] * 4 + [("leek", "vegetables")] * 3
    rows += [("fig", "fruit"), ("kale", "vegetables"), ("apple", "vegetables")]
    examples = [
        Example(Path(f"/{n}"), "shop", labels={"category": c, "department": d})
        for n, (c, d) in enumerate(rows)
    ]
    (wrong,) = counted(examples).datasets[0].contradictions
    assert (wrong.column, wrong.value, wrong.coarser) == ("category", "apple", "department")
    assert wrong.under == (ClassCount("fruit", 5), ClassCount("vegetables", 1))


def test_columns_that_do_not_lie_under_one_another_contradict_nothing() -> None:
    examples = [
        Example(Path(f"/{n}"), "shop", labels={"category": f"c{n % 5}", "colour": f"k{n % 3}"})
        for n in range(60)
    ]
    assert counted(examples).datasets[0].contradictions == ()


def test_a_class_from_one_source_is_named() -> None:
    examples = [
        Example(
            Path(f"/{n}"),
            "d",
            labels={"label": "hat" if n < 10 else "shoe"},
            source="a" if n < 8 else f"s{n}",
        )
        for n in range(30)
    ]
    (entry,) = counted(examples).datasets[0].sources.concentrated
    assert (entry.value, entry.source, entry.share, entry.pictures) == ("hat", "a", 0.8, 10)


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (blots(0), None),
        (blots(0).filter(ImageFilter.GaussianBlur(8)), "blurred"),
        (blots(0).point(lambda level: level // 6), "dark"),
        (blots(0).resize((40, 40)), "small (40 x 40 px"),
        (blots(0).convert("L").point(lambda level: 255 if level > 90 else 0), "overexposed"),
    ],
)
def test_bad_pictures_are_told(picture: Image.Image, fault: str | None, tmp_path: Path) -> None:
    picture.save(tmp_path / "p.png")
    found = faults(measure(tmp_path / "p.png"), catalogue=False)
    assert [text.startswith(fault) for text in found] == [True] if fault else found == []


def test_a_catalogue_picture_may_stand_on_white(tmp_path: Path) -> None:
    page = Image.new("RGB", (200, 200), "white")
    page.paste(blots(1, 100), (50, 50))
    page.save(tmp_path / "p.png")
    measured = measure(tmp_path / "p.png")
    assert faults(measured, catalogue=True) == []
    assert "75% of it is white" in faults(measured, catalogue=False)[0]


# Sources


def table(folder: Path, rows: list[str], header: str = "image,product_id,kind,split,category") -> Path:
    for n, row in enumerate(rows):
        image = folder / row.split(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        if not image.exists():
            blots(n).save(image)
    path = folder / "shop.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


ROWS = [
    f"{p}-{n}.png,p{p},{'photo' if n else 'catalogue'},{'val' if n == 2 else 'train'},{category}"
    for p, category in enumerate(["tea", "tea", "jam", "jam"])
    for n in range(4)
]


def test_a_misspelt_split_or_class_is_refused_with_the_nearest(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    assert len(examples_of(DataEntry("shop.csv", splits=("train",)), tmp_path)) == 12
    for entry, message in {
        ("splits", ("trian",)): "split `trian`: did you mean `train`",
        ("without", ("category", "jams")): "no picture has the category `jams`: did you mean `jam`",
        ("without", ("categori", "jam")): "no picture has a `categori`: did you mean `category`",
        ("without", ("product", "q1")): "no picture has the product `q1`: did you mean `p1`",
    }.items():
        name, values = entry
        given = DataEntry("shop.csv", splits=values) if name == "splits" else None
        given = given or DataEntry("shop.csv", without={values[0]: (values[1],)})
        with pytest.raises(InvalidArgument, match=message):
            examples_of(given, tmp_path)
    with pytest.raises(InvalidArgument, match="no picture is left"):
        examples_of(DataEntry("shop.csv", without={"category": ("tea", "jam")}), tmp_path)


def test_a_filter_of_a_card_that_keeps_no_row_is_refused(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    card = tmp_path / "shop.toml"
    card.write_text('path = "shop.csv"\nwhere = { category = ["tea", "jem"] }\n')
    with pytest.raises(BadFile, match="`category` is nowhere 'jem' as `where` says: did you mean `jam`"):
        examples_of(DataEntry("shop.toml"), tmp_path)


def test_an_empty_class_folder_is_refused_and_hidden_files_are_left(tmp_path: Path) -> None:
    for name in (
        "pictures/hat/1.png",
        "pictures/hat/._1.png",
        "pictures/__MACOSX/2.png",
        "pictures/loose.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        blots(1).save(tmp_path / name)
    examples = examples_of(DataEntry("pictures"), tmp_path)
    assert [(e.path.name, dict(e.labels)) for e in examples] == [
        ("1.png", {"label": "hat"}),
        ("loose.png", {}),
    ]
    (tmp_path / "pictures" / "shoe").mkdir()
    with pytest.raises(BadFile, match="label `shoe` has no pictures: add some, or remove its folder"):
        examples_of(DataEntry("pictures"), tmp_path)


def test_rows_without_kind_are_what_the_card_says(tmp_path: Path) -> None:
    table(tmp_path, ["a.png,p1", "b.png,p1"], header="image,product_id")
    (tmp_path / "photos.toml").write_text('path = "shop.csv"\nkind = "photo"\n')
    assert all(example.catalogue for example in examples_of(DataEntry("shop.csv"), tmp_path))
    assert not any(example.catalogue for example in examples_of(DataEntry("photos.toml"), tmp_path))


# The command


def test_the_command_reports_and_refuses(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    blots(4 + 1, side=140).save(tmp_path / "3-2.png")  # as 1-1.png, smaller: val and train
    (tmp_path / "0-3.png").write_bytes(b"no picture")
    arguments = ["shop.csv", "--data", str(tmp_path), "--cache", str(tmp_path / "kept" / "pictures.jsonl")]
    page = tmp_path / "page.html"

    result = CliRunner().invoke(command, [*arguments, "--html", str(page)])
    assert result.exit_code == 0, result.output
    for part in (
        "shop: 16 pictures, 12 photos and 4 of the catalogue; train 12, val 4",
        "photographs that are there several times: 1, across splits: 1",
        "saved again, ACROSS SPLITS, different labels",
        "unreadable files: 1",
        "training would refuse this",
        "`skip_unreadable = true`",
    ):
        assert part in result.stdout
    text = page.read_text()
    assert "3-2.png" in text
    assert text.count("data:image/jpeg") == 2
    assert "is no picture" in text
    assert "http" not in text.replace("https://", "http").split("<body>")[1]

    values = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    assert values["pictures"] == 16
    assert values["near_duplicates"][0]["across"]
    assert [Path(p).name for p in values["near_duplicates"][0]["pictures"]] == ["1-1.png", "3-2.png"]
    assert len(values["refusals"]) == 2
    assert values["datasets"][0]["columns"][0]["median"] == 4

    failed = CliRunner().invoke(command, [*arguments, "--check"])
    assert isinstance(failed.exception, FailedPrecondition)
    assert CliRunner().invoke(command, []).exit_code == 2


def test_the_command_takes_a_recipe(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'taxonomy = ["category"]\nlevel_weights = [0.5, 1.0]\n'
        '[[data]]\ndata = "shop.csv"\nsplits = ["train"]\n'
        '[[held_out]]\ndata = "shop.csv"\nsplits = ["val"]\n'
    )
    arguments = ["--recipe", str(recipe), "--data", str(tmp_path), "--cache", str(tmp_path / "c.jsonl")]
    result = CliRunner().invoke(command, [*arguments, "--json", "--check"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["pictures"], values["refusals"]) == (16, [])


@pytest.mark.data
def test_real_photos_of_different_splits_are_no_copies(tmp_path: Path) -> None:
    """Photos of one shelf look alike; none is taken for another across splits."""
    if "MAGPIE_DATA" not in os.environ:
        pytest.skip("set MAGPIE_DATA to the folder of development photos")
    data = Path(os.environ["MAGPIE_DATA"])
    names = ["grocery-store", "clothing-top10", "lego-minifig-108"]
    arguments = [*names, "--data", str(data), "--cache", str(tmp_path / "c.jsonl"), "--json"]
    values = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert not any(group["across"] for group in values["near_duplicates"])
    assert len(values["near_duplicates"]) <= 3
    assert values["refusals"] == []
