"""A run's record, `run.json`: written for a new run, compared with the command when resuming."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from towernet import files
from towernet.config import RunConfig
from towernet.data.prepare import Dataset, fingerprint
from towernet.engine.device import bits_depend_on, hardware
from towernet.errors import DataError
from towernet.models.own import code_of
from towernet.records.run import Origin, Plan, RunRecord, RunSummary, read_run
from towernet.records.weights import StartWeights
from towernet.resume import Accept, Decisive, choices_of, refuse_changes


def read_trained(folder: Path) -> RunRecord:
    """Read the record of a run that was trained here.

    Raises:
        DataError: as `read_run`; or its weights were trained elsewhere.
    """
    record = read_run(folder)
    if isinstance(record, RunRecord):
        return record
    raise DataError(
        f"{folder} contains imported weights, which towernet cannot train further; choose another"
        " folder"
    )


def summary_of(folder: Path) -> RunSummary:
    """Return how a finished run ended.

    Raises:
        DataError: its record is damaged, or it is not finished.
    """
    summary = read_trained(folder).summary
    if summary is None:
        raise DataError(f"{folder} is not finished; rerun the command that started it")
    return summary


def write_run(folder: Path, record: RunRecord) -> None:
    """Write the record of a run."""
    files.write_json(folder / "run.json", record.model_dump())


def open_run(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    origin: Origin,
    accept: Accept,
    started_from: StartWeights | None = None,
) -> RunRecord:
    """Write `run.json` for a new run, or read it and refuse any difference.

    Raises:
        ConfigError: the folder contains another run, or one with other choices or versions.
        DataError: its run was trained on other images, or written by a newer towernet.
    """
    wanted = RunRecord(
        format=files.FORMAT,
        status="running",
        config=config,
        plan=plan,
        contract=dataset.contract,
        data=fingerprint(dataset.table),
        versions=bits_depend_on(plan.policy, [config.model]),
        origin=origin,
        hardware=hardware(plan.policy),
        started_from=started_from,
    )
    if not (folder / "run.json").exists():
        write_run(folder, wanted)
        return wanted
    record, differs = continued(read_trained(folder), wanted, folder, accept)
    if differs:
        write_run(folder, record)
    return record


def continued(
    record: RunRecord, wanted: RunRecord, folder: Path, accept: Accept
) -> tuple[RunRecord, bool]:
    """Compare a record with that of the same run if it were started now.

    Returns:
        The record to continue with, and whether it contains an accepted difference.

    Raises:
        ConfigError: other choices, or versions that are not accepted.
        DataError: other images, and they are not accepted.
    """
    if record.status == "finished":
        # Nothing is trained any more, so images, plan and versions are not compared, except for
        # the source of a custom network, which computes the predictions with the weights.
        plan = replace(wanted.plan, policy=record.plan.policy)
        code = code_of([record.config.model])
        code = {key: code[key] for key in code.keys() & record.versions.keys()}
        made = {"data": record.data, "versions": record.versions | code, "plan": plan}
        wanted = wanted.model_copy(update=made)
    accepted = []
    if record.data != wanted.data:
        if not accept.data:
            raise DataError(
                f"the images differ from those {folder} was trained on; restore them, choose"
                " another --out, or accept the change with --accept-data-change"
            )
        accepted.append("images")
    # The preprocessing stays as it was at the start, even if fewer images would give another mean;
    # the classes must be the same.
    contract = replace(record.contract, class_names=wanted.contract.class_names)
    wanted = wanted.model_copy(update={"contract": contract})
    accepted += refuse_changes(folder, _decisive(record), _decisive(wanted), accept)
    if not accepted:
        return record, False
    accepted = [*(record.accepted or ()), *accepted]
    return wanted.model_copy(update={"origin": record.origin, "accepted": tuple(accepted)}), True


def _decisive(record: RunRecord) -> Decisive:
    """Return what determines a run's bits, for `refuse_changes` to compare."""
    plan = record.plan
    decided = {
        "num_steps": plan.num_steps,
        "learning_rate": plan.learning_rate,
        "mixes": plan.mixes,
    }
    return Decisive(
        (
            ("", choices_of(record.config)),
            ("plan", decided),
            ("contract", asdict(record.contract)),
        ),
        record.versions,
        plan.policy.threads,
        plan.policy.kind(),
    )


def finished(record: RunRecord, summary: RunSummary, weights_sha256: str | None) -> RunRecord:
    """Return the record of a run that ended; a trial keeps no weights."""
    ended = {"status": "finished", "summary": summary, "weights_sha256": weights_sha256}
    return record.model_copy(update=ended)


def identity(config: RunConfig, plan: Plan) -> str:
    """Return a hash of what defines a run: a state can only be resumed by the same run."""
    # Runs from before there was a share have a share of 1: their states stay valid.
    without = {"train_share"} if config.train_share == 1 else set()
    choices = config.model_dump(mode="json", exclude=without)
    return files.digest([choices, plan.num_steps, plan.learning_rate, plan.mixes])
