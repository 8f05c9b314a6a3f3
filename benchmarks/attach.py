"""Does `attach` insert attention into third-party networks without changing their outputs?

Every torchvision classifier and at least one network of each timm family get shuffle attention
before their residual additions; twelve families get every block. Checked for each: the outputs
before and after, the gradients, loading weights with and without attention, the network after
`detach`; for twenty also the exported program. `python benchmarks/attach.py` takes almost an hour
on one core; run again, it continues.
"""

from __future__ import annotations

import argparse
import copy
import gc
import re
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _common import commit, write_result
from towernet import files, torch_private
from towernet.attention import ATTENTION
from towernet.attention.attach import attach
from towernet.attention.blend import FromIdentity
from towernet.attention.inserted import attention_blocks, attention_parameters, detach
from towernet.attention.places import find_places
from towernet.attention.trace import trace
from towernet.engine.device import choose_policy, hardware, versions
from towernet.errors import TowernetError, first_line_of
from towernet.models.classics import build_timm, build_torchvision, torchvision_names
from towernet.names import TIMM_PREFIX

CASES = Path("runs") / "attach.json"
NUM_CLASSES, BATCH_SIZE = 10, 2
MOST_PARAMETERS = 100_000_000
TOLERANCE = 1e-5
MOST_STEPS, STARTS = 4, 4  # stochastic depth can skip a block in some steps

SIZE_PX = 96
# Networks that need another size.
SIZES_PX = {
    "maxvit_t": 224,
    "vit_h_14": 224,
    "timm:bat_resnext26ts": 256,
    "timm:crossvit_tiny_240": 240,
    "timm:efficientformer_l1": 224,
    "timm:halonet_h1": 256,
    "timm:haloregnetz_b": 224,
}

OF_TIMM = """
beit_base_patch16_224 halonet_h1 eca_botnext26ts_256 lambda_resnet26t haloregnetz_b mobileone_s0
gernet_s repvgg_a0 regnetz_b16 resnext26ts gcresnext26ts bat_resnext26ts cait_xxs24_224
coat_lite_tiny convit_tiny convmixer_768_32 convnext_zepto_rms convnext_atto convnextv2_atto
cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s darknet17 cspresnext50 cspdarknet53
cspnext_tiny davit_tiny deit_tiny_patch16_224 densenet121 densenetblur121d dla46x_c dla34
dla60_res2net dpn48b dpn68 edgenext_xx_small efficientformer_l1 efficientformerv2_s0
efficientnet_lite0 efficientnetv2_rw_t tf_efficientnet_b0 mobilenetv2_050 mnasnet_050
semnasnet_050 tinynet_e fbnetc_100 spnasnet_100 mixnet_s gc_efficientnetv2_rw_t efficientnet_es
efficientvim_m1 efficientvit_b0 efficientvit_m0 vit_tiny_patch16_dinov3_qkvb
eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 fastvit_sa12 focalnet_tiny_srf gcvit_xxtiny
ghostnet_050 ghostnetv2_100 ghostnetv3_050 hardcorenas_a hgnet_tiny hgnetv2_b0 hiera_tiny_224
hieradet_small hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3
inception_v4 lcnetv2_small levit_128s levit_conv_128s lowformer_b0 mambaout_femto
maxvit_pico_rw_256 coatnet_pico_rw_224 coatnext_nano_rw_224 maxxvit_rmlp_nano_rw_256
poolformer_s12 poolformerv2_s12 caformer_s18 convformer_s18 gmlp_ti16_224 resmlp_12_224
mixer_s32_224 lcnet_050 mobilenetv3_small_050 mobilenetv4_conv_small_050 mobilenetv4_hybrid_medium
fbnetv3_b mobilenetv5_base mobilevit_xxs mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_gap
nasnetalarge nest_tiny nextvit_small nf_regnet_b0 nf_resnet26 eca_nfnet_l0 pit_ti_224
pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 regnety_002 regnetz_005
repghostnet_050 repvit_m0_9 res2net50_14w_8s res2next50 resnest14d resnet10t resnet18d resnet26t
resnetblur18 seresnet18 ecaresnet26t resnext50_32x4d wide_resnet50_2 resnetaa50 resnetrs50
resnetv2_18 resnetv2_50x1_bit resnetv2_50d_gn rexnet_100 selecsls42 legacy_seresnet18
legacy_seresnext26_32x4d sequencer2d_s shvit_s1 skresnet18 skresnext50_32x4d starnet_s050
swiftformer_xs swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256
swinv2_cr_tiny_ns_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_svt_small
twins_pcpvt_small visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
vit_relpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224 volo_d1_224
ese_vovnet19b_slim_dw vovnet39a eca_vovnet39b legacy_xception xception41 xception41p
xcit_nano_12_p16_224
"""
FAMILIES = """
resnet18 mobilenet_v2 shufflenet_v2_x0_5 squeezenet1_1 densenet121 googlenet timm:convnext_atto
timm:regnety_002 timm:repvgg_a0 timm:mambaout_femto timm:edgenext_xx_small timm:ghostnet_050
"""
EXPORTED = """
resnet18 mobilenet_v2 shufflenet_v2_x0_5 densenet121 googlenet squeezenet1_1 efficientnet_b0
convnext_tiny swin_t regnet_y_400mf alexnet mnasnet0_5 timm:convnext_atto timm:mambaout_femto
timm:ghostnet_050 timm:repvgg_a0 timm:edgenext_xx_small timm:mobilevit_xxs timm:resnest14d
timm:swin_tiny_patch4_window7_224
"""


