"""``convert --verify`` accepts differences by rounding, but not twice as much."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import case_dir

from convert.bundle import convert_steps
from convert.options import ConvertOptions
from convert.write import verify
from mlx_starflow.errors import WeightsError

PRECISIONS = {  # type or bits -> largest error that it explains, of a tensor's largest number
    "float32": 0.0,
    "bfloat16": 2.0**-8,
    "float16": 2.0**-10,
    8: 2.0**-8 + 2 / 255,
    4: 2.0**-8 + 2 / 15,
}


def convert(tmp_path, precision):
    flow = case_dir("t2i_tiny")
    kind = "quantize" if isinstance(precision, int) else "dtype"
    options = ConvertOptions(
        checkpoint=flow / "checkpoint.pth", config=flow / "config.yaml", output=tmp_path / "model",
        verify=True, **{kind: precision},
    )  # fmt: skip
    *_, report = convert_steps(options)
    return report


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_stored_passes(tmp_path, precision):
    assert convert(tmp_path, precision).verified["weight_error"] <= PRECISIONS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_error_above_rounding_is_refused(tmp_path, precision, monkeypatch):
    """One number of a matrix is off by three times what its type explains."""
    off, rows = max(3 * PRECISIONS[precision], 1e-6), verify._Weights.rows
    quantized, plain = isinstance(precision, int), precision == "float32"

    def wrong(self, store, first, count):
        values = np.array(rows(self, store, first, count))
        rounded = (store.bits is not None) == quantized and store.dtype != "F32"
        if values.ndim == 2 and (rounded or plain):
            values.flat[int(np.abs(values).argmax())] *= 1 + off
        return values

    monkeypatch.setattr(verify._Weights, "rows", wrong)
    with pytest.raises(WeightsError, match="differs from the checkpoint"):
        convert(tmp_path, precision)
    assert not (tmp_path / "model").exists()
