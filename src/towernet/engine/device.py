"""Which device, number format and memory layout a run uses: measured once, then only read.

Process-wide settings (threads, flags) are set in a `with` and restored after it.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from towernet import cpus
from towernet.attention import fused
from towernet.engine import kernels, waiting
from towernet.engine.memory import keep_freed_memory
from towernet.errors import ConfigError, EnvironmentFault
from towernet.models.own import code_of
from towernet.names import NetworkName
from towernet.native import ops
from towernet.records.run import Hardware, PolicyChoices

# bf16 has 8 significant bits; sums of some hundred products stay within this of fp32.
LARGEST_RELATIVE_ERROR = 0.05
NUM_TIMED_STEPS = 6  # the first ones select kernels and allocate memory


class Policy(PolicyChoices):
    """How numbers are computed, and methods to apply it."""

    @staticmethod
    def of(choices: PolicyChoices) -> Policy:
        """Return choices read from a record as a `Policy`."""
        return choices if isinstance(choices, Policy) else Policy(**asdict(choices))

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format of convolutions and matrix products."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute convolutions and matrix products in the policy's dtype."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            yield

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, in the policy's layout."""
        return model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload,no-any-return]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Apply the policy: threads, kernels, compiled copies, flags; restore them afterwards.

        Raises:
            EnvironmentFault: the machine lacks the device, or the kernels are not available.
        """
        if not _present(self.device):
            raise EnvironmentFault(
                f"torch finds no {self.device} device on this machine; leave out --device, or"
                " resume on the machine where the run was started"
            )
        with contextlib.ExitStack() as undo:
            undo.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self.threads)
            if self.kernels == "native" and (fault := kernels.fault()) is not None:
                raise EnvironmentFault(
                    f"this run used the C kernels, but {fault}; fix that, or pass"
                    " --accept-changes to resume with torch alone (results would differ slightly)"
                )
            if self.kernels == "compiled" and (fault := kernels.compiled_fault(self.device)):
                raise EnvironmentFault(
                    f"this run used compiled attention, but {fault}; fix that, or pass"
                    " --accept-changes to resume with torch alone (results would differ slightly)"
                )
            undo.enter_context(ops.enabled(self.kernels == "native"))
            undo.enter_context(fused.formula_only())
            undo.enter_context(
                fused.enabled(*([self.device] if self.kernels == "compiled" else []))
            )
            if self.device == "cpu":
                undo.enter_context(waiting.watched(self.threads))
                keep_freed_memory()  # not undone: glibc cannot report its previous settings
            if self.device == "cuda":
                undo.enter_context(_repeatable_cuda())
            yield


@contextlib.contextmanager
def _repeatable_cuda() -> Iterator[None]:
    """Make GPU results repeatable and float32 exact; restore the settings afterwards."""
    variable, cudnn = "CUBLAS_WORKSPACE_CONFIG", torch.backends.cudnn
    before = os.environ.get(variable), cudnn.benchmark, cudnn.allow_tf32
    precision = torch.get_float32_matmul_precision()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(variable, ":4096:8")  # cuBLAS reads it once, at its first call
    try:
        cudnn.benchmark, cudnn.allow_tf32 = False, False
        torch.set_float32_matmul_precision("highest")
        # A layer without a deterministic kernel (vgg's adaptive pooling) warns instead of failing.
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.use_deterministic_algorithms(is_deterministic, warn_only=warns_only)
        workspace, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision(precision)
        if workspace is None:
            del os.environ[variable]


def fp32(policy: Policy) -> Policy:
    """Return the policy with full precision; test results are computed with it."""
    return replace(policy, dtype="float32", reason="test results")


def require_device(device: str) -> None:
    """Refuse a name that is not a kind of device.

    Raises:
        ConfigError: listing the valid names.
    """
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"no device is called '{device}'; give auto, cpu, cuda or mps")


def choose_policy(device: str = "auto", threads: int | None = None) -> Policy:
    """Pick the device, and compare bf16 and channels_last with plain fp32 on a small network.

    Raises:
        ConfigError: the device is not one of auto, cpu, cuda, mps.
        EnvironmentFault: the requested device is not there.
    """
    require_device(device)
    if device == "auto":
        device = "cuda" if _present("cuda") else "cpu"
    plain = Policy(device, "float32", False, threads or default_threads(), "")
    with plain.active():
        return _fastest(plain)


def default_threads() -> int:
    """Return how many computing threads to use: torch's own number, within the container's quota.

    What else runs on the machine has no influence: the number changes bits.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    return min(torch.get_num_threads(), cpus.allowed())


