"""What follows a product: the bias, then the activation, in place while the block is still in cache."""
from __future__ import annotations

from fastops._jit import separate
from fastops.simd.epilogue import activate


@separate
def finish_rows(y, y0, y_row, rows, cols, bias, bias0, bias_row, bias_col, activation):  # type: ignore[no-untyped-def]
    """y[i, j] = activation(y[i, j] + bias[i * bias_row + j * bias_col]); an empty bias adds nothing."""
    for i in range(rows):
        start = y0 + i * y_row
        if bias.size > 0:
            if bias_col == 0:
                b = bias[bias0 + i * bias_row]
                for j in range(cols):
                    y[start + j] += b
            else:
                for j in range(cols):
                    y[start + j] += bias[bias0 + i * bias_row + j]
        if activation != 0:
            activate(activation, y, start, cols)
