"""Near duplicates: the same as from comparing all pairs, tied, and never chained into a lump."""

import contextlib
import hashlib
import io
import time
from types import SimpleNamespace

import imagehash
import numpy as np
import pytest
from PIL import Image

from towernet.data import duplicates, turns
from towernet.data import thumbnails as stored
from towernet.data.decode import decode
from towernet.data.duplicates import find, groups
from towernet.data.thumbnails import Thumbnails
from towernet.errors import EnvironmentFault


def thumbnail(image):
    grey = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    return np.asarray(grey).reshape(-1)


def blocks(num, seed=0):
    """(num, 1024) random thumbnails, all different."""
    small = np.random.default_rng(seed).integers(0, 256, (num, 8, 8), dtype=np.uint8)
    return np.kron(small, np.ones((1, 4, 4), np.uint8)).reshape(num, 1024)


def ids(num, salt="file"):
    return [hashlib.sha256(f"{salt}{i}".encode()).hexdigest() for i in range(num)]


def found(thumbnails, class_names=None, pixel_ids=None, order=None):
    """Return what is found, with clusters by name. Row i is file `order[i]`."""
    num, thumbnails = len(thumbnails), np.asarray(thumbnails)
    order = np.arange(num) if order is None else order
    near = find(
        np.arange(num, dtype=np.uint64)[order] if pixel_ids is None else pixel_ids,
        lambda some: thumbnails[order[some]],
        np.unique(class_names or ["a"] * num, return_inverse=True)[1],
    )
    names, name_of = [""] * num, ids(num)
    for members in groups(near.clusters):
        for member in members:
            names[member] = min(name_of[order[one]] for one in members)
    return SimpleNamespace(**(vars(near) | {"clusters": names}))


@pytest.mark.parametrize("memory_bytes", [stored._MEMORY_BYTES, 2000])
def test_thumbnails_are_read_as_they_were_written_in_memory_or_not(
    tmp_path, monkeypatch, memory_bytes
):
    monkeypatch.setattr(stored, "_MEMORY_BYTES", memory_bytes)
    grey = blocks(50)
    with contextlib.closing(Thumbnails(tmp_path / "cache")) as thumbnails:
        for position in np.random.default_rng(0).permutation(50).tolist():
            if position != 7:  # one that was never decoded
                thumbnails.write(position, grey[position].tobytes())
        some = np.array([49, 3, 3, 0, 8])
        assert (thumbnails.read(some) == grey[some]).all()
    assert not list((tmp_path / "cache").iterdir())


def test_thumbnails_that_cannot_be_written_are_an_environment_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"thumbnails, a kilobyte for each image, cannot be"):
        Thumbnails(tmp_path / "file" / "cache")


def test_the_hash_is_that_of_imagehash():
    thumbnails = blocks(20)
    for grey, value in zip(thumbnails, duplicates.perceptual_hashes(thumbnails), strict=True):
        bits = imagehash.phash(Image.fromarray(grey.reshape(32, 32))).hash
        assert (np.unpackbits(np.array([value]).view(np.uint8)) == bits.reshape(-1)).all()


