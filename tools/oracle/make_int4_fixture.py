#!/usr/bin/env python3
"""Write crates/model/tests/goldens/int4_fixture.safetensors: INT4 matrices and their weights, bit for bit.

Needed only to regenerate (the versions are those in the head of make_goldens.py):

    venv/bin/python tools/oracle/make_int4_fixture.py crates/model/tests/goldens/int4_fixture.safetensors

For every matrix <m> of shape [N, K], group 32 along K:

    <m>.weight_packed  [N, K/8]   I32, packed by compressed-tensors
    <m>.weight_scale   [N, K/32]  BF16
    <m>.weight_shape   [2]        I64
    <m>.dequantized    [N, K]     BF16, what compressed-tensors' decompressor returns

`minmax_*` matrices are quantised by the library from random weights. The others prescribe codes and scales
that a library would seldom choose, and only packing and dequantisation are the library's.
"""
import sys

import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils.helpers import calculate_qparams
from safetensors.torch import save_file

GROUP = 32
ARGS = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP, dynamic=False)
SCHEME = QuantizationScheme(targets=["Linear"], weights=ARGS)


def from_weights(weight):
    """Scale, codes and packing all by the library."""
    groups = weight.unflatten(-1, (-1, GROUP))
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), ARGS)
    state = dict(weight=weight, weight_scale=scale, weight_zero_point=zero)
    return PackedQuantizationCompressor.compress(state, SCHEME)


def from_codes(codes, scale):
    """Codes [N, K] in -8..7 and scales [N, K/32] as given; the packing is the library's."""
    return dict(
        weight_packed=pack_to_int32(codes.to(torch.int8), 4), weight_scale=scale.to(torch.bfloat16),
        weight_shape=torch.tensor(codes.shape),
    )


def random_codes(*shape):
    return torch.randint(-8, 8, shape)


def bf16_from_bits(*bits):
    return torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def matrices():
    normal = lambda *shape: torch.randn(shape).to(torch.bfloat16)
    yield "minmax_8x64", from_weights(normal(8, 64))
    yield "minmax_16x96", from_weights(0.02 * normal(16, 96))
    yield "minmax_3x32", from_weights(normal(3, 32) * torch.tensor([[1e-30], [1.0], [1e30]], dtype=torch.bfloat16))
    # Every code at every place of a word: row r is the ramp -8..7 turned by r.
    ramp = torch.arange(16)
    yield "all_codes_16x32", from_codes(torch.stack([ramp.roll(r).repeat(2) - 8 for r in range(16)]), torch.ones(16, 1))
    yield "ends_2x64", from_codes(torch.tensor([-8, 7]).repeat(2, 32), torch.tensor([[0.75, 1.3], [3.0, 1e-3]]))
    # Every mantissa of BF16 under every code: the product must round to nearest, ties to even.
    every_mantissa = bf16_from_bits(*(0x3F80 + m for m in range(128))).reshape(128, 1)
    yield "rounding_128x32", from_codes(ramp.repeat(128, 2) - 8, every_mantissa)
    # Zero, the least and the greatest subnormal, the least normal, a large power of two, and a negative scale:
    # negative zeros, subnormal products and exponents near both ends.
    edges = bf16_from_bits(0x0000, 0x0001, 0x007F, 0x0080, 0x7D80, 0xBF81 - 0x10000).reshape(6, 1)
    yield "edge_scales_6x32", from_codes(ramp.repeat(6, 2) - 8, edges)
    yield "wide_5x256", from_codes(random_codes(5, 256), torch.rand(5, 8) * 0.01)


def main(path):
    torch.manual_seed(20)
    tensors = {}
    for name, packed in matrices():
        weight = PackedQuantizationCompressor.decompress(packed, SCHEME)["weight"]
        assert weight.dtype == torch.bfloat16 and weight.isfinite().all(), name
        for part in ("weight_packed", "weight_scale", "weight_shape"):
            tensors[f"{name}.{part}"] = packed[part].contiguous()
        tensors[f"{name}.dequantized"] = weight.contiguous()
        zeros = weight.view(torch.int16) == -0x8000
        print(f"{name}: {tuple(weight.shape)}, {int(zeros.sum())} negative zeros, |w| {weight.abs().min():.3g}..{weight.abs().max():.3g}")
    save_file(tensors, path)


if __name__ == "__main__":
    main(sys.argv[1])
