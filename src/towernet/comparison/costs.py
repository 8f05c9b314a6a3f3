"""What a step of each network costs: measured in rounds, then checked by the learning-rate trials.

A machine that also does other things is slower at some times than at others. A network that was
measured at a slow time would be given fewer steps for the same minutes than the others.

Shapes: R rounds, N networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from towernet.comparison.forecast import budget, mixes, same_for_all_variants, trial_rates
from towernet.config import RunConfig
from towernet.data.prepare import Dataset
from towernet.engine.device import Policy
from towernet.engine.measure import Cost, measure, size_of
from towernet.engine.runlog import Progress
from towernet.errors import TrainingError
from towernet.names import NetworkName
from towernet.records.ledger import CheckedSteps, Ledger, StepsFixed, Trial
from towernet.records.protocol import Protocol, Request
from towernet.words import listed

DatasetOf = Callable[[NetworkName], Dataset]
# Three rounds allow for one that other programs disturb. Large networks take seconds in each, which
# would be a large part of a comparison of a few minutes.
MIN_ROUNDS, MAX_ROUNDS = 3, 5
MAX_SHARE = 0.05  # of the planned training time, for more than the fewest rounds
MAX_ERROR = 0.1  # of an estimate; a larger one is corrected
# Shorter trials are mostly warm-up and say nothing about the estimates.
MIN_TRIAL_SECONDS, MIN_TRIAL_STEPS = 1.0, 5


def measure_networks(
    request: Request,
    dataset_of: DatasetOf,
    policy: Policy,
    progress: Progress,
    *,
    leave_out: bool = True,
) -> tuple[dict[NetworkName, Cost], dict[NetworkName, str]]:
    """Dry-run every network; return the costs, and why some cannot take a step, by network.

    Each round measures every network briefly, one after another. A network is built again in each
    round, since several large ones together may not fit into memory.

    Args:
        request: The networks.
        dataset_of: The images of the first repetition, as each network takes them.
        policy: How numbers are computed.
        progress: Reports the results.
        leave_out: Whether a network that cannot take a step is left out; else its error is raised.

    Raises:
        TrainingError: no network can take a step.
    """
    progress.say(f"self-test: {policy.reason}; using {policy.words()}")
    rounds, failures = list[dict[NetworkName, Cost]](), dict[NetworkName, str]()
    configs = {
        name: RunConfig(model=name, recipe=request.recipe_of(name), seed=request.seed)
        for name in request.models
    }
    minutes = request.recipe.train.minutes or 0.0
    planned_seconds = 60 * minutes * request.runs * len(request.models)

    def measured(names: Sequence[NetworkName]) -> dict[NetworkName, Cost]:
        found = {}
        for name in names:
            if name in failures:
                continue
            try:
                found[name] = measure(configs[name], dataset_of(name), policy)
            except TrainingError as error:
                if not leave_out:
                    raise
                failures[name] = str(error).removeprefix(f"{name}: ")
                progress.say(f"{name} is left out: {failures[name]}")
        if len(failures) == len(configs):
            raise TrainingError(f"no network can be trained here: {'; '.join(failures.values())}")
        return found

    # Nothing depends on the seconds of a frozen network, which takes no steps.
    frozen = measured([name for name in configs if name.start == "frozen"])
    trained = [name for name in configs if name.start != "frozen"]
    start = time.monotonic()
    for number in range(MAX_ROUNDS if trained else 0):
        if number >= MIN_ROUNDS and time.monotonic() - start > MAX_SHARE * planned_seconds:
            break
        rounds.append(measured(trained))
    able = [name for name in trained if name not in failures]
    found = frozen | (typical([{name: of[name] for name in able} for of in rounds]) if able else {})
    costs = {
        name: size_of(config, dataset_of(name)) if name in failures else found[name]
        for name, config in configs.items()
    }
    return costs, failures


def typical(rounds: Sequence[Mapping[NetworkName, Cost]]) -> dict[NetworkName, Cost]:
    """Return each network's cost from several rounds, at the typical speed of the machine.

    A network's share of its round (its seconds, divided by the geometric mean over the networks)
    does not depend on how busy the machine is in that round, unless that changes during the round.
    The median over rounds is not affected by a minority of such rounds. The median of each
    network's own seconds would be affected: if the load changes in the middle round, it is included
    in the seconds of some networks only.

    Args:
        rounds: The costs of the same networks in each round.
    """
    names = list(rounds[0])
    step_N = _typical_seconds([[of[name].step_seconds for name in names] for of in rounds])
    image_N = _typical_seconds([[of[name].image_seconds for name in names] for of in rounds])
    return {
        name: replace(rounds[0][name], step_seconds=step, image_seconds=image)
        for name, step, image in zip(names, step_N, image_N, strict=True)
    }


def _typical_seconds(seconds: list[list[float]]) -> list[float]:
    log_RN = np.log(seconds)
    round_R = log_RN.mean(axis=1)
    share_N = np.median(log_RN - round_R[:, None], axis=0)
    found: list[float] = np.exp(share_N + np.median(round_R)).tolist()
    return found


def steps_of(
    request: Request,
    dataset: Dataset,
    costs: Mapping[NetworkName, Cost],
    failures: Mapping[NetworkName, str],
) -> dict[NetworkName, int]:
    """Return how many steps a run of each network takes within the budget.

    0 if it cannot take one, and for frozen networks, whose last layer is fitted without steps.
    """
    num_steps = {
        name: 0
        if name in failures or name.start == "frozen"
        else budget(request.recipe_of(name), cost, dataset)
        for name, cost in costs.items()
    }
    return same_for_all_variants(num_steps) if request.attention else num_steps


def are_checked_by_trials(request: Request) -> bool:
    """Whether the steps depend on measured seconds, and trials can check these."""
    return request.recipe.train.minutes is not None and any(
        has_trials(request, name) for name in request.models
    )


def has_trials(request: Request, name: NetworkName) -> bool:
    """Whether learning rates are tried for a network of a comparison."""
    return name.start != "frozen" and len(trial_rates(request.recipe_of(name))) > 1


def check_by_trials(protocol: Protocol, ledger: Ledger, dataset: Dataset) -> StepsFixed:
    """Compare the estimated seconds per step with those of the trials; return the final steps.

    If the estimate of any network is off, the steps of all are computed from the trials, so that
    all have the same basis.

    Args:
        protocol: With the estimates.
        ledger: With all trials.
        dataset: The images of the first repetition.
    """
    request, decided = protocol.request, protocol.decided
    estimates = {name: Cost.of(figures) for name, figures in decided.costs.items()}
    rounds = _rounds_of_trials(request, ledger, estimates)
    found = typical(rounds) if rounds else {}

    def seconds_of(costs: Mapping[NetworkName, Cost]) -> dict[NetworkName, float]:
        size_of = {name: request.recipe_of(name).train.batch_size for name in found}
        return {name: costs[name].seconds_per_step(dataset, size_of[name]) for name in found}

    estimated, measured = seconds_of(estimates), seconds_of(found)
    corrected = any(abs(measured[name] / estimated[name] - 1) > MAX_ERROR for name in found)
    costs, num_steps = estimates, decided.num_steps
    if corrected:
        costs = estimates | found
        # A network of which no trial finished is not trained, so it takes no time from others.
        tried = _tried(ledger)
        able = {name: cost for name, cost in costs.items() if name in tried}
        num_steps = num_steps | steps_of(request, dataset, able, decided.failures)
    return StepsFixed(
        corrected=corrected,
        networks=tuple(
            CheckedSteps(
                network=name,
                step_seconds=cost.step_seconds,
                image_seconds=cost.image_seconds,
                estimated_seconds=estimated.get(name),
                trial_seconds=measured.get(name),
                planned_steps=decided.num_steps[name],
                steps=num_steps[name],
                # Otherwise it was decided with the first steps, and images may have changed since.
                mixes=mixes(request.recipe_of(name), num_steps[name], dataset)
                if corrected
                else None,
            )
            for name, cost in costs.items()
        ),
    )


def _rounds_of_trials(
    request: Request, ledger: Ledger, estimates: Mapping[NetworkName, Cost]
) -> list[dict[NetworkName, Cost]]:
    """Return the costs in the trials of each learning rate, of the networks that can be checked.

    These have a trial that finished, and one that was long enough. A rate counts if the trials of
    all of them were.
    """
    tried, rounds = _tried(ledger), []
    rates = {name: trial_rates(request.recipe_of(name)) for name in request.models}
    for number in range(max(map(len, rates.values()))):
        measured = {
            trial.network: replace(
                estimates[trial.network],
                step_seconds=trial.step_seconds,
                image_seconds=trial.image_seconds,
            )
            for trial in ledger.find_all(Trial)
            if trial.network in tried
            and trial.learning_rate in rates[trial.network][number : number + 1]
            and trial.step_seconds
            and trial.image_seconds
            and trial.num_steps >= MIN_TRIAL_STEPS
            and trial.num_steps * trial.step_seconds >= MIN_TRIAL_SECONDS
        }
        rounds.append(measured)
    checked = {name for measured in rounds for name in measured}
    return [measured for measured in rounds if checked and measured.keys() == checked]


def _tried(ledger: Ledger) -> set[NetworkName]:
    """Return the networks of which a trial finished."""
    return {trial.network for trial in ledger.find_all(Trial) if trial.validation_loss is not None}


def with_final_steps(protocol: Protocol, fixed: StepsFixed) -> Protocol:
    """Return the protocol with the steps that the trials confirmed or corrected."""
    decided = protocol.decided
    costs = {
        found.network: replace(
            decided.costs[found.network],
            step_seconds=found.step_seconds,
            image_seconds=found.image_seconds,
        )
        for found in fixed.networks
    }
    num_steps = {found.network: found.steps for found in fixed.networks}
    mixed = {found.network: found.mixes for found in fixed.networks if found.mixes is not None}
    final = decided.model_copy(
        update={
            "costs": costs,
            "num_steps": num_steps,
            "mixes": decided.mixes | mixed,
            "steps_are_final": True,
        }
    )
    return protocol.model_copy(update={"decided": final})


def correction_words(fixed: StepsFixed) -> str:
    """Say which networks were slower or faster in the trials than estimated, and what changes."""
    changes = [
        f"{found.network} {found.trial_seconds / found.estimated_seconds:.2g} times the estimate,"
        f" {found.planned_steps:,} → {found.steps:,} steps"
        for found in fixed.networks
        if found.trial_seconds and found.estimated_seconds
    ]
    return f"steps corrected by the seconds per step of the trials: {'; '.join(changes)}"


def unchecked_words(fixed: StepsFixed, ledger: Ledger) -> str | None:
    """Say which networks keep an estimate that the trials could not check; None if none does."""
    tried = _tried(ledger)
    names = [
        found.network
        for found in fixed.networks
        if found.trial_seconds is None and found.network in tried
    ]
    if not names:
        return None
    return (
        f"the trials could not check the estimated seconds per step of {listed(names)} (too short,"
        " or not all finished); measured training times will be compared at the end"
    )
