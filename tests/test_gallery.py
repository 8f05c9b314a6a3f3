"""The gallery of a data set."""

import numpy as np
import pytest
from PIL import Image

from towernet.data.check import check
from towernet.data.gallery import MAX_CLASSES, gallery
from towernet.data.source import open_source
from towernet.errors import DataError

COLOURS = {"azure": (0, 127, 255), "lime": (190, 255, 0), "rose": (255, 0, 127)}


def data_of(folder, colours, num=3):
    """Each class has one colour, which identifies it in a tile; a grey corner gives the image."""
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(num):
            image = Image.new("RGB", (40, 40), colour)
            image.paste((40 * i, 40 * i, 40 * i), (0, 0, 20, 20))
            image.save(folder / name / f"{i}.png")
    source = open_source(str(folder))
    return source, check(source, workers=1)


def colours_seen(image):
    return {tuple(int(value) for value in pixel) for pixel in np.asarray(image).reshape(-1, 3)}


def test_each_class_is_shown_once_in_its_order(tmp_path):
    source, table = data_of(tmp_path / "data", COLOURS)
    image = gallery(table, source, seed=0)
    pixels = np.asarray(image)
    tile = 210  # 200 pixels and a gap; below it its caption
    assert image.size[0] == 2 * tile + 10
    assert tuple(pixels[150, 150]) == COLOURS["azure"]
    assert tuple(pixels[150, 150 + tile]) == COLOURS["lime"]
    assert tuple(pixels[150 + image.size[1] // 2, 150]) == COLOURS["rose"]
    assert (pixels[-150:, -150:] == 255).all()  # the fourth place is empty
    assert (pixels[215:235, 10:210] < 120).any()  # the caption


def test_the_choice_is_a_function_of_the_seed_and_the_images(tmp_path):
    source, table = data_of(tmp_path / "data", COLOURS, num=6)
    first = gallery(table, source, seed=3).tobytes()
    assert gallery(table.iloc[::-1], source, seed=3).tobytes() == first
    assert any(gallery(table, source, seed=seed).tobytes() != first for seed in range(4, 10))


def test_quarantined_images_are_not_shown(tmp_path):
    source, table = data_of(tmp_path / "data", COLOURS)
    table.loc[table.class_name == "lime", "status"] = "quarantined"
    assert COLOURS["lime"] not in colours_seen(gallery(table, source, seed=0))


@pytest.mark.parametrize("num_classes", [2, 4, 5, 9, 10])
def test_the_grid_is_the_smallest_square_that_holds_all(tmp_path, num_classes):
    colours = {f"class {i}": (0, 10 * i, 200) for i in range(num_classes)}
    source, table = data_of(tmp_path / "data", colours, num=1)
    image = gallery(table, source, seed=0)
    assert set(colours.values()) <= colours_seen(image)
    assert image.size[0] == int(np.ceil(num_classes**0.5)) * 210 + 10


def test_hostile_and_long_names_are_only_drawn(tmp_path):
    colours = {"x" * 200: (1, 2, 3), "<b>\n\x1b[31m‮": (4, 5, 6), "caf\udce9": (7, 8, 9)}
    source, table = data_of(tmp_path / "data", colours)
    image = gallery(table, source, seed=0)
    assert set(colours.values()) <= colours_seen(image)
    caption = np.asarray(image)[215:235, :10]
    assert (caption == 255).all()  # the long name does not reach the margin


def test_many_classes_make_small_tiles_and_no_giant_picture(tmp_path):
    names = range(MAX_CLASSES + 1)
    colours = {f"{i:04}": (i % 256, i // 256, 77) for i in names} | {
        f"{MAX_CLASSES - 1:04}": (250, 5, 250),
        f"{MAX_CLASSES:04}": (5, 250, 5),
    }
    source, table = data_of(tmp_path / "data", colours, num=1)
    image = gallery(table, source, seed=0)
    assert max(image.size) < 2000
    seen = colours_seen(image)
    assert colours["0399"] in seen
    assert colours["0400"] not in seen


def test_no_usable_image_and_a_changed_file_give_one_sentence(tmp_path):
    source, table = data_of(tmp_path / "data", COLOURS)
    (tmp_path / "data" / "rose" / "0.png").write_bytes(b"")
    only = table[table.path == "rose/0.png"]
    with pytest.raises(DataError, match=r"rose/0\.png changed since it was checked; run the comm"):
        gallery(only, source, seed=0)
    with pytest.raises(DataError, match="no usable image was found, so there is no gallery"):
        gallery(table[:0], source, seed=0)
