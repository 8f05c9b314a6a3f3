"""Attention maps: they are the blocks' weights, leave the network unchanged, and are drawn."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from conftest import TINY_NETWORK
from towernet import files
from towernet.attention import ATTENTION, GatedBlock, GlobalContext, attention_maps
from towernet.attention.attach import attach
from towernet.attention.blend import FromIdentity
from towernet.attention.inserted import attention_blocks
from towernet.attention.maps import observing
from towernet.errors import ConfigError, DataError
from towernet.explain.maps import BlockMap, Explanation, explain
from towernet.explain.picture import columns_for, draw, figures, picture, write_picture
from towernet.models.catalogue import build
from towernet.predict import load_run, load_trained, predict_files

DATA, USAGE = 3, 2
NUM_BLOCKS = 3  # of the tiny network, at the end of each stage


def network_with(name: str) -> nn.Module:
    """A network whose gates differ from each other, for images of 64 px."""
    network = build(name, 3, 64 if "towernet" not in name else 128)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def inputs_and_outputs(network: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the input and output of each block, recorded by hooks."""
    seen = {}

    def hook_of(name: str):
        return lambda block, inputs, output: seen.update(
            {name: (inputs[0].clone(), output.clone())}  # later modules may change it in place
        )

    hooks = [block.register_forward_hook(hook_of(name))
             for name, block in attention_blocks(network).items()]  # fmt: skip
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


# The library's function.


@pytest.mark.parametrize("block", sorted(ATTENTION))
@pytest.mark.parametrize("start", ["@stages", "@stages@identity"])
def test_a_map_is_the_weight_that_the_block_applies(block, start):
    network, x = network_with(f"{TINY_NETWORK}+{block}{start}"), torch.rand(2, 3, 64, 64)
    for shown in attention_blocks(network).values():
        if isinstance(shown, FromIdentity):
            shown.gain.data.fill_(0.7)
    seen, maps = inputs_and_outputs(network, x), attention_maps(network, x)
    assert list(maps) == list(attention_blocks(network)) == list(seen)
    others_maps_differ = block == "global_context" or (block, start) == ("shuffle", "@stages")
    for name, (before, after) in seen.items():
        shown = attention_blocks(network)[name]
        gain = shown.gain.detach() if isinstance(shown, FromIdentity) else 1.0
        inner = shown.block if isinstance(shown, FromIdentity) else shown
        if isinstance(inner, GlobalContext):
            torch.testing.assert_close(maps[name].sum(dim=(1, 2, 3)), torch.ones(2))
        elif isinstance(shown, FromIdentity) or block != "shuffle":
            torch.testing.assert_close(after, before * (1 + gain * (maps[name] - 1)))
            others = before * (1 + gain * (maps[name].flip(0) - 1))
            others_maps_differ |= not torch.allclose(after, others)
        else:  # it shuffles the channels after it has weighed them
            weighed = (before * maps[name]).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
            torch.testing.assert_close(after, weighed)
    assert others_maps_differ  # so maps of the other image would be detected


def test_custom_blocks_and_those_on_channels_last_have_maps():
    maps = attention_maps(network_with("towernet"), torch.rand(2, 3, 128, 128))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "attention_3": (2, 256, 8, 8), "attention_4": (2, 256, 4, 4),
        "attention_5": (2, 256, 2, 2), "attention_6": (2, 256, 1, 1),
    }  # fmt: skip
    swin = build("swin_t+cbam@stages", 3, 64)
    shapes = [tuple(m.shape) for m in attention_maps(swin, torch.rand(1, 3, 64, 64)).values()]
    assert shapes == [(1, 96, 16, 16), (1, 192, 8, 8), (1, 384, 4, 4), (1, 768, 2, 2)]


def state_of(network: nn.Module) -> list[object]:
    """Return all state that an observation could change."""
    return [
        [(name, value.clone()) for name, value in network.state_dict().items()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training, list(m._modules))
         for m in network.modules()],
        [p.grad for p in network.parameters()],
        torch.is_grad_enabled(),
    ]  # fmt: skip


def same(before: list[object], after: list[object]) -> bool:
    (old, *others), (new, *other_news) = before, after
    weights = all(torch.equal(a, b) for (_, a), (_, b) in zip(old, new, strict=True))
    return weights and others == other_news