def check_candidates(candidates):
    """All pairs at most two bits apart are proposed, and no others, each once."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, 120, dtype=np.uint64)
    for at in range(60):  # neighbours that differ in 0 … 4 bits anywhere
        wrong = rng.choice(64, at % 5, replace=False)
        hashes[60 + at] = hashes[at] ^ np.bitwise_or.reduce(
            np.uint64(1) << wrong.astype(np.uint64), initial=np.uint64(0)
        )
    expected = [
        (i, j)
        for i in range(120)
        for j in range(i + 1, 120)
        if int(hashes[i] ^ hashes[j]).bit_count() <= 2
    ]
    assert len(expected) >= 36
    assert sorted(map(tuple, candidates(hashes).tolist())) == expected


def candidates(hashes):
    """The candidates of all bands."""
    pairs = []
    for number, mask in enumerate(duplicates._BANDS):
        order = np.lexsort((hashes, hashes & mask))
        pairs.append(order[duplicates._candidates(hashes[order], number, len(hashes))])
    return np.sort(np.concatenate(pairs), axis=1)


def test_candidates_are_those_of_comparing_all_with_all():
    check_candidates(candidates)


def test_the_check_of_candidates_rejects_a_search_in_one_band(monkeypatch):
    monkeypatch.setattr(duplicates, "_BANDS", duplicates._BANDS[:1])
    with pytest.raises(AssertionError):
        check_candidates(candidates)


def photograph(seed=0):
    """A smooth image with edges, like a photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :160] / 40
    waves = sum(np.sin(x * rng.uniform(-3, 3) + y * rng.uniform(-3, 3) + i) for i in range(6))
    pixels = np.clip(128 + 30 * waves[..., None] + rng.uniform(-30, 30, 3), 0, 255)
    pixels[30:70, 40:90] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    ("change", "at_least"),
    [
        (lambda image: image.resize((80, 60), Image.Resampling.BICUBIC), 30),
        (lambda image: image.resize((320, 240), Image.Resampling.BILINEAR), 30),
        (lambda image: image.convert("L"), 30),
        (lambda image: image.crop((1, 1, 159, 119)), 27),
        (lambda image: saved_again(image, 40), 30),
    ],
    ids=["smaller", "larger", "grey", "one pixel cropped", "JPEG of quality 40"],
)
def test_a_photograph_in_other_bytes_is_found(change, at_least):
    pictures = [photograph(seed) for seed in range(30)]
    changed = [change(picture) for picture in pictures]
    clusters = found([thumbnail(one) for one in [*pictures, *changed]]).clusters
    assert clusters[:30] == clusters[30:]
    assert len(set(clusters) - {""}) >= at_least


