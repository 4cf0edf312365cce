"""Mended annotations put over those that there were: photos that nobody looked at again stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Two COCO files, photos told apart by `file_name`, classes by `name`: what `new` has replaces `old`'s.

    A photo's other fields, such as its licence, stay; numbers are given anew.
    """
    fresh = {image["file_name"]: image for image in new["images"]}
    known = {image["file_name"]: image for image in old["images"]}
    categories: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name in dict.fromkeys([*known, *fresh]):
        source = new if name in fresh else old
        number = (fresh if name in fresh else known)[name]["id"]
        image = {**known.get(name, {}), **fresh.get(name, {}), "id": len(images) + 1}
        images.append(image)
        labels = {category["id"]: str(category["name"]) for category in source["categories"]}
        for annotation in source["annotations"]:
            if annotation.get("image_id") == number:
                # A class that the old file does not name stays unnamed, to be listed as before.
                label = labels.get(annotation.get("category_id"))
                category = 0 if label is None else categories.setdefault(label, len(categories) + 1)
                place = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category}
                annotations.append({**annotation, **place})
    named = [{"id": number, "name": name} for name, number in categories.items()]
    return {**old, "images": images, "categories": named, "annotations": annotations}