def test_the_network_is_not_changed():
    network, x = (
        build(f"{TINY_NETWORK}+cbam@stages@identity", 3, 64).train(),
        torch.rand(2, 3, 64, 64),
    )
    network.stage3.eval()
    before = state_of(network)
    maps = attention_maps(network, x)
    assert same(before, state_of(network))
    assert not any(m.requires_grad for m in maps.values())
    network.conv5.register_forward_hook(lambda *_: 1 / 0)
    before = state_of(network)
    with pytest.raises(ZeroDivisionError):
        attention_maps(network, x)
    assert same(before, state_of(network))


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.eval(),
        lambda network: network(torch.rand(2, 3, 64, 64)),  # running means
        lambda network: [seen := observing(network, print), seen.__enter__()],
        lambda network: network(torch.rand(2, 3, 64, 64)).sum().backward(),
    ],
)
def test_the_check_detects_a_change(change):
    network = build(f"{TINY_NETWORK}+cbam@stages", 3, 64).train()
    before = state_of(network)
    kept = change(network)  # noqa: F841 - an object without a reference is closed
    assert not same(before, state_of(network))


def test_a_network_without_attention_has_no_maps():
    assert attention_maps(build(TINY_NETWORK, 3, 64), torch.rand(1, 3, 64, 64)) == {}


def test_a_custom_block_has_maps_under_its_own_name():
    class Half(GatedBlock):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def attention_map(self, x_BCHW: Tensor) -> Tensor:
            return torch.full_like(x_BCHW[:, :1, :1, :1], 0.5)

    network = build(TINY_NETWORK, 3, 64)
    attach(network, Half, "stages", start="paper", input_shape=(1, 3, 64, 64))
    maps = attention_maps(network, torch.rand(2, 3, 64, 64))
    assert maps and all((m == 0.5).all() and m.shape == (2, 1, 1, 1) for m in maps.values())


# A trained run, and its picture.


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Path:
    """A network with attention that was trained for a few steps."""
    from towernet.cli.main import main

    folder = tmp_path_factory.mktemp("explain") / "run"
    words = (
        f"train {photos} --model {TINY_NETWORK}+cbam@stages --epochs 1 --size 64 --batch-size 8"
        f" --threads 1 --out {folder}"
    )
    assert main(words.split()) == 0
    return folder


@pytest.fixture(scope="module")
def image(photos) -> Path:
    return photos / "leaning" / "03.png"


@pytest.fixture(scope="module")
def explanation(run, image) -> Explanation:
    return explain(run, image)


def test_it_predicts_the_same_as_predict(run, image, explanation):
    predictor = load_run(run)
    (said,) = predict_files(predictor, [image])
    assert explanation.class_name == predictor.contract.class_names[said.argmax()]
    assert explanation.probability == pytest.approx(said.max(), abs=1e-5)
    assert explanation.pixels_SS3.shape == (64, 64, 3)


def test_its_maps_are_those_of_the_network_that_was_trained(run, explanation):
    trained = load_trained(run)
    mean, std = (torch.tensor(v)[:, None, None]
                 for v in (trained.contract.mean, trained.contract.std))  # fmt: skip
    pixels = torch.from_numpy(explanation.pixels_SS3.copy()).permute(2, 0, 1) / 255
    maps = attention_maps(trained.model, ((pixels - mean) / std)[None])
    assert len(explanation.maps) == len(maps) == NUM_BLOCKS
    for block, (name, weights) in zip(explanation.maps, maps.items(), strict=True):
        assert name == f"{block.place}.added_attention"
        np.testing.assert_allclose(block.weights_CHW, weights[0].numpy(), atol=1e-5)


def texts(explanation: Explanation) -> str:
    figure = draw(explanation)
    found = [text.get_text() for text in figure.texts]
    return "\n".join(found + [text.get_text() for axes in figure.axes for text in axes.texts])


def test_every_block_has_a_panel_with_its_name_place_and_figures(explanation):
    said = texts(explanation)
    assert f"{TINY_NETWORK}+cbam@stages: {explanation.class_name}, " in said
    assert "03.png\nas the network sees it, 64 px" in said
    for block in explanation.maps:
        assert f"{block.place}: cbam\n{figures(block)}, " in said
    num_scales = sum(block.is_spatial for block in explanation.maps)
    axes = draw(explanation).axes
    assert len(axes) == 1 + NUM_BLOCKS
    assert sum(len(a.child_axes) for a in axes) == num_scales > 0


def with_maps(explanation: Explanation, *weights: object, **others: object) -> Explanation:
    maps = tuple(
        BlockMap(f"layer{i}", "mine", np.asarray(w, np.float32), None)
        for i, w in enumerate(weights)
    )
    return replace(explanation, maps=maps, **others)