def saved_again(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.fromarray(decode(stream.getvalue()).pixels)


# --- turned and mirrored copies

TURNS = range(8)


def turned(image, turn):
    """A turned picture, made by Pillow: an implementation of its own."""
    if turn >= 4:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for _ in range(turn % 4):
        image = image.transpose(Image.Transpose.ROTATE_270)  # clockwise by 90 degrees
    return image


def near_copy(image):
    width, height = image.size
    return saved_again(image.resize((width * 4 // 5, height * 4 // 5)), 60)


def check_that_turned_copies_are_found(turn, copied):
    """Each of 30 photographs is tied to its copy, and it is known how the copy is turned."""
    pictures = [photograph(seed) for seed in range(30)]
    copies = [copied(turned(picture, turn)) for picture in pictures]
    near = found([thumbnail(one) for one in [*pictures, *copies]])
    assert near.clusters[:30] == near.clusters[30:]
    assert len(set(near.clusters) - {""}) == 30
    for original, copy in zip(near.turns[:30].tolist(), near.turns[30:].tolist(), strict=True):
        assert turns.then(turns.back(original), copy) == turn


@pytest.mark.parametrize("copied", [lambda image: image, near_copy], ids=["exact", "near"])
@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_or_mirrored_photograph_is_found(turn, copied):
    check_that_turned_copies_are_found(turn, copied)


@pytest.mark.parametrize("turn", [1, 3, 5, 7])
def test_the_check_of_turned_copies_rejects_hashes_without_exchanged_axes(monkeypatch, turn):
    def without_exchange(low_NHW, turn):
        sign_W = (-1.0) ** np.arange(8)
        return low_NHW * (sign_W if turn in (4, 5, 7) else 1)

    monkeypatch.setattr(duplicates, "turned_frequencies", without_exchange)
    with pytest.raises(AssertionError):
        check_that_turned_copies_are_found(turn, lambda image: image)


@pytest.mark.parametrize("turn", [2, 4, 6])
def test_the_check_of_turned_copies_rejects_hashes_without_signs(monkeypatch, turn):
    monkeypatch.setattr(duplicates, "turned_frequencies", lambda low_NHW, turn: low_NHW)
    with pytest.raises(AssertionError):
        check_that_turned_copies_are_found(turn, lambda image: image)


@pytest.mark.parametrize("turn", TURNS)
def test_turned_frequencies_are_those_of_the_turned_thumbnail(turn):
    grey = blocks(5)
    of_turned = turns.turned(grey.reshape(-1, 32, 32), turn).reshape(5, -1)
    np.testing.assert_allclose(
        turns.turned_frequencies(duplicates._low_frequencies(grey), turn),
        duplicates._low_frequencies(of_turned),
        atol=1e-6,
    )


def test_a_turn_is_undone_and_followed_by_another():
    square = np.arange(9).reshape(1, 3, 3)
    for first in TURNS:
        once = turns.turned(square, first)
        assert (turns.turned(once, turns.back(first)) == square).all()
        for second in TURNS:
            both = turns.turned(square, turns.then(first, second))
            assert (turns.turned(once, second) == both).all()


def test_turned_copies_of_two_classes_are_reported_and_not_tied():
    six = photograph()
    thumbnails = [thumbnail(one) for one in (six, turned(six, 1), turned(six, 4), photograph(1))]
    near = found(thumbnails, ["a", "b", "a", "a"])
    assert [bool(name) for name in near.clusters] == [True, False, True, False]
    assert not near.across_classes.any()
    pairs = near.turned_across.tolist()
    assert pairs and all({first, second} & {1} for first, second, _ in pairs)
    for first, second, turn in pairs:
        upright = np.asarray(thumbnails[second]).reshape(1, 32, 32)
        difference = turns.turned(upright, turn).reshape(-1) - thumbnails[first].astype(int)
        assert np.abs(difference).mean() < 1


def disc(radius, grey):
    y, x = np.mgrid[:32, :32] - 15.5
    return np.where(x**2 + y**2 < radius**2, grey, 255).astype(np.uint8).reshape(-1)


def test_symmetric_and_plain_pictures_are_not_chained_by_being_turned(monkeypatch):
    rng = np.random.default_rng(3)
    plain = [np.full(1024, grey, np.uint8) for grey in range(0, 240, 12)]
    nearly_plain = [(245 + rng.integers(0, 6, 1024)).astype(np.uint8) for _ in range(20)]
    discs = [disc(radius, grey) for radius in (4, 6, 8, 10, 12) for grey in (0, 60, 120, 180)]
    thumbnails = np.array([*plain, *nearly_plain, *discs])
    near = found(thumbnails, ["a"] * 60)
    nothing = np.empty((0, 3), np.int64)
    monkeypatch.setattr(duplicates, "_turned", lambda *_: nothing)
    upright = found(thumbnails, ["a"] * 60)
    assert near.clusters == upright.clusters
    assert (near.in_lump == upright.in_lump).all()


def test_an_augmented_folder_is_tied_by_its_originals():
    originals = [photograph(seed) for seed in range(6)]
    near = found([thumbnail(turned(one, turn)) for one in originals for turn in TURNS])
    assert not near.in_lump.any()
    names = np.array(near.clusters).reshape(6, 8)
    assert all(len(set(row)) == 1 for row in names.tolist()) and len(set(names[:, 0])) == 6


def test_two_originals_eight_times_are_too_few_to_be_tied():
    originals = [photograph(seed) for seed in range(2)]
    near = found([thumbnail(turned(one, turn)) for one in originals for turn in TURNS])
    assert near.in_lump.all() and set(near.clusters) == {""}


def test_of_a_turned_lump_only_what_is_alike_without_being_turned_is_tied():
    pictures = [photograph(), photograph()] + [turned(photograph(), turn) for turn in TURNS[1:]]
    near = found([thumbnail(near_copy(one) if i else one) for i, one in enumerate(pictures)])
    assert near.in_lump.all()
    assert np.flatnonzero(near.clusters).tolist() == [0, 1]


def test_turned_copies_are_found_in_any_order_of_the_files():
    pictures = [turned(photograph(i // 4), i % 8) for i in range(40)] + [photograph(70)]
    thumbnails = np.array([thumbnail(one) for one in pictures])
    classes = np.array(["ab"[i % 3 == 0] for i in range(41)])
    near, order = found(thumbnails, list(classes)), np.random.default_rng(1).permutation(41)
    shuffled = found(thumbnails, list(classes[order]), order=order)
    assert list(np.array(near.clusters)[order]) == shuffled.clusters
    reported = {frozenset(pair) for pair in near.turned_across[:, :2].tolist()}
    assert {
        frozenset(order[pair].tolist()) for pair in shuffled.turned_across[:, :2]
    } == reported and reported


def test_different_pictures_with_similar_hashes_are_not_tied():
    dark = blocks(1)[0] // 4
    bright = dark + 150  # the same frequencies except for the mean: the same hash
    hashes = duplicates.perceptual_hashes(np.stack([dark, bright]))
    assert int(hashes[0] ^ hashes[1]).bit_count() <= 2
    assert found(np.stack([dark, bright])).clusters == ["", ""]


def test_clusters_are_named_by_their_smallest_content_whatever_the_order():
    thumbnails = blocks(40)
    thumbnails[[7, 21, 33]] = thumbnails[3]
    names = np.array(found(thumbnails).clusters)
    assert set(np.flatnonzero(names)) == {3, 7, 21, 33}
    assert set(names[[3, 7, 21, 33]]) == {min(ids(40)[i] for i in (3, 7, 21, 33))}
    order = np.random.default_rng(0).permutation(40)
    shuffled = found(thumbnails, order=order)
    assert list(names[order]) == shuffled.clusters


def test_identical_pixels_are_tied_whatever_their_thumbnails():
    pixel_ids = np.arange(10, dtype=np.uint64)
    pixel_ids[8] = pixel_ids[2]
    clusters = found(blocks(10), pixel_ids=pixel_ids).clusters
    assert [bool(name) for name in clusters] == [i in (2, 8) for i in range(10)]


def test_a_near_duplicate_in_another_class_is_reported():
    thumbnails = blocks(10)
    thumbnails[9] = thumbnails[0]
    thumbnails[8] = thumbnails[7]
    near = found(thumbnails, ["a"] * 9 + ["b"])
    assert list(np.flatnonzero(near.across_classes)) == [0, 9]
    assert near.clusters[0] == near.clusters[9] != ""


def test_lookalikes_do_not_chain_into_a_lump():
    rng = np.random.default_rng(2)
    walk = blocks(100)
    for i in range(
        1, 20
    ):  # frames of one video: each like the last, the first unlike the twentieth
        walk[i] = np.clip(walk[i - 1].astype(int) + rng.integers(-4, 5, 1024), 0, 255)
    pixel_ids = np.arange(100, dtype=np.uint64)
    pixel_ids[5] = pixel_ids[4]
    near = found(walk, pixel_ids=pixel_ids)
    assert list(np.flatnonzero(near.in_lump)) == list(range(20))
    # In the lump only the two that are identical stay together.
    assert list(np.flatnonzero(near.clusters)) == [4, 5]


def test_few_images_are_tied_however_small_the_class():
    thumbnails = blocks(8)
    thumbnails[1:5] = thumbnails[0]
    near = found(thumbnails)
    assert not near.in_lump.any()
    assert len(set(near.clusters[:5])) == 1


def test_a_lump_is_measured_against_each_of_its_classes():
    thumbnails = blocks(220)
    thumbnails[:7] = thumbnails[0]  # 7 of 20 in a, and 7 of 200 in b
    thumbnails[100:107] = thumbnails[100]
    near = found(thumbnails, ["a"] * 20 + ["b"] * 200)
    assert list(np.flatnonzero(near.in_lump)) == list(range(7))
    assert len(set(near.clusters[100:107])) == 1


@pytest.mark.parametrize("num", [0, 1])
def test_none_and_one_picture_have_no_duplicates(num):
    assert found(blocks(num)).clusters == [""] * num


@pytest.mark.parametrize("noise", [0, 2])
def test_a_data_set_of_one_picture_repeated_is_searched_in_bounded_work(noise):
    repeated = np.repeat(blocks(1) // 2 + 20, 3000, axis=0)
    repeated += np.random.default_rng(0).integers(0, noise + 1, repeated.shape, dtype=np.uint8)
    began = time.monotonic()
    near = found(repeated)
    assert time.monotonic() - began < 20  # measured: 1 s
    assert near.in_lump.all()
    assert set(near.clusters) == {""}


def test_ten_thousand_pictures_take_seconds():
    thumbnails = blocks(10_000)
    thumbnails[9_000:] = thumbnails[:1_000]
    began = time.monotonic()
    clusters = found(thumbnails, [str(i % 10) for i in range(10_000)]).clusters
    assert time.monotonic() - began < 20  # measured: 1 s
    assert sum(map(bool, clusters)) == 2_000