class Broken(Exception):
    """`attach` did not do what it promises; the message is what was found."""


def require(condition: bool, found: str) -> None:
    if not condition:
        raise Broken(found)


def num_parameters(network: str) -> int:
    """Return the number of a network's parameters, without allocating them."""
    if not network.startswith(TIMM_PREFIX):
        from torchvision import models

        return int(models.get_model_weights(network).DEFAULT.meta["num_params"])
    with torch.device("meta"):
        model = build_timm(network.removeprefix(TIMM_PREFIX), NUM_CLASSES, SIZE_PX)
    return sum(parameter.numel() for parameter in model.parameters())


def build(network: str, size_px: int, *, seed: int) -> nn.Module:
    """Return a network with random weights, its norms and scales off their initial values."""
    torch.manual_seed(seed)
    if network.startswith(TIMM_PREFIX):
        model = build_timm(network.removeprefix(TIMM_PREFIX), NUM_CLASSES, size_px)
    else:
        model = build_torchvision(network, NUM_CLASSES, size_px)
    norms = [m for m in model.modules() if isinstance(m, torch_private.BATCH_NORM)]
    usual = [norm.momentum for norm in norms]
    with torch.no_grad():
        for parameter in model.parameters():
            if sum(length > 1 for length in parameter.shape) < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not bool(parameter.any()):  # a head of zeros gives the same output for all images
                parameter.normal_(std=0.1)
        for norm in norms:
            norm.momentum = 1.0
        if norms:  # statistics of its maps: with others the outputs of a deep network overflow
            model.train()(images(size_px, seed=seed + 1))
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
    return model.eval()


def images(size_px: int, *, seed: int = 0) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH_SIZE, 3, size_px, size_px, generator=drawn)


@torch.no_grad()
def answers(model: nn.Module, size_px: int) -> Tensor:
    logits_BK: Tensor = model(images(size_px))
    require(bool(torch.isfinite(logits_BK).all()), "its outputs are not finite")
    return logits_BK


def error_of(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def move_attention(model: nn.Module) -> None:
    """Move blocks off their initial values, so that they have an effect."""
    torch.manual_seed(7)
    for block in attention_blocks(model).values():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        if isinstance(block, FromIdentity):
            block.gain.fill_(0.5)


def calls_of_blocks(model: nn.Module, size_px: int) -> Counter[str]:
    calls: Counter[str] = Counter()
    hooks = [
        block.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, block in attention_blocks(model).items()
    ]
    answers(model, size_px)
    for hook in hooks:
        hook.remove()
    return calls


def steps_to_gradients(model: nn.Module, insert: Callable[[], object], size_px: int) -> int:
    """Return after how many steps every parameter of attention has had a gradient.

    A bottleneck's ReLU may output only zeros for some initial weights; it does not for all.
    """
    first: dict[str, int] = {}
    for _ in range(STARTS):
        insert()
        for name, step in first_gradients(model, size_px).items():
            first[name] = min(step, first.get(name, step))
        detach(model)
        if max(first.values()) <= MOST_STEPS:
            return max(first.values())
    silent = [name for name, step in first.items() if step > MOST_STEPS]
    raise Broken(f"in {MOST_STEPS} steps no gradient reached {', '.join(silent[:3])}")


def first_gradients(model: nn.Module, size_px: int) -> dict[str, int]:
    """Return the step at which each parameter of attention had its first gradient."""
    of_attention = set(attention_parameters(model))
    waiting = {name: p for name, p in model.named_parameters() if p in of_attention}
    first = dict.fromkeys(waiting, MOST_STEPS + 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    labels_B = torch.arange(BATCH_SIZE)
    model.train()
    for step in range(1, MOST_STEPS + 1):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images(size_px, seed=step)), labels_B)
        require(bool(torch.isfinite(loss)), f"at step {step} the loss is {float(loss)}")
        loss.backward()
        optimizer.step()
        for name, parameter in list(waiting.items()):
            if parameter.grad is not None and bool(parameter.grad.any()):
                first[name] = step
                del waiting[name]
        if not waiting:
            break
    return first


