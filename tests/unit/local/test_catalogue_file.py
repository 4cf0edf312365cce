"""Catalogues of users: what is read, and that everything wrong is told at once, with its line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.catalogue_file import read_catalogue
from magpie.tables.csv_table import number
from magpie.tables.problems import BadFile


def write(folder: Path, text: str, *pictures: str) -> Path:
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"picture " + name.encode())
    path = folder / "catalogue.csv"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(BadFile) as caught:
        read_catalogue(path)
    return [str(problem) for problem in caught.value.problems]


def test_products_of_a_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "product_id,image,title,category,price,stock,group,brand,weight,organic,ean\n"
        "p1,a.jpg,Apple juice,Juice,2.50,10,juices,Bird,1.5,true,0012\n"
        "p1,sub/b.jpg,,,,,,,,,\n"
        "p2,c.jpg,Pear juice,Juice,3,,juices,,2,FALSE,34\n",
        "a.jpg",
        "sub/b.jpg",
        "c.jpg",
    )
    catalogue = read_catalogue(path)
    first, second = catalogue.products
    assert (first.id, first.title, first.category, first.group) == ("p1", "Apple juice", "Juice", "juices")
    assert (first.price, first.stock) == (2.5, 10.0)
    assert first.attributes["brand"].text == "Bird"
    assert first.attributes["weight"].number == 1.5
    assert first.attributes["organic"].flag is True
    assert first.attributes["ean"].text == "0012"
    assert list(first.images) == [
        hashlib.sha256(b"picture " + name.encode()).hexdigest() for name in ("a.jpg", "sub/b.jpg")
    ]
    assert second.price == 3.0
    assert not second.HasField("stock")
    assert second.attributes["organic"].WhichOneof("kind") == "flag"
    assert second.attributes["organic"].flag is False
    assert "brand" not in second.attributes
    assert [(p.product_id, p.name) for p in catalogue.pictures] == [
        ("p1", "a.jpg"),
        ("p1", "sub/b.jpg"),
        ("p2", "c.jpg"),
    ]


def test_a_column_of_sets(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "product_id,image,colours[],note\np,a.jpg,white | red|red|,a|b\nq,a.jpg,,c\nr,a.jpg,7,d\n",
        "a.jpg",
    )
    first, second, third = read_catalogue(path).products
    assert list(first.attributes["colours"].texts.values) == ["white", "red"]
    assert first.attributes["note"].text == "a|b"  # only the heading makes sets
    assert set(second.attributes) == {"note"}
    assert list(third.attributes["colours"].texts.values) == ["7"]


def test_problems_of_sets(tmp_path: Path) -> None:
    many = "|".join(map(str, range(101)))
    path = write(
        tmp_path,
        "product_id,image,a[],a,price[],b-c[]\n" + f"p,a.jpg,|,,,\nq,a.jpg,{many},,,\n",
        "a.jpg",
    )
    found = problems(path)
    assert [text.split(":")[0] for text in found] == ["line 1", "line 1", "line 1", "line 2", "line 3"]
    for part in ("`a` and `a[]` are one attribute", "column `price`: filters use that", "column `b-c`"):
        assert any(part in text for text in found[:3]), part
    assert "`a[]` is no set of 1 to 100 texts: '|'" in found[3]


def test_all_problems_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "product_id,image,price,stock,title,color-name,Images,images,And\n"
        "p1,a.jpg,x,1,One,,,,\n"
        "p1,a.jpg,1,-2,One,,,,\n"
        "p2,missing.jpg,1,1,Two,,,,\n"
        ",a.jpg,1,1,Three,,,,\n"
        '"p3",a.jpg,1,1,"Four\nand more",,,,\n'
        "p3,b.jpg,1,1,Five,,,,\n"
        "p4,a.jpg,1\n"
        f"{'x' * 129},a.jpg,nan,1e999,,,,,\n"
        "p5,,1,1,,,,,\n",
        "a.jpg",
        "b.jpg",
    )
    found = problems(path)
    assert [text.split(":")[0] for text in found] == [
        "line 1", "line 1", "line 1", "line 2", "line 3", "line 4", "line 5", "line 8", "line 9", "line 10",
        "line 10", "line 10", "line 11",
    ]  # fmt: skip
    text = "\n".join(found)
    for part in (
        "column `color-name`",
        "column `images`",
        "column `And`",
        "`price` is not a number: 'x'",
        "`stock` is below 0",
        "there is no file",
        "`product_id` is empty",
        "`title` of product `p3` is 'Five', but 'Four\\nand more' on line 6",
        "has 3 cells, the header has 9",
        "129 characters",
        "not a number: 'nan'",
        "not a number: '1e999'",
        "`image` is empty",
    ):
        assert part in text, part


def test_a_doubled_row_names_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "product_id,image\np,a.jpg\nq,a.jpg\np,a.jpg\n", "a.jpg")
    assert problems(path) == ["line 4: product `p` with image a.jpg stands on line 2 already"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("product_id,title\nx,y\n", "line 1: column `image` is missing"),
        ("title\nx\n", "line 1: column `product_id` is missing"),
        ("product_id,image,price,price\n", "line 1: column `price` is there twice"),
        ("product_id,image\n", "has no products"),
        ('product_id,image\n"a,b\n', "is not CSV"),
    ],
)
def test_no_table_to_go_on_with(tmp_path: Path, text: str, problem: str) -> None:
    assert any(problem in found for found in problems(write(tmp_path, text)))


def test_a_file_in_another_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_bytes("product_id,image,title\np,a.jpg,Käse\n".encode("latin-1"))
    assert problems(path) == ["line 2: is not UTF-8: save the file as UTF-8"]


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffproduct_id,image\r\np,a.jpg\r\n", "a.jpg")
    assert [product.id for product in read_catalogue(path).products] == ["p"]


def test_equal_files_of_a_product_are_one_picture(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"picture a.jpg")
    path = write(tmp_path, "product_id,image\np,a.jpg\np,b.jpg\nq,b.jpg\n", "a.jpg")
    catalogue = read_catalogue(path)
    assert [(p.product_id, p.name) for p in catalogue.pictures] == [("p", "a.jpg"), ("q", "b.jpg")]
    assert [len(product.images) for product in catalogue.products] == [1, 1]


def test_a_column_is_of_numbers_only_if_all_of_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "product_id,image,size,empty\np,a.jpg,38,\nq,a.jpg,XL,\n", "a.jpg")
    products = read_catalogue(path).products
    assert [product.attributes["size"].text for product in products] == ["38", "XL"]
    assert all("empty" not in product.attributes for product in products)


def test_products_of_a_folder(tmp_path: Path) -> None:
    write(
        tmp_path, "product_id,image\n", "shoe/1.jpg", "shoe/2.PNG", "shoe/notes.txt", "hat.webp", ".DS_Store"
    )
    catalogue = read_catalogue(tmp_path)
    assert [(product.id, len(product.images)) for product in catalogue.products] == [("hat", 1), ("shoe", 2)]
    assert [picture.name for picture in catalogue.pictures] == ["hat.webp", "shoe/1.jpg", "shoe/2.PNG"]
    assert sorted(Path(name).name for name in catalogue.skipped) == ["catalogue.csv", "notes.txt"]


def test_a_folder_with_one_product_twice(tmp_path: Path) -> None:
    write(tmp_path, "", "hat.webp", "hat/1.jpg")
    assert problems(tmp_path) == ["product `hat` is there twice: hat.webp is the second"]


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    write(tmp_path, "", "notes.txt")
    assert problems(tmp_path) == ["has no pictures: JPEG, PNG and WebP are read"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_as_python_writes_them(value: float) -> None:
    assert number(repr(value)) == value


@pytest.mark.parametrize(
    "text", ["", ".", "e5", "1_000", "1,5", "nan", "inf", "007", "٣", "0x10", "1 2", "--1"]
)
def test_what_is_no_number(text: str) -> None:
    assert number(text) is None