def test_positions_are_colours_and_channels_sorted_bars(explanation):
    positions = np.arange(12).reshape(1, 3, 4) / 12
    channels = np.array([0.2, 0.9, 0.4])[:, None, None] * np.ones((3, 3, 4))
    drawn = draw(with_maps(explanation, positions, channels[:, :1, :1], channels))
    _, first, second, third = drawn.axes
    np.testing.assert_allclose(first.images[1].get_array(), positions[0], atol=1e-7)
    assert first.images[0].get_extent() == first.images[1].get_extent()
    for axes in (second, third):
        (bars,) = axes.patches
        np.testing.assert_allclose(bars.get_data().values, [0.9, 0.4, 0.2], atol=1e-7)
        assert axes.get_ylim() == (0, 1)


def test_channels_without_differences_between_positions_are_left_out(explanation):
    weights = np.stack([np.full((2, 2), 0.9), [[0.1, 0.2], [0.3, 0.4]]])
    block = with_maps(explanation, weights).maps[0]
    np.testing.assert_allclose(block.positions(), weights[1], atol=1e-7)
    assert block.mean == pytest.approx(weights.mean()) != pytest.approx(weights[1].mean())


def test_a_flat_map_looks_flat(explanation):
    def share_of_the_scale(step: float) -> float:
        weights = np.full((1, 2, 2), 0.7)
        weights[0, 0, 0] += step
        low, high = draw(with_maps(explanation, weights)).axes[1].images[1].get_clim()
        return step / (high - low)

    assert share_of_the_scale(0.001) < 0.02
    assert share_of_the_scale(0.3) == pytest.approx(1)  # it can be full


def test_small_weights_have_enough_digits(explanation):
    weights = np.full((1, 32, 32), 1 / 1024)
    assert figures(with_maps(explanation, weights).maps[0]) == "0.000977 ± 0.000000"
    assert figures(with_maps(explanation, np.ones((1, 1, 1))).maps[0]) == "1.000 ± 0.000"


def test_a_gain_and_an_unsure_prediction_are_shown(explanation):
    maps = (replace(explanation.maps[0], gain=-0.25),)
    said = texts(replace(explanation, maps=maps, sure=False))
    assert ", gain −0.25, " in said
    assert "% (not sure)" in said
    assert "not sure" not in texts(replace(explanation, sure=True))