def by_pattern(names: list[str]) -> dict[str, int]:
    return dict(Counter(re.sub(r"\d+", "#", name) for name in names))


def stages_of(model: nn.Module, size_px: int) -> list[str]:
    try:
        places = find_places(trace(model, (1, 3, size_px, size_px)), "stages")
    except TowernetError:
        return []
    return [place.name for place in places]


def exports(model: nn.Module, size_px: int) -> None:
    program = torch.export.export(model, (images(size_px),)).module()
    error = error_of(answers(program, size_px), answers(model, size_px))
    require(error <= TOLERANCE, f"the exported program's outputs have an error of {error:.1e}")


def examine(network: str, block: str) -> dict[str, Any]:
    """Return the findings for a network into which attention was inserted."""
    if (count := num_parameters(network)) > MOST_PARAMETERS:
        return shapes_only(network, block, f"{count / 1e6:.0f} million parameters")
    size_px = SIZES_PX.get(network, SIZE_PX)
    model = build(network, size_px, seed=1)
    wanted_BK = answers(model, size_px)
    plain = copy.deepcopy(model.state_dict())
    row: dict[str, Any] = {"size_px": size_px, "stages": stages_of(model, size_px)}

    shape = (1, 3, size_px, size_px)
    try:
        inserted = attach(model, block, input_shape=shape)
    except TowernetError as error:
        same = list(model.state_dict()) == list(plain)
        require(same, f"it was refused, but changed the network: {error}")
        return row | {"outcome": "refused", "reason": str(error)}
    row["places"] = by_pattern([attached.place.name for attached in inserted])
    row["num_places"] = len(inserted)
    row["num_channels_last"] = sum(attached.place.channels_last for attached in inserted)
    row["added_parameters"] = sum(attached.num_parameters for attached in inserted)

    # The blocks are there and have no effect.
    row["identity_error"] = error_of(answers(model, size_px), wanted_BK)
    require(row["identity_error"] <= TOLERANCE, f"identity is off by {row['identity_error']:.1e}")
    calls = calls_of_blocks(model, size_px)
    once = dict.fromkeys(attention_blocks(model), 1)
    require(calls == once, f"blocks are called {dict(calls)}"[:300])

    # Weights without and with attention, loaded into a network with other weights.
    other = build(network, size_px, seed=2)
    attach(other, block, input_shape=shape)
    added = set(model.state_dict()) - set(plain)
    missing, unexpected = other.load_state_dict(plain, strict=False)
    # load_state_dict does not report a missing num_batches_tracked.
    known = {name for name in added if name.endswith("num_batches_tracked")}
    require(set(missing) | known == added and not unexpected, "plain weights do not fit")
    off = error_of(answers(other, size_px), wanted_BK)
    require(off <= TOLERANCE, f"with plain weights it is off by {off:.1e}")
    move_attention(model)
    moved_BK = answers(model, size_px)
    row["moved_by"] = error_of(moved_BK, wanted_BK)
    require(row["moved_by"] > 1e-4, "attention changes no output")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        torch.save(model.state_dict(), path)
        other.load_state_dict(torch.load(path, weights_only=True))
    off = error_of(answers(other, size_px), moved_BK)
    require(off <= TOLERANCE, f"with its own weights it is off by {off:.1e}")
    if block == "shuffle" and network in EXPORTED.split():
        exports(other, size_px)
        row["exported"] = True
    del other

    # Removed, and inserted again for training.
    require(detach(model) == len(inserted), "detach leaves blocks")
    require(torch.equal(answers(model, size_px), wanted_BK), "detached, its outputs differ")
    require(list(model.state_dict()) == list(plain), "detached, it has other names")
    row["steps_to_gradients"] = steps_to_gradients(
        model, lambda: attach(model, block, input_shape=shape), size_px
    )
    return row | {"outcome": "attached"}


