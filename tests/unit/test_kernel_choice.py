"""Which attention kernel a run gets, and what it is told where the wanted one cannot run."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gamecraft_core.attention import flash, sage
from gamecraft_core.attention.kernel import KernelName, pick_kernel, sdpa
from gamecraft_core.base.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def nhd_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Exact attention over [batch, rows, heads, dim], the layout that both packages take."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def install(monkeypatch: pytest.MonkeyPatch, package: str, **functions: object) -> None:
    """Stand in for a package that only GPU images have."""
    module = ModuleType(package)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, package, module)


def remove(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make ``import package`` fail, as where it is missing or was built for another torch."""
    monkeypatch.setitem(sys.modules, package, None)


def sageattn(q: Tensor, k: Tensor, v: Tensor, *, tensor_layout: str = "HND", is_causal: bool = True) -> Tensor:
    assert (tensor_layout, is_causal) == ("NHD", False)
    return nhd_attention(q, k, v)


def test_packages_that_do_not_import_are_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, module in (("flash_attn", flash), ("sageattention", sage)):
        remove(monkeypatch, package)
        assert not module.available()
    install(monkeypatch, "flash_attn", flash_attn_func=nhd_attention)
    install(monkeypatch, "sageattention", sageattn=sageattn)
    assert flash.available()
    assert sage.available()


def test_the_packages_are_called_in_their_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "flash_attn", flash_attn_func=nhd_attention)
    install(monkeypatch, "sageattention", sageattn=sageattn)
    q, k, v = (torch.randn(rows, 3, 8) for rows in (5, 9, 9))
    expected = sdpa(q, k, v)
    names: tuple[KernelName, ...] = ("flash", "sage")
    for name in names:
        kernel = pick_kernel(name, CUDA, torch.bfloat16)
        torch.testing.assert_close(kernel(q, k, v), expected)


def test_auto_never_takes_the_approximate_one(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "sageattention", sageattn=sageattn)
    remove(monkeypatch, "flash_attn")
    assert pick_kernel("auto", CUDA, torch.bfloat16) is sdpa
    install(monkeypatch, "flash_attn", flash_attn_func=nhd_attention)
    assert pick_kernel("auto", CUDA, torch.bfloat16) is flash.flash_attention


def test_the_approximate_one_says_its_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install(monkeypatch, "sageattention", sageattn=sageattn)
    with caplog.at_level(logging.WARNING, logger="framelane"):
        assert pick_kernel("sage", CUDA, torch.bfloat16) is sage.sage_attention
    assert "approximate" in caplog.text
    assert sage.ERROR in caplog.text


@pytest.mark.parametrize(("name", "package"), [("flash", "flash_attn"), ("sage", "sageattention")])
def test_asked_for_and_absent_is_refused(monkeypatch: pytest.MonkeyPatch, name: KernelName, package: str) -> None:
    remove(monkeypatch, package)
    with pytest.raises(UsageError, match=f"{package} is not installed") as caught:
        pick_kernel(name, CUDA, torch.bfloat16)
    assert caught.value.field == "runtime.attention"
    assert "auto or sdpa" in caught.value.remedy


@pytest.mark.parametrize("name", ["flash", "sage"])
@pytest.mark.parametrize(("device", "dtype"), [(CPU, torch.bfloat16), (CUDA, torch.float32)])
def test_asked_for_where_it_cannot_run_is_refused(name: KernelName, device: torch.device, dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match=f"does not run in {str(dtype).removeprefix('torch.')} on {device.type}"):
        pick_kernel(name, device, dtype)
