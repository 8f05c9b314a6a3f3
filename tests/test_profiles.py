"""Embedded colour profiles: converted to sRGB where they differ from it, in every format."""

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from hostile_images import DAMAGE
from picture_cases import blocks, noise, pale, saved
from profiles import (
    SRGB,
    cmyk_profile,
    encoded,
    grey_profile,
    profile,
    rgb_profile,
    srgb_curve,
    to_srgb,
)
from towernet.data.decode import decode
from towernet.data.formats import BadImage
from towernet.data.profiles import MAX_PROFILE_BYTES
from towernet.data.rules import BEFORE, NOW

SRGB_PROFILES = {
    "by lcms": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "as a table": rgb_profile(SRGB, srgb_curve()),
}


def check_colours(decode_pixels, content, expected, tolerance=1.0):
    assert np.abs(decode_pixels(content).astype(float) - expected).max() <= tolerance


FORMATS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("file_format", FORMATS)
def test_wide_colours_become_srgb(file_format):
    image = Image.fromarray(noise(3))
    content = saved(image, file_format, icc_profile=rgb_profile(), **FORMATS[file_format])
    check_colours(lambda content: decode(content, NOW).pixels, content, to_srgb(noise(3)))
    assert decode(content, NOW).notes == ("ICC_CONVERTED",)
    assert (decode(content, BEFORE).pixels == noise(3)).all()
    with pytest.raises(AssertionError):  # as before: ignored
        check_colours(lambda content: decode(content).pixels, content, to_srgb(noise(3)))


def test_lossy_formats_and_palettes_are_converted_too():
    image = Image.fromarray(pale())
    options = {"quality": 100, "subsampling": 0, "icc_profile": rgb_profile()}
    check_colours(
        lambda content: decode(content, NOW).pixels, saved(image, "JPEG", **options),
        to_srgb(pale()), 3,
    )  # fmt: skip
    if features.check("avif"):
        options = {"quality": 100, "subsampling": "4:4:4", "icc_profile": rgb_profile()}
        check_colours(
            lambda content: decode(content, NOW).pixels, saved(image, "AVIF", **options),
            to_srgb(pale()), 5,
        )  # fmt: skip
    image = Image.fromarray(blocks(3)).quantize(30)
    shown = np.asarray(image.convert("RGB"))
    content = saved(image, "PNG", icc_profile=rgb_profile())
    check_colours(lambda content: decode(content, NOW).pixels, content, to_srgb(shown))


def test_colours_are_converted_before_they_are_blended():
    four = noise(4)
    content = saved(Image.fromarray(four), "PNG", icc_profile=rgb_profile())
    alpha = four[..., 3:] / 255
    expected = to_srgb(four[..., :3]) * alpha + 255 * (1 - alpha)
    check_colours(lambda content: decode(content, NOW).pixels, content, expected)
    assert decode(content, NOW).notes == ("ALPHA", "ICC_CONVERTED")


@pytest.mark.parametrize("name", SRGB_PROFILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_profile_that_means_srgb_changes_no_bit(name, channels):
    content = saved(Image.fromarray(noise(channels)), "PNG", icc_profile=SRGB_PROFILES[name])
    decoded = decode(content, NOW)
    assert decoded.notes == ()
    assert (decoded.pixels == decode(content).pixels).all()


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_grey_profiles(gamma):
    grey = noise(1)
    content = saved(Image.fromarray(grey), "PNG", icc_profile=grey_profile(gamma))
    expected = np.repeat(encoded((grey / 255) ** gamma)[..., None], 3, -1)
    check_colours(lambda content: decode(content, NOW).pixels, content, expected)
    deep = grey.astype(np.uint16) * 257
    content = saved(Image.fromarray(deep), "PNG", icc_profile=grey_profile(gamma))
    check_colours(lambda content: decode(content, NOW).pixels, content, expected)
    assert decode(content, NOW).notes == ("SIXTEEN_BIT", "ICC_CONVERTED")


def test_inks_become_the_colours_of_their_profile():
    ink = (np.random.default_rng(3).integers(0, 2, (40, 48, 4)) * 255).astype(np.uint8)
    content = saved(Image.fromarray(ink, "CMYK"), "TIFF", icc_profile=cmyk_profile())
    light = 100 * (1 - ink[..., :3].mean(-1) / 255) * (1 - ink[..., 3] / 255)
    expected = encoded(np.where(light > 8, ((light + 16) / 116) ** 3, light / 903.3))
    expected = np.repeat(expected[..., None], 3, -1)
    check_colours(lambda content: decode(content, NOW).pixels, content, expected)
    assert decode(content, NOW).notes == ("CMYK", "ICC_CONVERTED")


UNUSABLE = {
    "no profile": b"no profile at all",
    "zeros": bytes(70_000),
    "cut off": rgb_profile()[:300],
    "of inks": cmyk_profile(),
    "of grey": grey_profile(),
    "of L*a*b*": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    "a link": profile(b"RGB ", {}, device=b"link"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_profile_is_ignored_with_a_note(name):
    content = saved(Image.fromarray(noise(3)), "TIFF", icc_profile=UNUSABLE[name])
    decoded = decode(content, NOW)
    assert (decoded.pixels == noise(3)).all()
    assert decoded.notes == ("ICC_IGNORED",)


def test_a_huge_profile_is_ignored():
    huge = rgb_profile() + bytes(MAX_PROFILE_BYTES)
    content = saved(Image.fromarray(blocks(3)), "TIFF", icc_profile=huge)
    assert decode(content, NOW).notes == ("ICC_IGNORED",)


def test_damaged_profiles_raise_only_bad_image():
    rng, outcomes = np.random.default_rng(5), set()
    image = Image.fromarray(noise(3)[:9, :9])
    sources = (rgb_profile(), rgb_profile(SRGB, srgb_curve()), cmyk_profile(), grey_profile())
    for i in range(240):
        damaged = DAMAGE[rng.integers(len(DAMAGE))](sources[i % 4], rng)
        one = image.convert(("RGB", "RGB", "CMYK", "L")[i % 4])
        try:
            decoded = decode(saved(one, "TIFF", icc_profile=damaged), NOW)
        except BadImage:
            outcomes.add("refused")
        else:
            outcomes |= set(decoded.notes)
    assert outcomes >= {"ICC_CONVERTED", "ICC_IGNORED"}


def test_the_result_does_not_depend_on_what_was_decoded_before():
    first = saved(Image.fromarray(noise(3)), "PNG", icc_profile=rgb_profile())
    whole = decode(first, NOW).pixels
    for i in range(40):  # more profiles than are kept
        other = rgb_profile(words=b"number %d" % i)
        assert (decode(saved(Image.fromarray(noise(3)), "PNG", icc_profile=other), NOW).pixels
                == whole).all()  # fmt: skip
    assert (decode(first, NOW).pixels == whole).all()
