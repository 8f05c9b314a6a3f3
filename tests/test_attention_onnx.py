"""Every block exported to ONNX, and run by another program on 200 batches."""

import pytest
import torch

from towernet.attention import ATTENTION, AttentionBlock
from towernet.testing import build_block, feature_map
from towernet.testing.blocks import CHANNELS

onnx, _, onnxruntime = (
    pytest.importorskip(package, reason=f"export to ONNX needs {package}: pip install -e '.[dev]'")
    for package in ("onnx", "onnxscript", "onnxruntime")
)

SEEDS = 200
# Relative to the largest number: sums of up to 128 products in fp32, added in another order. No
# block differs by more than 1e-5.
TOLERANCE = 3e-5


def exported(block: AttentionBlock, *, batch: torch.export.Dim | None) -> bytes:
    """Return the block as an ONNX model for any batch size, or only for the example's."""
    program = torch.onnx.export(
        block.eval(),
        (feature_map(3, CHANNELS, 7, 5),),
        dynamo=True,
        dynamic_shapes=({0: batch},) if batch else None,
        verbose=False,
    )
    return program.model_proto.SerializeToString()


def check_export(block: AttentionBlock, model: bytes) -> None:
    """Check that ONNX Runtime computes the same as the block, for several batch sizes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    for seed in range(SEEDS):
        x = feature_map(1 + seed % 5, CHANNELS, 7, 5, seed=seed)
        (found,) = session.run(None, {name: x.numpy()})
        with torch.no_grad():
            wanted = block.eval()(x)
        error = float((torch.from_numpy(found) - wanted).abs().max() / wanted.abs().max())
        assert error <= TOLERANCE, (seed, error)


@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_every_block_computes_the_same_in_onnx_runtime(name):
    block = build_block(ATTENTION[name])
    check_export(block, exported(block, batch=torch.export.Dim("batch")))


class UsesHardSigmoid(ATTENTION["se"]):
    def attention_map(self, x_BCHW):
        mean_BC = x_BCHW.mean(dim=(2, 3))
        gate_BC = torch.nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(mean_BC))))
        return gate_BC[:, :, None, None]


def _with_another_activation(block: AttentionBlock) -> bytes:
    twin = build_block(UsesHardSigmoid)
    twin.load_state_dict(block.state_dict())
    return exported(twin, batch=torch.export.Dim("batch"))


def _with_a_weight_rounded_to_bf16(block: AttentionBlock) -> bytes:
    twin = build_block(type(block))
    with torch.no_grad():
        twin.excite.bias.copy_(twin.excite.bias.bfloat16())
    return exported(twin, batch=torch.export.Dim("batch"))


@pytest.mark.parametrize("sabotage", [_with_another_activation, _with_a_weight_rounded_to_bf16])
def test_another_program_is_rejected(sabotage):
    block = build_block(ATTENTION["se"])
    with pytest.raises(AssertionError):
        check_export(block, sabotage(block))


def test_a_program_for_one_size_of_batch_is_rejected():
    block = build_block(ATTENTION["se"])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Got: 1"):
        check_export(block, exported(block, batch=None))
