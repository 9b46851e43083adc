"""fp8 weights and matmuls: an approximate option (``runtime.fp8``), for GPUs with fp8 units.

Weights and activations are quantised per tensor to e4m3: the largest magnitude becomes 448. The arithmetic follows the
published code step by step in bfloat16, so bytes and scales are its own. The activations' scale is taken at each call
over the rows at hand, so trimming padding or splitting a sequence moves the result a little. Error, measured on random
tiny models: latents move by 1.6 % of their spread on average, where bfloat16 alone moves them by 0.3 %. Where there are
no fp8 units the product is emulated in float32, for tests; runs refuse such devices (``require_fp8``).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.dit.layers import Linear
from gamecraft_core.weights.source import Entry, Source

FP8 = torch.float8_e4m3fn
_LARGEST = 448.0
FIRST_CAPABILITY = (8, 9)
_SCALE = "weight_scale"


class Fp8Linear(Linear):
    """A linear layer whose weight is e4m3 bytes and one scale; it computes, and answers, in bfloat16."""

    weight_scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None, device: torch.device) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        weight = torch.empty(out_features, in_features, dtype=FP8, device=device)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer(_SCALE, torch.empty(1, device=device))
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x, 0)

    def part(self, x: Tensor, start: int, stop: int | None = None) -> Tensor:
        """Output features ``start`` to ``stop``."""
        rows = x.reshape(-1, self.in_features)
        product = fp8_product(*quantise(rows), self.weight[start:stop], self.weight_scale)
        if self.bias is not None:
            product += self.bias[start:stop].to(product.dtype)
        return product.view(*x.shape[:-1], product.shape[-1])


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` as e4m3 values and the float32 scale [1] that multiplies them back."""
    x = x.to(torch.bfloat16)
    if not x.numel():
        return x.to(FP8), torch.ones(1, device=x.device)
    low, high = x.aminmax()
    peak = torch.maximum(-low, high)
    factor = torch.where(peak == 0, 1.0, peak).reciprocal() * _LARGEST
    return (x * factor).to(FP8), factor.float().reciprocal().reshape(1)


def fp8_product(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """``x`` [n, in] times ``weight`` [out, in] transposed, both e4m3, as bfloat16 [n, out]."""
    if has_fp8(x.device):
        product: Tensor = torch._scaled_mm(x, weight.t(), x_scale, weight_scale, out_dtype=torch.bfloat16)
        return product
    return ((x.float() @ weight.float().t()) * (x_scale * weight_scale)).to(torch.bfloat16)


def is_quantised(module: str) -> bool:
    """Whether the fp8 option converts the linear layer at this path: those of the blocks, without modulation."""
    return "block" in module and "mod" not in module


def quantise_model(model: nn.Module) -> list[str]:
    """Replace the linears that the option names, weights included; on the meta device there are none to convert.

    Returns their paths. Linears that already are fp8 stay.
    """
    found = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and is_quantised(name)]
    for name in found:
        parent, _, attribute = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        if isinstance(linear, Fp8Linear):
            continue
        weight = linear.weight
        made = Fp8Linear(linear.in_features, linear.out_features, linear.bias, weight.device)
        if not weight.is_meta:
            with torch.no_grad():
                values, scale = quantise(weight)
                made.weight.copy_(values)
                made.weight_scale.copy_(scale)
        setattr(model.get_submodule(parent), attribute, made.train(linear.training))
    return found


def quantised(source: Source, modules: Iterable[str], device: torch.device | None = None) -> Source:
    """``source`` with the weights of ``modules`` as bytes and scale, converted on ``device`` one by one when read.

    Weights that are stored in fp8 stay as they are.
    """
    names = {f"{module}.weight": f"{module}.{_SCALE}" for module in modules}
    names = {key: scale for key, scale in names.items() if key in source.entries and not is_fp8(source.entries[key])}
    entries = {}
    for key, entry in source.entries.items():
        entries[key] = Entry(entry.shape, FP8, entry.file) if key in names else entry
        if key in names:
            entries[names[key]] = Entry((1,), torch.float32, entry.file)
    weights = {scale: key for key, scale in names.items()}
    latest: dict[str, tuple[Tensor, Tensor]] = {}

    def both(key: str) -> tuple[Tensor, Tensor]:
        if key not in latest:
            latest.clear()
            latest[key] = quantise(source.read(key).to(device))
        return latest[key]

    def read(key: str) -> Tensor:
        if key in names:
            return both(key)[0]
        return both(weights[key])[1] if key in weights else source.read(key)

    return Source(source.name, entries, read)


def linear_names(source: Source) -> list[str]:
    """The modules of a transformer's checkpoint that the option names."""
    matrices = (key.removesuffix(".weight") for key, entry in source.entries.items() if len(entry.shape) == 2)
    return [name for name in matrices if f"{name}.weight" in source.entries and is_quantised(name)]


def is_fp8(entry: Entry) -> bool:
    return entry.dtype.is_floating_point and entry.dtype.itemsize == 1


def has_fp8(device: torch.device) -> bool:
    """Whether ``device`` multiplies fp8 matrices itself."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY


def require_fp8(device: torch.device, why: str, field: str) -> None:
    """A WeightsError, with the alternative, where ``device`` has no fp8 units; ``why`` says what asks for them."""
    if has_fp8(device):
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    raise WeightsError(
        f"{why}, and {name} has no fp8 units",
        field=field,
        remedy="use bfloat16 (runtime.fp8=false), and for speed int8 attention (runtime.attention=sage)",
    )