@pytest.mark.parametrize("num_maps", [1, 4, 8, 16, 50])
def test_the_panels_fill_a_page(explanation, num_maps):
    weights = [np.random.default_rng(0).random((4, 2, 3))] * num_maps
    figure = draw(with_maps(explanation, *weights))
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    apart = [a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
             for i, a in enumerate(boxes) for b in boxes[:i]]  # fmt: skip
    assert all(apart)
    num_columns = columns_for(1 + num_maps)
    assert -(-(1 + num_maps) // num_columns) * num_columns - 1 - num_maps < num_columns
    width, height = figure.get_size_inches()
    assert 0.6 < width / height < 3.2


def cut_off(figure: Figure) -> list[str]:
    """Return the texts that cross the edge of the page or run into another panel."""
    renderer, edge = FigureCanvasAgg(figure).get_renderer(), figure.bbox
    boxes = {text: text.get_window_extent(renderer)
             for holder in (figure, *figure.axes) for text in holder.texts}  # fmt: skip
    over = [text for text, box in boxes.items()
            if box.x0 < 0 or box.x1 > edge.x1 or box.y0 < 0 or box.y1 > edge.y1]  # fmt: skip
    panels = [axes.get_window_extent(renderer) for axes in figure.axes]
    over += [text for text, box in boxes.items()
             if any(box.overlaps(panel) for panel in panels)]  # fmt: skip
    over += [text for text, box in boxes.items()
             if any(text is not other and box.overlaps(boxes[other]) for other in boxes)
             ]  # fmt: skip
    return [text.get_text() for text in over]


@pytest.mark.parametrize("num_maps", [1, 2, 4])
def test_no_text_is_cut_off(explanation, num_maps):
    maps = tuple(
        BlockMap("features.denseblock4.denselayer16.norm2", block, weights.astype(np.float32), gain)
        for weights in (np.full((64, 112, 112), 1e-5), np.ones((1024, 1, 1)))
        for block, gain in (("MyAttentionOfMyOwnThatHasALongName", -0.00123), ("se", None))
    )[:num_maps]
    network = "timm:convnext_tiny+my_package.blocks:MyOwnAttention@last-of-stage@identity"
    figure = draw(replace(explanation, network=network, class_name="SAINT BERNARD " * 9, maps=maps))
    assert cut_off(figure) == []
    figure.texts[0].set_text(figure.texts[0].get_text().replace("\n", " "))
    assert cut_off(figure)  # the check detects it


def test_the_caption_describes_what_is_drawn(explanation):
    blended, bars = (
        texts(with_maps(explanation, weights)) for weights in (np.eye(3)[None], np.ones((3, 1, 1)))
    )
    for said in (blended, bars):
        assert "Above each panel: the layer and its block" in said and "not necessarily why" in said
    assert ("Colours:" in blended, "Bars:" in blended) == (True, False)
    assert ("Colours:" in bars, "Bars:" in bars, "Gain:" in bars) == (False, True, False)
    maps = (replace(explanation.maps[0], gain=0.0021),)
    said = texts(replace(explanation, maps=maps))
    assert "gain 0.0021" in said and "Gain: how much of the block is blended in" in said


def test_names_of_every_kind_are_drawn_and_none_as_a_formula(explanation):
    explanation = replace(explanation, maps=())
    for name in ("a $x^2$ b", "日本語", "$\\undefined{", "line\nbreak", "x" * 300, "caf\udce9"):
        content = picture(replace(explanation, class_name=name, image=Path(name)))
        assert Image.open(io.BytesIO(content)).format == "PNG"
    assert "a $x^2$ b" in texts(replace(explanation, class_name="a $x^2$ b"))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_explanation_gives_the_same_bytes(explanation, kind):
    one, two = (replace(explanation, maps=explanation.maps[:num]) for num in (1, 2))
    assert picture(one, kind) == picture(one, kind) != picture(two, kind)


def test_pyplot_is_not_used(explanation):
    from matplotlib import pyplot

    draw(replace(explanation, maps=()))
    assert pyplot.get_fignums() == []
    pyplot.close(pyplot.figure())  # which would have been counted


def test_the_command_draws_and_lists_the_maps(towernet, run, image, explanation, tmp_path):
    out = tmp_path / "new" / "maps.png"
    done = towernet("explain", run, image, "--out", out)
    assert done.returncode == 0, done.stderr
    block = explanation.maps[0]
    assert f"{block.place}  cbam  {figures(block)}\n" in done.stdout
    assert f"maps.png shows these maps for {image}: {explanation.class_name} " in done.stdout
    drawn = np.asarray(Image.open(out).convert("RGB"))
    assert (drawn[0, 0] == 255).all() and 20 < drawn.std() < 120  # light, and something on it


def test_input_that_cannot_be_drawn_is_refused_in_a_sentence(
    towernet, run, finished_run, image, tmp_path
):
    def refused(words: tuple[object, ...], exit_code: int, message: str) -> None:
        done = towernet("explain", *words, "--out", tmp_path / "maps.png")
        assert (done.returncode, done.stderr) == (exit_code, f"error: {message}\n")

    refused(
        (finished_run, image), USAGE,
        f"{TINY_NETWORK} in {finished_run} has no attention to draw; train one that has, with"
        f" --model {TINY_NETWORK}+se or towernet (`towernet attention` lists the blocks)",
    )  # fmt: skip
    refused((run, tmp_path), DATA, f"{tmp_path} is a folder; give an image file")
    (tmp_path / "bad.png").write_bytes(image.read_bytes()[:90])
    done = towernet("explain", run, tmp_path / "bad.png")
    assert done.returncode == DATA and "bad.png cannot be used: " in done.stderr
    assert not (tmp_path / "maps.png").exists()
    done = towernet("explain", run, image, "--out", tmp_path / "maps.jpeg")
    message = f"--out is {tmp_path}/maps.jpeg; give a name that ends in .png, .svg or .pdf"
    assert (done.returncode, done.stderr) == (USAGE, f"error: {message}\n")


def test_the_function_gives_the_same_message(run, finished_run, image, explanation, tmp_path):
    with pytest.raises(ConfigError, match="has no attention to draw"):
        explain(finished_run, image)
    with pytest.raises(DataError, match=r"no\.png cannot be read: No such file"):
        explain(run, tmp_path / "no.png")
    with pytest.raises(ConfigError, match=r"give a name that ends in \.png, \.svg or \.pdf"):
        write_picture(explanation, tmp_path / "maps")


def test_a_frozen_run_is_told_how_its_network_gets_attention(finished_run, image, tmp_path):
    frozen = Path(shutil.copytree(finished_run, tmp_path / "frozen"))
    record = files.read_json(frozen / "run.json")
    record["config"]["model"] = f"{TINY_NETWORK}/frozen"
    files.write_json(frozen / "run.json", record)
    with pytest.raises(ConfigError, match=rf"with --model {TINY_NETWORK}/finetuned\+se or towern"):
        explain(frozen, image)


def test_changed_weights_are_not_drawn(run, image, tmp_path):
    changed = Path(shutil.copytree(run, tmp_path / "run"))
    record = files.read_json(changed / "run.json")
    files.write_json(changed / "run.json", record | {"weights_sha256": "0" * 64})
    with pytest.raises(DataError, match=r"best\.safetensors was changed after the run wrote it"):
        explain(changed, image)
