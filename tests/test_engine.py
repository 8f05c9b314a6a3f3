"""Training: the same bytes, however batches are made and wherever a run is stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY_NETWORK
from crashlab.lab import compiler
from towernet import files

SIZE_PX, BATCH_SIZE, NUM_EPOCHS = 64, 8, 3
EXACT_FILES = ("best.safetensors", "metrics.jsonl", "run.json", "samples.parquet")


@pytest.fixture
def make_dataset(photos):
    from towernet.config import DataConfig
    from towernet.data.prepare import prepare, sample_table
    from towernet.data.source import open_source

    def make(workers=1, seed=0, repetition=0):
        source = open_source(str(photos))
        table = sample_table(source, seed=seed, images_per_class=None, workers=workers)
        config = DataConfig(size_px=SIZE_PX)
        return prepare(table, source, config, seed=seed, repetition=repetition, workers=workers)

    return make


@pytest.fixture
def session(photos):
    """Return a function that makes the session of a run in a folder."""
    from towernet.data.source import open_source
    from towernet.engine.runlog import Progress
    from towernet.engine.session import Session
    from towernet.engine.stop import StopSwitch
    from towernet.records.run import Origin

    def make(folder, progress=None, stop=None):
        return Session(
            open_source(str(photos)),
            folder,
            Origin(command="test", source="test"),
            progress=progress or Progress(),
            stop=stop or StopSwitch(),
        )

    return make


@pytest.fixture
def run(make_dataset, session):
    """Return a function that trains the tiny network; its arguments change the defaults."""
    from towernet.config import RunConfig, load_recipe, override
    from towernet.engine.batches import steps_per_epoch
    from towernet.engine.device import Policy
    from towernet.engine.train import train
    from towernet.records.run import Plan

    def go(folder, *, workers=1, seed=0, progress=None, stop=None, depth=None, **train_changes):
        changes = {"epochs": NUM_EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.01}
        recipe = override(
            load_recipe("default"), data={"size_px": SIZE_PX}, train=changes | train_changes
        )
        dataset = make_dataset(workers=workers, seed=seed)
        config = RunConfig(model=TINY_NETWORK, recipe=recipe, seed=seed)
        num_steps = recipe.train.epochs * steps_per_epoch(len(dataset.train), BATCH_SIZE)
        plan = Plan(
            num_steps, recipe.train.learning_rate, Policy("cpu", "float32", True, 1, "test")
        )
        return train(config, dataset, session(folder, progress, stop), plan, prefetch_depth=depth)

    return go


def exact(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT_FILES}


def test_workers_and_prefetching_change_no_byte(run, tmp_path, monkeypatch):
    results = []
    for i, (workers, depth) in enumerate([(1, 0), (2, 0), (2, 1), (1, 3)]):
        monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / f"cache-{i}"))  # decoded again
        run(tmp_path / f"run-{i}", workers=workers, depth=depth)
        results.append(exact(tmp_path / f"run-{i}"))
    assert results[0] == results[1] == results[2] == results[3]


def test_another_seed_is_another_run(run, tmp_path):
    run(tmp_path / "a", seed=0)
    run(tmp_path / "b", seed=1)
    assert exact(tmp_path / "a")["metrics.jsonl"] != exact(tmp_path / "b")["metrics.jsonl"]


def stops_after(last, stop):
    """Return a progress that stops the run after a step, as Ctrl-C would."""
    from towernet.engine.runlog import Progress
    from towernet.errors import INTERRUPTED

    class StopsAfter(Progress):
        def step(self, step, loss, accuracy, images_per_second):
            if step >= last:
                stop.exit_code = INTERRUPTED

    return StopsAfter()


@pytest.mark.parametrize(
    "stops",
    [
        (1, 3, 6),  # in an epoch, at the end of one or behind it
        pytest.param(range(1, 4 * NUM_EPOCHS), marks=pytest.mark.proof, id="every step"),
    ],
)
def test_a_run_stopped_after_any_step_and_resumed_ends_in_the_same_bytes(run, tmp_path, stops):
    from towernet.engine.stop import StopSwitch
    from towernet.errors import Interrupted

    run(tmp_path / "whole")
    expected = exact(tmp_path / "whole")
    stopped_at = []
    for last in stops:
        folder = tmp_path / f"stopped-{last}"
        stop = StopSwitch()
        try:
            run(folder, progress=stops_after(last, stop), stop=stop)
        except Interrupted as error:
            assert f"is complete up to step {last} of" in str(error)
            stopped_at.append(last)
            assert (folder / "last").exists()
        run(folder)
        assert exact(folder) == expected
        assert not (folder / "last").exists()
    assert len(stopped_at) >= min(len(stops), 8)  # the last step ends the run by itself


@pytest.mark.proof
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_with_kernels_mixing_and_two_sizes_a_resumed_run_ends_in_the_same_bytes(
    make_dataset, session, tmp_path
):
    from towernet.config import RunConfig, load_recipe, override
    from towernet.engine.device import Policy
    from towernet.engine.stop import StopSwitch
    from towernet.engine.train import train
    from towernet.errors import Interrupted
    from towernet.records.run import Plan

    recipe = override(
        load_recipe("default"), data={"size_px": SIZE_PX}, train={"epochs": 3, "batch_size": 8}
    )
    config = RunConfig(model="towernet_patch", recipe=recipe)
    plan = Plan(12, 0.01, Policy("cpu", "bfloat16", True, 1, "test", "native"), mixes=True)

    def go(folder, progress=None, stop=None):
        train(config, make_dataset(), session(folder, progress, stop), plan)

    go(tmp_path / "whole")
    for last in (3, 7, 9):  # with smaller images, at the change of size, at full size
        stop = StopSwitch()
        with pytest.raises(Interrupted):
            go(tmp_path / f"stopped-{last}", stops_after(last, stop), stop)
        go(tmp_path / f"stopped-{last}")
        assert exact(tmp_path / f"stopped-{last}") == exact(tmp_path / "whole")


def test_a_resume_without_the_momentum_is_detected(run, tmp_path, monkeypatch):
    """The sabotaged twin of exact resume."""
    from towernet.engine.learner import Learner
    from towernet.engine.runlog import Progress
    from towernet.engine.stop import StopSwitch
    from towernet.errors import Interrupted

    run(tmp_path / "whole")
    stop = StopSwitch()
    stop.exit_code = 130
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", stop=stop, progress=Progress())

    restore = Learner.restore
    monkeypatch.setattr(
        Learner,
        "restore",
        lambda learner, tensors: restore(
            learner,
            {name: t for name, t in tensors.items() if not name.startswith("momentum")},
        ),
    )
    run(tmp_path / "stopped")
    assert exact(tmp_path / "stopped") != exact(tmp_path / "whole")


def test_a_damaged_state_is_skipped_for_the_one_before(run, tmp_path, monkeypatch):
    from towernet.engine import trainer
    from towernet.engine.runlog import Progress
    from towernet.engine.stop import StopSwitch
    from towernet.errors import Interrupted

    class Stops(Progress):
        sentences = ()

        def epoch(self, metrics, timing):
            if metrics.epoch == 2:
                stop.exit_code = 130

        def say(self, text):
            self.sentences = (*self.sentences, text)

    run(tmp_path / "whole")
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)
    stop = StopSwitch()
    with pytest.raises(Interrupted):
        run(tmp_path / "damaged", progress=Stops(), stop=stop)
    newest = sorted((tmp_path / "damaged" / "last").glob("0*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    progress = Stops()
    stop = StopSwitch()
    run(tmp_path / "damaged", progress=progress)
    assert any(f"{newest} is damaged" in text for text in progress.sentences)
    assert exact(tmp_path / "damaged") == exact(tmp_path / "whole")


def test_a_state_of_another_version_is_refused_with_its_invalid_entry(run, tmp_path):
    from towernet.engine.stop import StopSwitch
    from towernet.errors import DataError, Interrupted

    stop = StopSwitch()
    stop.exit_code = 130
    with pytest.raises(Interrupted):
        run(tmp_path / "run", stop=stop)
    (path,) = (tmp_path / "run" / "last").glob("*.json")
    whole = files.read_json(path)["manifest"]
    for change, words in (
        ({"momenta": 3}, "momenta is unknown to this version"),
        ({"step": "one"}, "step is 'one'"),
    ):
        manifest = whole | {"state": whole["state"] | change}
        files.write_json(path, {"manifest": manifest, "sha256": files.digest(manifest)})
        with pytest.raises(DataError, match=rf"last is damaged \({words}"):
            run(tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(run, tmp_path):
    run(tmp_path / "run")
    before = exact(tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    run(tmp_path / "run")
    assert exact(tmp_path / "run") == before
    times_now = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert {p: t for p, t in times_now.items() if p.name != "lock"} == {
        p: t for p, t in times.items() if p.name != "lock"
    }


def test_a_run_with_other_choices_is_refused_with_the_difference(run, tmp_path):
    from towernet.errors import ConfigError

    run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"other choices \(.*label_smoothing: 0.1 → 0.2"):
        run(tmp_path / "run", label_smoothing=0.2)


def test_a_loss_of_nan_or_inf_stops_the_run(run, tmp_path):
    from towernet.errors import TrainingError

    with pytest.raises(
        TrainingError, match=r"loss became (nan|inf).* step \d+.*learning rate \S+\)"
    ):
        run(tmp_path / "run", learning_rate=1e12, warmup_fraction=0.0)
    assert b"NaN" not in (tmp_path / "run" / "run.json").read_bytes()


@pytest.mark.parametrize("num_images", range(2, 40))
@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_every_image_is_in_one_batch_and_no_batch_holds_one(num_images, batch_size):
    from towernet.engine.batches import batch_starts

    starts = batch_starts(num_images, batch_size)
    sizes = np.diff(starts)
    assert (starts[0], starts[-1]) == (0, num_images)
    assert sizes.min() >= 2
    assert sizes.max() <= batch_size + 1


def test_an_epoch_sees_every_training_image_once(make_dataset):
    from towernet.config import load_recipe, override
    from towernet.engine.batches import epoch_batches
    from towernet.engine.device import Policy

    dataset = make_dataset()
    recipe = override(
        load_recipe("default"),
        train={"batch_size": 8},
        augment={"brightness": 0, "contrast": 0, "mixup_alpha": 0},
    )
    policy = Policy("cpu", "float32", False, 1, "test")
    # Each image has its own shade, by which it is recognised: nothing is augmented here.
    shape = dataset.train_pixels.shape
    shades = np.arange(len(dataset.train_pixels), dtype=np.uint8)
    dataset = replace(
        dataset,
        open_train_pixels=lambda: np.broadcast_to(shades[:, None, None, None], shape),
        contract=replace(dataset.contract, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
    batches = list(
        epoch_batches(dataset, recipe, policy, seed=0, epoch=0, size_px=lambda step: SIZE_PX)
    )
    seen = [round(255 * float(image[0, 9, 9])) for batch in batches for image in batch.images_BCHW]
    assert sorted(seen) == sorted(dataset.train.rows.tolist())
    label_of = dict(zip(dataset.train.rows, dataset.train.labels, strict=True))
    assert [label_of[row] for row in seen] == torch.cat(
        [batch.labels_B for batch in batches]
    ).tolist()
    assert batches[0].images_BCHW.shape[1:] == (3, SIZE_PX, SIZE_PX)
    late = list(
        epoch_batches(
            dataset, recipe, policy, seed=0, epoch=0, first=2, size_px=lambda step: SIZE_PX
        )
    )
    torch.testing.assert_close(late[0].images_BCHW, batches[2].images_BCHW, rtol=0, atol=0)


def test_prefetching_passes_errors_on_and_ends_its_thread():
    from towernet.engine.batches import prefetch

    def broken():
        yield 1
        raise ValueError("photos/cat/3.png")

    items = prefetch(broken, 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match=r"photos/cat/3\.png"):
        next(items)
    endless = prefetch(lambda: iter(range(10**9)), 2)
    assert next(endless) == 0
    endless.close()


def test_the_notebook_learning_rates_are_the_original_ones(data_sets):
    from towernet.config import load_recipe
    from towernet.engine.schedule import learning_rate

    golden = data_sets.parent / "golden" / "expected.npz"
    if not golden.exists():
        pytest.skip("no golden values next to TOWERNET_DATA")
    expected = np.load(golden, allow_pickle=False)["learning_rates"]
    config = load_recipe("notebook").train
    rates = [learning_rate(step, 4500, config, config.learning_rate) for step in range(4500)]
    assert len(expected) == 4500
    assert np.abs(rates - expected).max() <= 1e-9


def test_the_default_schedule_warms_up_once_and_anneals_to_zero():
    from towernet.config import load_recipe
    from towernet.engine.schedule import learning_rate

    config = load_recipe("default").train
    rates = [learning_rate(step, 1000, config, 0.5) for step in range(1000)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(0.5, rel=1e-3)
    assert np.all(np.diff(rates[:top]) > 0)
    assert np.all(np.diff(rates[top:]) <= 0)
    assert rates[-1] < 1e-4
    assert all(math.isfinite(learning_rate(0, n, config, 0.5)) for n in (1, 2, 3))


def test_norms_biases_and_gates_are_decayed_only_by_the_notebook_recipe():
    from towernet.config import load_recipe
    from towernet.engine.optimizer import make_optimizer
    from towernet.models.catalogue import build

    model = build("towernet", 5, 128)
    names = {parameter: name for name, parameter in model.named_parameters()}

    def decayed(recipe):
        groups = make_optimizer(model, load_recipe(recipe).train, "towernet").param_groups
        return {names[p]: group["weight_decay"] for group in groups for p in group["params"]}

    default = decayed("default")
    assert set(default) == set(names.values())
    for name, parameter in model.named_parameters():
        is_kernel = (parameter.ndim == 4 and parameter.shape[0] > 1) or parameter.ndim == 2
        assert (default[name] > 0) == is_kernel, name
    assert set(decayed("notebook").values()) == {2e-4}


def test_the_average_follows_the_weights_and_their_statistics():
    from towernet.engine.step import average_weights

    model = torch.nn.BatchNorm1d(3)
    averaged = average_weights(model, 0.5, 20)
    averaged.update_parameters(model)  # the first update copies
    model.weight.data.fill_(3.0)
    model.running_mean.fill_(5.0)
    averaged.update_parameters(model)
    keep = 2 / 11  # (1 + 1) / (10 + 1), below 1 − 1 / (0.5 · 20)
    torch.testing.assert_close(averaged.module.weight, torch.full((3,), keep + 3 * (1 - keep)))
    torch.testing.assert_close(averaged.module.running_mean, torch.full((3,), 5 * (1 - keep)))


def test_the_self_test_accepts_correct_results_only(monkeypatch):
    from towernet.engine import device

    policy = device.choose_policy("cpu", threads=1)
    assert policy.threads == 1
    assert "bfloat16" in policy.reason
    # The sabotaged twin: a fast bf16 with wrong results is not chosen.
    right = device._self_test

    def wrong_bf16(policy):
        step = right(policy)
        if policy.dtype != "bfloat16":
            return step
        wrong = step().flip(0)
        return lambda: wrong  # at once

    monkeypatch.setattr(device, "_self_test", wrong_bf16)
    assert device.choose_policy("cpu", threads=1).dtype == "float32"


def test_an_unknown_or_absent_device_is_refused():
    from towernet.engine.device import choose_policy
    from towernet.errors import ConfigError, EnvironmentFault

    with pytest.raises(ConfigError, match="no device is called 'gpu'; give auto, cpu, cuda or mps"):
        choose_policy("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFault, match="no cuda device on this machine; leave out --d"):
            choose_policy("cuda")


def test_a_long_run_is_saved_in_between_and_ends_in_the_same_bytes(run, tmp_path, monkeypatch):
    from towernet.engine import checkpoint
    from towernet.engine import trainer as trainer_module

    run(tmp_path / "whole")
    monkeypatch.setattr(trainer_module, "SECONDS_BETWEEN_SAVES", 0.0)
    saved = []
    write = checkpoint.write_state

    class Killed(BaseException):
        pass

    def write_and_die(folder, step, *rest):
        write(folder, step, *rest)
        saved.append(step)
        if step == 6:
            raise Killed

    monkeypatch.setattr(checkpoint, "write_state", write_and_die)
    with pytest.raises(Killed):
        run(tmp_path / "run")
    assert saved == [1, 2, 3, 4, 5, 6]
    run(tmp_path / "run")
    assert saved[6:] == [7, 8, 9, 10, 11]  # the run ends right after the last step
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")


def best_files(folder, run, monkeypatch):
    """Train with a state after every step; return the inodes of each file of best weights."""
    from towernet.engine import trainer
    from towernet.engine.runlog import Progress

    found: dict[str, set[int]] = {}

    class Looks(Progress):
        def step(self, step, loss, accuracy, images_per_second):
            for path in (folder / "last").glob("best-*"):
                found.setdefault(path.name, set()).add(path.stat().st_ino)

    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)
    run(folder, progress=Looks())
    return found


def test_best_weights_are_written_once_however_many_states_refer_to_them(
    run, tmp_path, monkeypatch
):
    from towernet.engine.trainer import Trainer

    found = best_files(tmp_path / "run", run, monkeypatch)
    record = files.read_json(tmp_path / "run" / "run.json")
    best_step = round(4 * record["summary"]["best_epoch"])
    assert found and all(len(inodes) == 1 for inodes in found.values())
    if best_step < 12:  # a state has them, so they only get another name at the end
        kept = (tmp_path / "run" / "best.safetensors").stat().st_ino
        assert found[f"best-{best_step:09d}.safetensors"] == {kept}

    # The sabotaged twin writes them with every state.
    keep_best, save = Trainer.keep_best, Trainer.save

    def keeps(trainer, metrics):
        keep_best(trainer, metrics)
        trainer.always = trainer.best or trainer.always

    def saves(trainer, *, seconds):
        trainer.best = trainer.always
        save(trainer, seconds=seconds)

    monkeypatch.setattr(Trainer, "always", None, raising=False)
    monkeypatch.setattr(Trainer, "keep_best", keeps)
    monkeypatch.setattr(Trainer, "save", saves)
    found = best_files(tmp_path / "twin", run, monkeypatch)
    assert any(len(inodes) > 1 for inodes in found.values())
    assert exact(tmp_path / "twin") == exact(tmp_path / "run")


def test_a_short_run_writes_no_state_and_its_best_weights_once(run, tmp_path, monkeypatch):
    from towernet.engine import checkpoint

    written = []
    write = checkpoint.write_weights

    def watched(path, *rest):
        written.append(path.relative_to(tmp_path / "run").as_posix())
        return write(path, *rest)

    monkeypatch.setattr(checkpoint, "write_weights", watched)
    run(tmp_path / "run")
    assert written == ["best.safetensors"]


def test_tensorboard_reads_the_events_after_a_resume(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from towernet.engine.runlog import Progress
    from towernet.engine.stop import StopSwitch
    from towernet.errors import Interrupted

    stop = StopSwitch()

    class Stops(Progress):
        def epoch(self, metrics, timing):
            stop.exit_code = 130

    with pytest.raises(Interrupted):
        run(tmp_path / "run", progress=Stops(), stop=stop)
    run(tmp_path / "run")
    metrics = files.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    drawn = events.Scalars("accuracy/validation")
    assert [(event.step, round(event.value, 5)) for event in drawn] == [
        (row["step"], round(row["validation_accuracy"], 5)) for row in metrics
    ]
    assert len(metrics) == NUM_EPOCHS


@pytest.mark.parametrize("shape", [(16, 75), (75, 16), (31, 47), (4, 300)])
def test_orthogonalised_steps_have_singular_values_near_one_and_the_same_directions(shape):
    from towernet.engine.optimizer import orthogonalise

    matrix = torch.randn(shape, dtype=torch.float64)
    found = orthogonalise(matrix[None])[0]
    together = orthogonalise(torch.stack([torch.randn_like(matrix), matrix]))[1]
    torch.testing.assert_close(found, together)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    # The iteration approaches U Vᵀ of the matrix.
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v
    assert (found - nearest).norm() / nearest.norm() < 0.35
    half = orthogonalise(matrix.bfloat16()[None])[0].double()
    assert (half - found).norm() / found.norm() < 0.05


def test_filters_have_orthogonalised_steps_and_all_other_parameters_sgd():
    from towernet.config import TrainConfig
    from towernet.engine.optimizer import make_optimizer, orthogonalise, set_learning_rate

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 3), torch.nn.Conv2d(24, 24, 3, groups=24), torch.nn.Linear(5, 7)
    ).to(memory_format=torch.channels_last)
    config = TrainConfig(epochs=1, muon_rate=0.5, muon_weight_decay=0.1)
    optimizer = make_optimizer(model, config, "any")
    reference = torch.optim.SGD(
        [
            {"params": [model[1].weight, model[2].weight], "weight_decay": config.weight_decay},
            {"params": [model[1].bias, model[2].bias, model[0].bias], "weight_decay": 0.0},
        ],
        lr=0.1, momentum=config.momentum, nesterov=True,
    )  # fmt: skip
    start = {name: value.clone() for name, value in model.named_parameters()}
    gradients = [{name: torch.randn_like(value) for name, value in start.items()} for _ in range(3)]
    ends = []
    for stepper in (optimizer, reference):
        set_learning_rate(optimizer, 0.1)
        for name, parameter in model.named_parameters():
            parameter.data.copy_(start[name])
        for gradient in gradients:
            for name, parameter in model.named_parameters():
                parameter.grad = gradient[name].clone()
            stepper.step()
        ends.append({name: value.detach().clone() for name, value in model.named_parameters()})
    for name in start:
        if name != "0.weight":
            torch.testing.assert_close(ends[0][name], ends[1][name])
    # The filters' steps, written out.
    weight, momentum = start["0.weight"].clone(), torch.zeros_like(start["0.weight"])
    for gradient in gradients:
        momentum = 0.9 * momentum + gradient["0.weight"]
        look_ahead = (gradient["0.weight"] + 0.9 * momentum).permute(0, 2, 3, 1).reshape(24, 27)
        step = orthogonalise(look_ahead[None]).reshape(24, 3, 3, 3).permute(0, 3, 1, 2)
        weight = weight * (1 - 0.05 * 0.1) - 0.05 * step
    torch.testing.assert_close(ends[0]["0.weight"], weight)


def test_a_run_starts_with_smaller_images_and_ends_at_full_size():
    from towernet.config import TrainConfig
    from towernet.engine.schedule import training_size_px

    def sizes(name, size_px, **changes):
        config = TrainConfig(epochs=1, **changes)
        return [training_size_px(step, 10, name, size_px, config) for step in range(10)]

    assert sizes("towernet_patch", 128) == [96] * 6 + [128] * 4
    assert sizes("resnet18", 224, small_share=0.25) == [160] * 2 + [224] * 8
    assert sizes("towernet", 128) == [128] * 10  # it takes no less than 127
    assert sizes("towernet", 256) == [192] * 6 + [256] * 4
    assert sizes("vit_b_16", 128) == [128] * 10  # has a fixed size
    assert sizes("resnet18", 200, small_size=1) == [200] * 10
    assert sizes("resnet18", 8) == [8] * 10
    assert sizes("resnet18", 96, small_size=0.5, smallest_px=70) == [80] * 6 + [96] * 4
    assert sizes("resnet18", 96, small_size=0.5, smallest_px=81) == [96] * 10
    assert sizes("resnet18", 64, small_size=0.5, smallest_px=80) == [64] * 10


def test_a_steps_images_have_the_steps_size(make_dataset):
    from towernet.config import load_recipe, override
    from towernet.engine.batches import epoch_batches
    from towernet.engine.device import Policy

    dataset = make_dataset()
    recipe = override(load_recipe("default"), train={"batch_size": 8})
    policy = Policy("cpu", "float32", True, 1, "test")
    num = -(-len(dataset.train) // 8)
    batches = epoch_batches(
        dataset, recipe, policy, seed=0, epoch=1, first=1,
        size_px=lambda step: {num + 1: 32}.get(step, SIZE_PX),
    )  # fmt: skip
    assert [len(batch.images_BCHW[0, 0]) for batch in batches] == [32] + [SIZE_PX] * (num - 2)


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_steps_are_measured_with_the_runs_kernels(make_dataset, monkeypatch):
    """The measurement converts minutes to steps: without the kernels there would be too few."""
    from towernet.config import RunConfig, load_recipe, override
    from towernet.engine import measure as measure_module
    from towernet.engine.device import Policy
    from towernet.native import ops

    seen = []
    a_map = torch.ones(1, 16, 2, 2).contiguous(memory_format=torch.channels_last)
    real = measure_module.train_step

    def watched(*arguments, **options):
        seen.append(ops.usable(a_map))
        return real(*arguments, **options)

    monkeypatch.setattr(measure_module, "train_step", watched)
    recipe = override(load_recipe("default"), data={"size_px": SIZE_PX}, train={"batch_size": 8})
    config = RunConfig(model=TINY_NETWORK, recipe=recipe)
    for kernels in ("native", "torch"):
        seen.clear()
        policy = Policy("cpu", "float32", True, 1, "test", kernels)
        measure_module.measure(config, make_dataset(), policy)
        assert set(seen) == {kernels == "native"}
