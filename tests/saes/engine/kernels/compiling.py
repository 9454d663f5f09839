"""Compile every launch of the kernels for an H200, which takes no GPU. Run as a script, without the interpreter.

The functions are called with tensors of no memory ("meta"); each kernel is replaced by a recorder that compiles what it
is launched with, under the specialisations that Triton would choose. One ordinary shape; with `all`, extreme ones too.
"""

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from saes.engine.kernels import adam, gradients, products, selection, sums

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64"}


class Recorder:
    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert grid[0] < 2**31 and all(size < 2**16 for size in grid[1:])
        return self.compile

    def compile(self, *args: Any, num_warps: int, **constants: Any) -> None:
        names = [parameter.name for parameter in self.kernel.params]
        given = dict(zip(names, args, strict=False)) | constants
        assert list(given) == names
        signature, constexprs, attributes = {}, dict(constants), {}
        for place, (name, value) in enumerate(given.items()):
            if name in constants or (type(value) is int and value == 1):
                signature[name], constexprs[name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name], attributes[(place,)] = TYPES[value.dtype], [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
                if type(value) is int and value % 16 == 0:
                    attributes[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constexprs, attrs=attributes)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
        wide = made.asm["ptx"].count("ld.global.v4.b32")
        print(self.kernel.__name__, constants, f"warps {num_warps}, loads of 16 bytes {wide}", flush=True)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def launch(n: int, m: int, d: int, k: int, dtype: torch.dtype) -> None:
    """Everything once, at one shape, with activations and tables of one precision."""
    pairs = n * k
    indices, values = empty(pairs, dtype=torch.int64), empty(pairs)
    offsets, W = empty(m + 1, dtype=torch.int64), empty(m, d)
    acts, table = empty(n, d, dtype=dtype), empty(m, d, dtype=dtype)
    sums.weighted_sums(table, indices, empty(n + 1, dtype=torch.int64), values)
    products.inner_products(acts, table, indices, indices)
    gradients.weight_gradients(acts, acts, values, values, indices, indices, offsets)
    gradients.weight_gradients(empty(3 * n, d, dtype=dtype), acts, values, values, indices, indices, offsets)
    for factor in (None, empty()):
        about = {"lr": 1e-3, "betas": (0.9, 0.99), "factor": factor, "skip": factor, "unit_rows": factor is None}
        adam.adam_step(W, W, W, W, step=empty(), **about)
    selection.top_rows(empty(n, m, dtype=dtype), k)
    selection.top_rows(empty(n, 3 * m, dtype=dtype)[:, :m], k)


def main() -> None:
    for module in (adam, gradients, products, selection, sums):
        for name, value in list(vars(module).items()):
            # Helpers stay what they are: they are compiled into the kernels that call them.
            if isinstance(value, triton.JITFunction) and name not in ("_sum", "_keys", "_places"):
                setattr(module, name, Recorder(value))
    launch(8192, 24576, 768, 32, torch.float32)
    if sys.argv[1:] == ["all"]:
        launch(16384, 131072, 4096, 256, torch.bfloat16)
        launch(513, 7, 5, 1, torch.float32)
        launch(1, 1, 1, 1, torch.bfloat16)  # Triton makes constants of arguments that are 1.


if __name__ == "__main__":
    main()