def _fastest(plain: Policy) -> Policy:
    """Return the fastest policy whose numbers are close to those of plain fp32, with the reason."""
    steps = {plain: _self_test(plain)}
    expected = steps[plain]()
    deviations, found = {plain: 0.0}, []
    for dtype in ("float32", "bfloat16"):
        candidate = replace(plain, dtype=dtype, channels_last=True)
        try:
            steps[candidate] = _self_test(candidate)
            gradients = steps[candidate]()
        except RuntimeError as error:
            found.append(f"{dtype} raises ({str(error).splitlines()[0][:80]})")
            continue
        deviations[candidate] = ((gradients - expected).norm() / expected.norm()).item()
    # In turn, so that a program that runs for a moment slows all down; the fastest step of each,
    # since others can only slow it down.
    seconds = dict.fromkeys(deviations, math.inf)
    for _ in range(NUM_TIMED_STEPS):
        for policy in seconds:
            start = time.perf_counter()
            steps[policy]()
            seconds[policy] = min(seconds[policy], time.perf_counter() - start)
    for policy, deviation in deviations.items():
        if policy is not plain:
            speed = f"{seconds[plain] / seconds[policy]:.1f}× as fast"
            found.append(f"{policy.dtype} channels_last {speed}, error {deviation:.1%}")
    close = [policy for policy in seconds if deviations[policy] <= LARGEST_RELATIVE_ERROR]
    best = min(close, key=seconds.__getitem__)
    chosen, words = _choose_kernels(best)
    return replace(best, reason="; ".join([*found, *words]), kernels=chosen)


def kernels_here(policy: Policy) -> str:
    """Return the policy's kernels, or "torch" if they are not available."""
    if policy.kernels == "native":  # this check compiles them
        return "native" if kernels.fault() is None else "torch"
    if policy.kernels == "compiled":
        return "compiled" if kernels.compiled_fault(policy.device) is None else "torch"
    return "torch"


def _choose_kernels(policy: Policy) -> tuple[str, list[str]]:
    """Return which kernels this policy uses, and words for its reason.

    Those in C are for a CPU and for channels_last feature maps; on a GPU attention is compiled.
    """
    if policy.device == "cuda":
        if (fault := kernels.compiled_fault("cuda")) is not None:
            return "torch", [f"attention is slower than it could be: {fault}"]
        return "compiled", []
    if policy.device != "cpu":
        return "torch", []
    if not policy.channels_last:
        return "torch", ["no kernels in C, since channels_last is slower here"]
    if (fault := kernels.fault()) is not None:
        return "torch", [f"training is slower than it could be: {fault}"]
    return "native", []


def _present(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_available()
    return device == "cpu" or torch.backends.mps.is_available()


def _self_test(policy: Policy) -> Callable[[], Tensor]:
    """Return a step of a small network, which returns its gradients.

    Its layers are of the usual kinds, and large enough that arithmetic outweighs the overhead of
    calls.
    """
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> Tensor:
        fan_in = shape[1] * shape[2] * shape[3]
        weight = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        placed: Tensor = weight.to(policy.device, memory_format=policy.memory_format)
        return placed.requires_grad_()

    layers = [
        weights(32, 3, 3, 3),
        weights(96, 32, 3, 3),
        weights(96, 1, 3, 3),
        weights(192, 96, 1, 1),
        weights(64, 192, 3, 3),
    ]
    images = torch.randn(8, 3, 96, 96, generator=generator)
    images = images.to(policy.device, memory_format=policy.memory_format)

    def step() -> Tensor:
        with policy.autocast():
            x = F.max_pool2d(F.relu(F.conv2d(images, layers[0], padding=1)), 2)
            x = F.relu(F.conv2d(x, layers[1], padding=1))
            x = F.relu(F.conv2d(x, layers[2], padding=1, groups=96))
            x = F.relu(F.conv2d(x, layers[3]))
            x = F.conv2d(x, layers[4], padding=1)
            loss = F.group_norm(x, 1).float().square().mul(x.float().sigmoid()).mean()
        gradients: tuple[Tensor, ...] = torch.autograd.grad(loss, layers)
        flat: Tensor = torch.cat([gradient.float().flatten() for gradient in gradients])
        return flat.cpu()

    return step


def hardware(policy: PolicyChoices) -> Hardware:
    """Describe the machine for the record."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = torch.cuda.get_device_name() if policy.device == "cuda" else _processor()
    return Hardware(
        processor=name,
        cores=os.cpu_count(),
        memory_gib=round(memory_gib, 1),
        device=policy.device,
        dtype=policy.dtype,
        channels_last=policy.channels_last,
        threads=policy.threads,
        kernels=policy.kernels,
    )


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """Return Linux's value for the first core, or ''."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""


def bits_depend_on(policy: PolicyChoices, models: Iterable[NetworkName]) -> dict[str, str]:
    """Return what must be the same for the same bits, besides the policy.

    That is: versions, the source of custom networks and blocks, and the processor's vector
    instructions or the kind of GPU, which determine the order in which sums are added.

    Args:
        policy: How numbers are computed.
        models: The networks, by name.
    """
    if policy.device == "cuda":
        return versions() | {"gpu": torch.cuda.get_device_name()} | code_of(models)
    offered = _cpuinfo("flags").split()
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in offered]
    return versions() | {
        "instructions": " ".join([platform.machine(), *wide]),
        "kernels": kernels.identity() if policy.kernels == "native" else "torch",
        **code_of(models),
    }


def versions() -> dict[str, str]:
    """Return the versions that can change a result's bits."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "scipy", "cleanlab")
    import towernet

    return {
        "towernet": towernet.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