def shapes_only(network: str, block: str, reason: str) -> dict[str, Any]:
    """Return where attention goes in a network that is too large to be run."""
    if network.startswith("regnet"):  # its layer sizes are computed with tensors
        return {"outcome": "left out", "reason": reason}
    size_px = SIZES_PX.get(network, SIZE_PX)
    with torch.device("meta"):
        model = build_torchvision(network, NUM_CLASSES, size_px)
    names = list(model.state_dict())
    row = {"outcome": "shapes only", "reason": reason, "size_px": size_px}
    try:
        inserted = attach(model, block, input_shape=(1, 3, size_px, size_px))
    except TowernetError as error:
        return row | {"outcome": "refused", "reason": str(error)}
    places = [attached.place.name for attached in inserted]
    require(detach(model) == len(places), "detach leaves blocks")
    require(list(model.state_dict()) == names, "detached, it has other names")
    return row | {"places": by_pattern(places), "num_places": len(places)}


def cases() -> list[tuple[str, str]]:
    of_timm = [TIMM_PREFIX + name for name in OF_TIMM.split()]
    others = [block for block in sorted(ATTENTION) if block != "shuffle"]
    return [
        *((network, "shuffle") for network in (*torchvision_names(), *of_timm)),
        *((network, block) for network in FAMILIES.split() for block in others),
    ]


def examined(network: str, block: str) -> dict[str, Any]:
    """Examine a case; an exception is recorded as its outcome."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = examine(network, block)
    except Broken as error:
        row = {"outcome": "failed", "reason": str(error)}
    except Exception as error:  # a crash is a finding and does not stop the script
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        row = {"outcome": "failed", "reason": f"{first_line_of(error)} in {where}"}
    seconds = round(time.perf_counter() - started, 1)
    return {"network": network, "block": block, **row, "seconds": seconds, "commit": commit()}


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    attached = [row for row in rows if row["outcome"] == "attached"]
    return {
        **Counter(row["outcome"] for row in rows),
        "networks": len({row["network"] for row in attached}),
        "places": sum(row["num_places"] for row in attached),
        "exported": sum(row.get("exported", False) for row in rows),
        "largest_identity_error": max((row["identity_error"] for row in attached), default=0.0),
        "most_steps_to_gradients": max((row["steps_to_gradients"] for row in attached), default=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="Ignore earlier results.")
    parser.add_argument("--only", default="", help="A regular expression for NETWORK+BLOCK.")
    parser.add_argument(
        "--minutes", type=float, default=60, help="Stop after this; run again to continue."
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, dict[str, Any]] = {}
    if CASES.exists() and not args.fresh:
        done = files.read_json(CASES)
    chosen = {f"{network}+{block}": (network, block) for network, block in cases()}
    waiting = [
        key
        for key in chosen
        if re.search(args.only, key) and done.get(key, {"outcome": "failed"})["outcome"] == "failed"
    ]
    started = time.monotonic()
    for number, key in enumerate(waiting, 1):
        spent = time.monotonic() - started
        if spent > 60 * args.minutes:
            break
        row = done[key] = examined(*chosen[key])
        files.write_json(CASES, done)
        gc.collect()
        details = row.get("reason") or f"{row['num_places']} places"
        left = (time.monotonic() - started) / number * (len(waiting) - number)
        print(f"[{number}/{len(waiting)}, {left / 60:.0f} min left] {key}: {row['outcome']},"
              f" {details}, {row['seconds']} s", flush=True)  # fmt: skip
    rows = [done[key] for key in chosen if key in done]
    write_result(
        "attach",
        {
            "totals": totals(rows),
            "not_reached": len(chosen) - len(rows),
            "seconds": round(sum(row["seconds"] for row in rows)),
            "hardware": hardware(choose_policy()),
            "versions": versions(),
            "cases": rows,
        },
    )


if __name__ == "__main__":
    main()
