"""Break the package in known ways, one at a time; the suite must notice each: a test of the tests.

    python tests/planted_bugs.py [TEXT]

plants the bugs whose description contains TEXT, or all, each in a copy of the package, and runs the
test files that should notice.  A bug is caught when one of their tests fails (not when they cannot
run).  Exit code 1 if one survives.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Bug(NamedTuple):
    """Replace ``right`` by ``wrong`` in fastbp/``file``; ``tests`` should notice."""

    description: str
    file: str
    right: str
    wrong: str
    tests: str


LAYERS = "test_layers.py test_layers_affine.py test_layers_loss.py"
KERNELS = " ".join(
    f"kernels/test_{name}.py" for name in ("kernels", "exp", "rows", "softmax_kernels", "scan")
)
LOOP = "kernels/test_step.py test_engine.py"
DIFFERENCES = "test_differences.py"
PARALLEL = "test_parallel.py"

BUGS = [
    # --- kernels ---------------------------------------------------------------------------------
    Bug(
        "relu' is 1 at 0",
        "kernels/relu.py",
        'builder.fcmp_ordered("<=", values, zeros)',
        'builder.fcmp_ordered("<", values, zeros)',
        LAYERS,
    ),
    Bug(
        "relu' is 1 at 0 among the last numbers",
        "kernels/relu.py",
        "masked = value <= zero",
        "masked = value < zero",
        LAYERS,
    ),
    Bug(
        "relu turns NaN into 0",
        "kernels/relu.py",
        'builder.fcmp_ordered("<=", values, zeros)',
        'builder.fcmp_unordered("<=", values, zeros)',
        LAYERS,
    ),
    Bug(
        "relu's gradient multiplies by the mask, inf * 0",
        "kernels/relu.py",
        "zero if flat_mask[whole] >> j & 1 else value",
        "value * dout.dtype.type(not flat_mask[whole] >> j & 1)",
        f"{LAYERS} {KERNELS}",
    ),
    Bug(
        "relu's mask has the bits of each register at the same place",
        "kernels/relu.py",
        "builder.or_(bits, builder.shl(some, constant(k)))",
        "builder.or_(bits, some)",
        f"{LAYERS} {KERNELS}",
    ),
    Bug(
        "relu forgets the numbers that fill no mask",
        "kernels/relu.py",
        "for j in range(dout.size - whole * MASK_BITS):",
        "for j in range(0):",
        f"{LAYERS} {KERNELS}",
    ),
    Bug(
        "sigmoid's gradient lacks a factor",
        "kernels/sigmoid.py",
        "* (one - y) * y",
        "* (one - y)",
        LAYERS,
    ),
    Bug(
        "exp forgets the low part of ln 2",
        "kernels/exp.py",
        "    r = r - n * F64_LN2_LOW\n    return exp_near_0(r) * power * F64_DOWN",
        "    return exp_near_0(r) * power * F64_DOWN",
        KERNELS,
    ),
    Bug(
        "the logistic loses subnormal results",
        "kernels/exp.py",
        "x = min(max(x, F32_LOWEST), F32_HIGHEST)",
        "x = min(max(x, f32(-87.0)), F32_HIGHEST)",
        f"test_functions.py {KERNELS}",
    ),
    Bug(
        "the logistic lets its rounding errors add up",
        "kernels/exp.py",
        "b = a - F32_2_O * r",
        "b = (e2 * z + e1) * z + e0 - F32_O * r",
        KERNELS,
    ),
    Bug(
        "exp becomes infinite too early",
        "kernels/exp.py",
        "shift = F64_ROUND_EXP_UP if x > 0.0 else F64_ROUND_EXP",
        "shift = F64_ROUND_EXP",
        KERNELS,
    ),
    Bug(
        "log forgets what rounding took from its leading part",
        "kernels/exp.py",
        "(k * F32_LN2_LOW + low)",
        "k * F32_LN2_LOW",
        KERNELS,
    ),
    Bug(
        "log takes subnormal numbers for normal ones",
        "kernels/exp.py",
        "bias = F64_BIAS_RAISED if tiny else F64_BIAS",
        "bias = F64_BIAS",
        KERNELS,
    ),
    Bug(
        "the loss of probabilities ignores the sum of its targets",
        "kernels/softmax_loss.py",
        "loss += weight * math.log(total)",
        "loss += math.log(total)",
        KERNELS,
    ),
    Bug(
        "db sums three rows of four",
        "kernels/affine.py",
        "+ (dout[n + 2, h] + dout[n + 3, h])",
        "+ dout[n + 2, h]",
        LAYERS,
    ),
    Bug(
        "db forgets the last rows",
        "kernels/affine.py",
        "for n in range(whole, N):",
        "for n in range(whole, whole):",
        LAYERS,
    ),
    Bug(
        "the end of a row is not added",
        "kernels/rows.py",
        'builder.icmp_signed("<", whole, size)',
        'builder.icmp_signed(">", whole, size)',
        KERNELS,
    ),
    Bug(
        "a row's last chain is not added",
        "kernels/rows.py",
        "first, *others = (builder.load(chain) for chain in chains)",
        "first, *others = (builder.load(chain) for chain in chains[:-1])",
        KERNELS,
    ),
    Bug(
        "two ones make a one-hot row",
        "kernels/scan.py",
        "position = found - COUNT",
        "position = found % COUNT",
        KERNELS,
    ),
    Bug(
        "softmax without the shift by the maximum",
        "kernels/softmax_loss.py",
        "shifted[c] = logits[c] - highest",
        "shifted[c] = logits[c]",
        LAYERS,
    ),
    Bug(
        "softmax leaves the last row of a block",
        "kernels/softmax_loss.py",
        "        for n in range(start, stop):\n            normalise(row_of(y, n))\n\n",
        "        for n in range(start, stop - 1):\n            normalise(row_of(y, n))\n\n",
        f"test_functions.py {KERNELS}",
    ),
    Bug(
        "the loss forgets the logarithm of the last product",
        "kernels/softmax_loss.py",
        "product = 1.0\n    return loss + math.log(product)",
        "product = 1.0\n    return loss",
        LAYERS,
    ),
    Bug(
        "0 * -inf in the loss of probabilities",
        "kernels/softmax_loss.py",
        "logit if share != zero else zero",
        "logit",
        f"{LAYERS} {KERNELS}",
    ),
    Bug(
        "the gradient of probabilities does not scale y by their sum",
        "kernels/softmax_loss.py",
        "(y[n, c] * weight - t[n, c]) * factor",
        "(y[n, c] - t[n, c]) * factor * weight * weight",
        f"{LAYERS} {KERNELS}",
    ),
    Bug(
        "label -1 accepted",
        "kernels/scan.py",
        "if t[n] < 0 or t[n] >= C:",
        "if t[n] >= C:",
        LAYERS,
    ),
    Bug(
        "label C accepted",
        "kernels/scan.py",
        "if t[n] < 0 or t[n] >= C:",
        "if t[n] < 0 or t[n] > C:",
        LAYERS,
    ),
    Bug(
        "NaN not found in the last block",
        "kernels/scan.py",
        "for start in range(0, x.size, 4096):",
        "for start in range(0, x.size - 4095, 4096):",
        f"{KERNELS} test_trainer.py",
    ),
    Bug(
        "the numerical gradient forgets the first example",
        "kernels/numerical.py",
        "for n in range(N):\n            if x[n] == 0:",
        "for n in range(1, N):\n            if x[n] == 0:",
        DIFFERENCES,
    ),
    Bug(
        "the units after the first 64 are those of the first 64",
        "kernels/numerical.py",
        "weights[source + first :]",
        "weights[source:]",
        DIFFERENCES,
    ),
    Bug(
        "a ReLU unit moved down is taken for dead",
        "kernels/numerical.py",
        "down[j] = max(before[j] - step, zero) - after[j]",
        "down[j] = zero",
        DIFFERENCES,
    ),
    Bug(
        "large changes of logits count as small",
        "kernels/numerical.py",
        "NEAR = 2.0**-12",
        "NEAR = 2.0**12",
        DIFFERENCES,
    ),
    Bug(
        "the weight of a soft target is taken for 1",
        "kernels/numerical.py",
        "weight += np.float64(share)",
        "weight = 1.0",
        DIFFERENCES,
    ),
    Bug(
        "a deep layer's moved sums are not activated",
        "kernels/numerical.py",
        "row[q] = max(b + row[q], zero) - a",
        "row[q] = row[q]",
        DIFFERENCES,
    ),
    Bug(
        "the shift by the largest moved logit is forgotten in the difference",
        "kernels/numerical.py",
        "weight * (shift + math.log",
        "weight * (math.log",
        DIFFERENCES,
    ),
    Bug(
        "the numerical gradient without weight decay",
        "_differences.py",
        'if decay and key.startswith("W"):',
        'if decay and key.startswith("V"):',
        DIFFERENCES,
    ),
    Bug(
        "shared parameters are moved one at a time",
        "_differences.py",
        "and not any(np.may_share_memory",
        "and True or not any(np.may_share_memory",
        DIFFERENCES,
    ),
    # --- update rules ----------------------------------------------------------------------------
    Bug(
        "SGD climbs",
        "kernels/update.py",
        '"""``p -= lr * g``."""\n    for i in range(param.size):\n        param[i] -= lr * grad[i]',
        '"""``p -= lr * g``."""\n    for i in range(param.size):\n        param[i] += lr * grad[i]',
        "test_optimizer.py",
    ),
    Bug(
        "momentum forgets its velocity",
        "kernels/update.py",
        "v[i] = momentum * v[i] - lr * grad[i]\n        param[i] += v[i]",
        "v[i] = -lr * grad[i]\n        param[i] += v[i]",
        "test_optimizer.py",
    ),
    Bug(
        "Nesterov with plain momentum's step",
        "kernels/update.py",
        "(one + momentum) * lr * grad[i]",
        "lr * grad[i]",
        "test_optimizer.py",
    ),
    Bug(
        "AdaGrad without the root",
        "kernels/update.py",
        "h[i] += grad[i] * grad[i]\n        param[i] -= lr * grad[i] / (math.sqrt(h[i]) + eps)",
        "h[i] += grad[i] * grad[i]\n        param[i] -= lr * grad[i] / (h[i] + eps)",
        "test_optimizer.py",
    ),
    Bug(
        "RMSprop with the decay the wrong way round",
        "kernels/update.py",
        "decay_rate * h[i] + (one - decay_rate) * grad[i]",
        "(one - decay_rate) * h[i] + decay_rate * grad[i]",
        "test_optimizer.py",
    ),
    Bug(
        "Adam without the bias correction",
        "optimizer.py",
        "self.lr * math.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)",
        "self.lr",
        "test_optimizer.py",
    ),
    # --- layers and the gate ---------------------------------------------------------------------
    Bug(
        "Relu keeps its first mask",
        "layers/relu.py",
        "self._mask, self._shape, self._dtype = mask, x.shape, x.dtype",
        "self._mask = mask if self._mask is None else self._mask\n"
        "        self._shape, self._dtype = x.shape, x.dtype",
        LAYERS,
    ),
    Bug(
        "Relu overwrites dout, as in the book",
        "layers/relu.py",
        "dx = empty(shape, dtype)",
        "dx = dout",
        LAYERS,
    ),
    Bug(
        "Affine keeps its first input",
        "layers/affine.py",
        "self._x, self._x_shape = rows, x.shape",
        "self._x = rows if self._x is None else self._x\n        self._x_shape = x.shape",
        LAYERS,
    ),
    Bug(
        "W not transposed",
        "layers/affine.py",
        "_product(dout, self._W.T)",
        "_product(dout, self._W.T.copy().reshape(self._W.shape).T)",
        LAYERS,
    ),
    Bug("db missing", "layers/affine.py", "bias_backward(self.db, dout)", "self.db[:] = 0", LAYERS),
    Bug(
        "the loss is a sum, not a mean",
        "layers/softmax_with_loss.py",
        "self.loss = loss / N",
        "self.loss = loss",
        LAYERS,
    ),
    Bug(
        "the gradient is a sum, not a mean",
        "layers/softmax_with_loss.py",
        "float(dout / rows.shape[0])",
        "float(dout)",
        LAYERS,
    ),
    Bug(
        "backward ignores dout of the loss",
        "layers/softmax_with_loss.py",
        "float(dout / rows.shape[0])",
        "float(1 / rows.shape[0])",
        LAYERS,
    ),
    Bug(
        "gradients of broadcast operands not summed",
        "layers/arithmetic.py",
        "    if np.shape(gradient) == shape:\n        return gradient\n",
        "    return gradient\n",
        LAYERS,
    ),
    Bug(
        "labels not copied before they are checked",
        "_arrays.py",
        'labels = np.array(t, I64, order="C")',
        'labels = np.asarray(t, I64, order="C")',
        LAYERS,
    ),
    Bug(
        "huge uint64 labels become small ones",
        "_arrays.py",
        'labels = np.array(t, I64, order="C")',
        'labels = np.array(t % np.uint64(2**63) if t.dtype == np.uint64 else t, I64, order="C")',
        LAYERS,
    ),
    Bug(
        "rows that do not sum to 1 accepted",
        "_arrays.py",
        "    if bad >= 0:\n        with np.errstate",
        "    if bad > len(rows):\n        with np.errstate",
        LAYERS,
    ),
    Bug(
        "a mask dropped in silence",
        "_arrays.py",
        "return isinstance(x, np.ma.MaskedArray)",
        "return x is None",
        LAYERS,
    ),
    Bug(
        "gaps between elements reach the kernels",
        "_arrays.py",
        "if not array.flags.carray:",
        "if not array.flags.aligned:",
        f"{LAYERS} kernels/test_jit.py",
    ),
    Bug(
        "complex numbers lose their imaginary part",
        "_arrays.py",
        'if kind in "iub":',
        'if kind in "iubc":',
        LAYERS,
    ),
    # --- layers on several threads ---------------------------------------------------------------
    Bug(
        "threads: the elements behind the last whole row are left out",
        "parallel.py",
        "if elements % QUANTUM:",
        "if elements < QUANTUM:",
        PARALLEL,
    ),
    Bug(
        "threads: a mask of bits is taken for a number an element",
        "parallel.py",
        "QUANTUM if size == elements else 1 for size in sizes",
        "QUANTUM for size in sizes",
        PARALLEL,
    ),
    Bug(
        "threads: an array with gaps counts as one without",
        "parallel.py",
        "        if not array.flags.c_contiguous:\n            raise\n",
        "",
        PARALLEL,
    ),
    Bug(
        "threads: each part is the first rows",
        "kernels/shell.py",
        "    place = builder.add(place, builder.mul(start, step))\n",
        "",
        PARALLEL,
    ),
    Bug(
        "threads: the loss is cut by the number of threads",
        "layers/softmax_with_loss.py",
        "over_rows(kernel, y, x, t, edges=_sections(N, x.size))",
        "over_rows(kernel, y, x, t)",
        PARALLEL,
    ),
    Bug(
        "threads: layers do not ask how many the user allows",
        "parallel.py",
        "most = min(_threads.compiled_threads(), jit.MAX_THREADS)",
        "most = jit.MAX_THREADS",
        PARALLEL,
    ),
    Bug(
        "threads: a forked child starts some",
        "threads.py",
        "return not _forked and _has_fast_threads()",
        "return _has_fast_threads()",
        PARALLEL,
    ),
    # --- functions, gradients, networks ----------------------------------------------------------
    Bug(
        "relu_grad is 1 at 0",
        "functions.py",
        "np.where(x <= 0,",
        "np.where(x < 0,",
        "test_functions.py",
    ),
    Bug(
        "a one-sided difference",
        "gradient.py",
        "return (above - below) / (2 * h)",
        "return (above - float(f(x))) / h",
        "test_gradient.py test_book_numbers.py",
    ),
    Bug(
        "x not put back when f raises",
        "gradient.py",
        "below = _number(where, f(x))\n    finally:\n        x[index] = value",
        "below = _number(where, f(x))\n    except KeyError:\n        raise\n    x[index] = value",
        "test_gradient.py",
    ),
    Bug(
        "the gradient check lets 0.1 % pass",
        "gradient.py",
        "(1e-8, 1e-4)",
        "(1e-8, 1e-2)",
        "test_gradient.py",
    ),
    Bug(
        "replaced parameters not noticed",
        "_network.py",
        'if affine.W is not self.params[f"W{i}"]:',
        'if affine.W.shape != self.params[f"W{i}"].shape:',
        "test_network.py",
    ),
    Bug(
        "weight decay missing from the gradient",
        "_network.py",
        'grads[f"W{i}"] += self.weight_decay_lambda * affine.W',
        "pass",
        "test_network.py",
    ),
    Bug(
        "accuracy over the last piece only",
        "_network.py",
        "float(sums[1]) / len(x)",
        "float(sums[1]) / len(x[piece])",
        "test_network.py",
    ),
    # --- the compiled loop -----------------------------------------------------------------------
    Bug(
        "a transposed factor is read as if it were not",
        "kernels/gemm.py",
        "transposed = TRANSPOSED < code < SINGLE",
        "transposed = 2 * TRANSPOSED < code < SINGLE",
        "kernels/test_gemm.py",
    ),
    Bug(
        "a tile of one row stands for six in the midst of a batch",
        "kernels/forward.py",
        "(SINGLE if n == B - 1 else 0)",
        "(SINGLE if n >= B - TILE_ROWS else 0)",
        LOOP,
    ),
    Bug(
        "thin columns: the ends of rows are left out of their sums",
        "kernels/rows.py",
        'builder.icmp_signed("<", whole, K)',
        'builder.icmp_signed(">", whole, K)',
        "kernels/test_gemm.py",
    ),
    Bug(
        "thin columns: only the last rows of a large batch count",
        "kernels/thin.py",
        "(net.sizes[ZEROS], 0) if b == 0 else (turned, turned_row)",
        "(net.sizes[ZEROS], 0)",
        LOOP,
    ),
    Bug(
        "thin columns: one is taken for the other",
        "kernels/thin.py",
        "second[i] = pairs[2 * i + 1]",
        "second[i] = pairs[2 * i]",
        LOOP,
    ),
    Bug(
        "thin columns: their squares are left out of the decay",
        "kernels/backward.py",
        "if thin:\n                squares +=",
        "if thin < 0:\n                squares +=",
        LOOP,
    ),
    Bug(
        "thin columns: those of W.T stay as they were",
        "kernels/panels.py",
        "for j in range(thin):",
        "for j in range(0):",
        LOOP,
    ),
    Bug(
        "thin columns: their gradient is not delivered",
        "kernels/exchange.py",
        "for j in range(thin):\n            target",
        "for j in range(0):\n            target",
        "test_engine_network.py",
    ),
    Bug(
        "columns in pairs: the last of an odd number takes what is the next one's",
        "kernels/sparse.py",
        "own.select(is_pair, others, zero)",
        "others",
        "kernels/test_sparse.py",
    ),
    Bug(
        "columns in pairs: a number that is not there is the next one",
        "kernels/sparse.py",
        "held[1].add(_number_if(emit, numbers, table, q, there), dout)",
        "held[1].add(_number(emit, numbers, table, q), dout)",
        "kernels/test_sparse.py",
    ),
    Bug(
        "thin columns: without zeros they are looked for behind the others",
        "kernels/sparse.py",
        "if self.thin is not None:",
        "if self.thin is self:",
        "kernels/test_sparse.py",
    ),
    Bug(
        "thin columns: without zeros a rule has no step for them",
        "kernels/sparse_layer.py",
        "for _ in range(2 if thin else 1):",
        "for _ in range(1):",
        "test_examples.py test_engine.py",
    ),
    Bug(
        "thin columns: a rule has no step for them",
        "kernels/backward.py",
        "for _ in range(2 if thin else 1):",
        "for _ in range(1):",
        LOOP,
    ),
    Bug(
        "the last examples are read where they are, and what is behind them",
        "kernels/forward.py",
        "in_place = data.x.size // K - (LINE - 1) // (K * net.buffer.itemsize) - 1",
        "in_place = data.x.size // K",
        "test_engine.py",
    ),
    Bug(
        "the last vector of a tile is as narrow as the others are wide",
        "kernels/gemm.py",
        "[tail_lanes(itemsize)] * tail",
        "[simd.lanes(itemsize)] * tail",
        "kernels/test_gemm.py",
    ),
    Bug(
        "ReLU within the tile is forgotten",
        "kernels/gemm.py",
        "emit.store(emit.at_least(emit.splat(least, width), value), pointer, width)",
        "emit.store(value, pointer, width)",
        "kernels/test_gemm.py",
    ),
    Bug(
        "the columns that fill no square are missing in W.T",
        "kernels/panels.py",
        "for n in range(n0, n1, V):",
        "for n in range(n0, n1 - V + 1, V):",
        LOOP,
    ),
    Bug(
        "the user's weights are fetched without the last row",
        "kernels/exchange.py",
        "for k in range(k0, min(k1, K)):\n            source = view_at",
        "for k in range(k0, min(k1, K - 1)):\n            source = view_at",
        "test_engine_network.py",
    ),
    Bug(
        "gradients are delivered with the rows that pad W",
        "kernels/exchange.py",
        "for k in range(k0, min(k1, K)):\n        source = view(net.state",
        "for k in range(k0, k1):\n        source = view(net.state",
        "test_engine_network.py",
    ),
    Bug(
        "the user's bias is not fetched",
        "kernels/exchange.py",
        "            fetch_bias(net, data, l)",
        "            pass",
        "test_engine_network.py",
    ),
    Bug(
        "zeros are skipped though a weight is not finite, in gradients",
        "engine.py",
        "is_finite(self.plan.finite) and ",
        "",
        "test_engine_network.py",
    ),
    Bug(
        "zeros are skipped though a gradient is not finite",
        "engine.py",
        ' and is_finite(grads["b1"])',
        "",
        "test_engine_network.py",
    ),
    Bug(
        "zeros are skipped though a weight is not finite, in measurements",
        "examples.py",
        "if W is not None and not is_finite(W):",
        "if False:",
        "test_engine_network.py",
    ),
    Bug(
        "a range's mask has the bits of the next range",
        "kernels/compress.py",
        "if k1 - k < MASK_BITS:",
        "if k1 < k:",
        "kernels/test_compress.py",
    ),
    Bug(
        "a mask has a bit that has no place",
        "kernels/compress.py",
        "= bits ^ rest",
        "= bits",
        "kernels/test_compress.py",
    ),
    Bug(
        "the places in the rows are not moved on",
        "kernels/sparse.py",
        "own.store(own.add(p, own.add(here, there)), place)",
        "",
        "kernels/test_sparse.py",
    ),
    Bug(
        "sparse: a batch has no more than 128 rows in the update",
        "kernels/sparse_layer.py",
        "for n0 in range(0, B, COLUMN_ROWS):",
        "for n0 in range(0, 1, COLUMN_ROWS):",
        "test_examples.py",
    ),
    Bug(
        "sparse: the number of a row's places is that of all rows",
        "kernels/sparse_layer.py",
        "n0 + i, r)\n        net.columns[places + i]",
        "i, r)\n        net.columns[places + i]",
        "test_examples.py",
    ),
    Bug(
        "sparse: the update by rows lacks the last example",
        "kernels/sparse_layer.py",
        "for n in range(B):\n        if ahead",
        "for n in range(B - 1):\n        if ahead",
        "test_examples.py",
    ),
    Bug(
        "sparse: two threads note columns in one place",
        "kernels/sparse_layer.py",
        "places = thread * (net.columns.size // HALVES)",
        "places = 0 * (net.columns.size // HALVES)",
        "test_examples.py",
    ),
    Bug(
        "another value has the code of one that is there",
        "kernels/compress.py",
        "elif table[code] != value:",
        "elif table[code] == 0:",
        "kernels/test_compress.py",
    ),
    Bug(
        "a value beyond the table has a code",
        "kernels/compress.py",
        "if not 1.0 <= place < table.size",
        "if not 1.0 <= place < 2 * table.size",
        "kernels/test_compress.py",
    ),
    Bug(
        "a value has the code of a number that is not there",
        "kernels/compress.py",
        "1.0 <= place <",
        "0.0 <= place <",
        "kernels/test_compress.py",
    ),
    Bug(
        "codes: rows of W are not moved on with the masks",
        "kernels/sparse.py",
        "builder.add(first_column, simd.constant(MASK_BITS))",
        "builder.add(first_column, zero)",
        "kernels/test_sparse.py",
    ),
    Bug(
        "codes: the segment's masks are those of the first example",
        "kernels/sparse_layer.py",
        "h, buffer, h0, where, for_bytes(like, segment * words, 0),",
        "h, buffer, h0, where, 0,",
        "test_examples.py",
    ),
    Bug(
        "once: the masks of the first panel are noted for no row but the first",
        "kernels/sparse_once.py",
        "if p == layer[FIRST]:",
        "if p == layer[FIRST] and n == n0:",
        "test_engine_network.py",
    ),
    Bug(
        "once: rows of W are those of the first range",
        "kernels/sparse_once.py",
        "panel[START] + k0 * stride, panel[THIN_START] + k0 * THIN",
        "panel[START], panel[THIN_START]",
        "test_engine_network.py",
    ),
    Bug(
        "once: the second half of the inputs begins with the bias, too",
        "kernels/sparse_layer.py",
        "if half == 0 else net.sizes[ZEROS]",
        "if half < 2 else net.sizes[ZEROS]",
        "test_examples.py test_engine.py",
    ),
    Bug(
        "codes: by rows, the rows of W are those of the first range",
        "kernels/sparse_layer.py",
        "result, origin + k0 * stride, stride, origin_apart + k0 * THIN,",
        "result, origin, stride, origin_apart,",
        "test_examples.py",
    ),
    Bug(
        "codes are read by the kernel of values, if that came first",
        "engine.py",
        "key = kind, sparse, once, coded, decay, steps",
        "key = kind, sparse, once, decay, steps",
        "test_examples.py",
    ),
    Bug(
        "codes: the table of a piece is not that of the others",
        "examples.py",
        "if scale is not None and not encode(codes[begin:end], table, values[to], scale):",
        "if scale is not None and not encode(codes[begin:end], 0 * table, values[to], scale):",
        "test_examples.py",
    ),
    Bug(
        "gradients are delivered before they are there",
        "plan.py",
        "operations += [(tables.DELIVER, l, division) for _, l, division in updates]",
        "operations[-L:] = [(tables.DELIVER, l, d) for _, l, d in updates] + updates",
        "test_engine_network.py",
    ),
    Bug(
        "the bias's gradient is not delivered",
        "kernels/exchange.py",
        "            deliver_bias(net, data, l, p)",
        "            pass",
        "test_engine_network.py",
    ),
    Bug(
        "threads do not wait for the last meeting",
        "kernels/meeting.py",
        "thread * WORDS) < times:",
        "thread * WORDS) < times - 1:",
        "kernels/test_meeting.py",
    ),
    Bug(
        "threads go on into the next batch wherever rows are theirs",
        "plan.py",
        'together = kind == "train" and division == first == tables.BY_INPUTS',
        'together = kind == "train"',
        "test_plan.py",
    ),
    Bug(
        "a trial of few short batches counts",
        "pace.py",
        "if slow and short and batches >= self._trial_batches:",
        "if slow and short and batches > CALL_BATCHES:",
        "test_pace.py",
    ),
    Bug(
        "the number of Numba's threads stays changed",
        "kernels/shell.py",
        "    set_num_threads(before)",
        "    set_num_threads(threads)",
        PARALLEL,
    ),
    Bug(
        "the loop leaves Numba's threads changed",
        "kernels/step.py",
        "    set_num_threads(before)",
        "    set_num_threads(workers)",
        "test_engine.py",
    ),
    Bug(
        "threads that do not come are asked each time",
        "pace.py",
        "self._alone = 2**self._failures - 1",
        "self._alone = 0",
        "test_pace.py",
    ),
    Bug(
        "zeros met: numbers of the first mask for those of the next",
        "kernels/sparse.py",
        "first = builder.mul(loop.index, simd.constant(MASK_BITS))",
        "first = builder.mul(loop.index, simd.constant(0))",
        "test_engine_network.py",
    ),
    Bug(
        "sparse: the second 64 rows are not turned",
        "kernels/sparse_layer.py",
        "if n1 - n0 > MASK_BITS:",
        "if n1 < n0:",
        "test_examples.py",
    ),
    Bug(
        "sparse: masks of another batch stay behind the last row",
        "kernels/sparse_layer.py",
        "for i in range(n1 - n0, COLUMN_ROWS):",
        "for i in range(n1 - n0, 0):",
        "test_examples.py",
    ),
    Bug(
        "a square of bits is turned but for its last round",
        "kernels/simd.py",
        "        while step:\n            order",
        "        while step > 1:\n            order",
        "kernels/test_simd.py",
    ),
    Bug(
        "the last largest logit is the answer, not the first",
        "kernels/forward.py",
        "answer = answer if logits[c] < highest else c",
        "answer = c if answer == 0 and not logits[c] < highest else answer",
        "test_engine_network.py",
    ),
    Bug(
        "what pads the logits is not -inf",
        "plan.py",
        "logits.reshape(self.rows, -1)[:, layers[-1, tables.WIDTH] :] = -np.inf",
        "logits.reshape(self.rows, -1)[:, layers[-1, tables.WIDTH] :] = 0",
        LOOP,
    ),
    Bug(
        "W.T is not brought up to date",
        "kernels/panels.py",
        "for q in range(layer[BACK_FIRST], layer[BACK_LAST]):",
        "for q in range(layer[BACK_LAST], layer[BACK_LAST]):",
        LOOP,
    ),
    Bug(
        "relu' is 1 in the loop",
        "kernels/backward.py",
        "dz[j] = zero if h[j] <= zero else dz[j]",
        "dz[j] = zero if h[j] < zero else dz[j]",
        LOOP,
    ),
    Bug(
        "sigmoid' is 1 - y in the loop",
        "kernels/backward.py",
        "dz[j] = dz[j] * (one - h[j]) * h[j]",
        "dz[j] = dz[j] * (one - h[j])",
        LOOP,
    ),
    Bug(
        "the target is not subtracted in the loop",
        "kernels/forward.py",
        "dz[label] -= scale",
        "pass",
        LOOP,
    ),
    Bug(
        "the second half of the inputs is not added",
        "kernels/forward.py",
        "h[j] = one[j] + other[j]",
        "h[j] = one[j]",
        "test_engine.py",
    ),
    Bug(
        "sparse: the first number of each segment is left out of the update",
        "kernels/sparse_layer.py",
        "= data.starts[segment]\n",
        "= data.starts[segment] + 1\n",
        "test_examples.py",
    ),
    Bug(
        "sparse: scratch memory not cleared",
        "kernels/panels.py",
        "numbers[i] = numbers.dtype.type(0)",
        "numbers[i] += numbers.dtype.type(0)",
        "test_examples.py",
    ),
    Bug(
        "numbers go to compiled code in the type they have",
        "engine.py",
        "rule, rows, begins = _exact(rule), _int64(rows), _int64(begins)",
        "rows, begins = _int64(rows), _int64(begins)",
        "test_engine_types.py",
    ),
    Bug(
        "NaN stays in the padding",
        "plan.py",
        "self.buffer[: self.parameters] = 0",
        "pass",
        "test_engine_types.py",
    ),
    Bug(
        "sparse matrices: indices not checked",
        "examples.py",
        "self.columns.max() < self.shape[1]",
        "self.columns.max()",
        "test_examples.py",
    ),
    Bug(
        "the last row of each thread's part is left to the next one",
        "kernels/tables.py",
        "groups * (thread + 1) // threads * quantum",
        "groups * (thread + 1) // threads * quantum - (thread + 1 < threads)",
        "test_engine.py",
    ),
    Bug(
        "the weight decay of the first call counts for ever",
        "engine.py",
        "key = kind, sparse, once, coded, decay, steps",
        "key = kind, sparse, once, coded, steps",
        "test_engine_network.py",
    ),
    Bug(
        "a callback's parameters are not taken up",
        "trainer.py",
        "steps.take_up()",
        "pass",
        "test_engine_network.py",
    ),
    # --- training and files ----------------------------------------------------------------------
    Bug(
        "the digits may be pickles",
        "dataset/digits.py",
        "np.load(file, allow_pickle=False)",
        "np.load(file, allow_pickle=True)",
        "test_security.py",
    ),
    Bug(
        "a signature is evaluated",
        "kernels/jit.py",
        'return _types(signature.body, {**vars(numba.types), **named, "T": T})',
        'return eval(f"({template},)", {}, {**vars(numba.types), **named, "T": T})  # noqa: S307',
        "test_security.py",
    ),
    Bug(
        "the last, smaller batch is dropped",
        "sampling.py",
        "if not self._order.size:",
        "if self._order.size < self._batch_size:",
        "test_trainer.py",
    ),
    Bug(
        "'choice' without replacement",
        "sampling.py",
        "rows = self._rng.integers(0, self._N, count * self._batch_size)",
        "rows = self._rng.permutation(self._N)[: self._batch_size]",
        "test_trainer.py",
    ),
    Bug(
        "divergence not noticed",
        "trainer.py",
        "diverged = not (math.isfinite(losses[-1]) or allow_nonfinite)",
        "diverged = False",
        "test_trainer.py",
    ),
    Bug(
        "the seed is ignored",
        "sampling.py",
        "np.random.default_rng(None if seed is None else operator.index(seed))",
        "np.random.default_rng()",
        "test_trainer.py",
    ),
    Bug(
        "a file is written in place",
        "_files.py",
        "os.replace(name, path)",
        "path.write_bytes(content)",
        "test_files.py test_history.py",
    ),
    # --- checkpoints -----------------------------------------------------------------------------
    Bug(
        "the optimizer's state is not restored",
        "checkpoints.py",
        'vars(self.optimizer).update(state["optimizer"])',
        "pass",
        "checkpoints",
    ),
    Bug(
        "Adam's count begins at 0 again",
        "checkpoints.py",
        'vars(self.optimizer).update(state["optimizer"])',
        'vars(self.optimizer).update({**state["optimizer"], "iter": 0})',
        "checkpoints",
    ),
    Bug(
        "the place in the epoch is lost",
        "sampling.py",
        "        self._order = order\n",
        "        self._order = order[:0]\n",
        "checkpoints",
    ),
    Bug(
        "the random generator begins anew",
        "sampling.py",
        "            self._rng.bit_generator.state = generator\n",
        "            pass\n",
        "checkpoints",
    ),
    Bug(
        "the digest is not compared",
        "_sealed.py",
        'if digest.hexdigest() != metadata["sha256"]:',
        "if False:",
        "checkpoints",
    ),
    Bug(
        "the newest checkpoint is deleted",
        "checkpoints.py",
        "if found <= step][-self.checkpoints.keep :]",
        "if found <= step][: self.checkpoints.keep]",
        "checkpoints",
    ),
    Bug(
        "the best network is the first",
        "checkpoints.py",
        "accuracy > self._best",
        "self._best < 0",
        "checkpoints",
    ),
    Bug(
        "a checkpoint of other data is taken",
        "_identity.py",
        "digest.update(piece",
        "(lambda _: None)(piece",
        "checkpoints",
    ),
    Bug(
        "rows from a file are believed",
        "sampling.py",
        "if left and (order.min() < 0 or order.max() >= self._N or",
        "if left and (",
        "checkpoints",
    ),
    Bug(
        "a half step is saved",
        "trainer.py",
        "                whole = False\n",
        "                whole = True\n",
        "checkpoints",
    ),
    Bug(
        "parameters that are not finite are saved",
        "checkpoints.py",
        "if not self.meter.is_sound():",
        "if False:",
        "checkpoints",
    ),
    Bug(
        "a checkpoint is written in place",
        "_files.py",
        "    handle, name = _temporary_file(path.parent)\n",
        "    handle, name = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), path\n",
        "faults/test_kill.py",
    ),
    Bug(
        "the options of a training are forgotten",
        "cli/settings.py",
        "        if name in NOT_KEPT or value is None:",
        "        if name in NOT_KEPT or value is None or name == 'seed':",
        "cli/test_resume.py",
    ),
    Bug(
        "a cache that others may write to is used",
        "kernels/cache.py",
        "status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)",
        "status.st_mode & 0",
        "kernels/test_jit.py",
    ),
    Bug(
        "damaged machine code is run",
        "kernels/cache.py",
        "digest == _digest(text, code)",
        "digest",
        "kernels/test_jit.py",
    ),
    Bug(
        "a forked child takes the threads of another user of Numba for its own",
        "kernels/jit.py",
        "_inherited = _has_threads_of_a_parent()",
        "_inherited = False",
        "concurrency/test_concurrency.py"
        "::test_a_fork_after_somebody_else_has_started_numbas_threads",
    ),
    Bug(
        "the folder is not flushed after a save",
        "_files.py",
        "        raise\n    _flush_folder(path.parent)",
        "        raise",
        "faults/test_disk.py",
    ),
    Bug(
        "a file is not flushed before it gets its name",
        "_files.py",
        "            os.fsync(file.fileno())\n",
        "",
        "faults/test_disk.py",
    ),
    Bug(
        "Ctrl-C stops the taking up of parameters half-way",
        "trainer.py",
        "            with Held():\n                steps.take_up()",
        "            steps.take_up()",
        "faults/test_interrupts.py",
    ),
    Bug(
        "callbacks find another handler of Ctrl-C than the user's",
        "trainer.py",
        "contextlib.nullcontext() if callbacks else Taken()",
        "Taken()",
        "faults/test_interrupts.py",
    ),
    Bug(
        "what handles Ctrl-C is not given back when a second one comes through",
        "_interrupt.py",
        "    _give_back()\n    raise KeyboardInterrupt",
        "    raise KeyboardInterrupt",
        "faults/test_held.py",
    ),
    Bug(
        "a Ctrl-C that LLVM swallows is forgotten",
        "_interrupt.py",
        "        if self.pressed:\n            raise KeyboardInterrupt\n",
        "",
        "faults/test_held.py",
    ),
    Bug(
        "code is compiled where Ctrl-C waits",
        "steps.py",
        '        self.engine.load("train", self.data, self._rule(), self._batch_size)\n',
        "",
        "faults/test_interrupts.py",
    ),
    Bug(
        "the progress bar dies where Ctrl-C is lost",
        "report.py",
        "                del self._bar\n",
        "",
        "faults/test_interrupts.py",
    ),
    Bug(
        "Numba code of the user's own is taken for a kernel",
        "kernels/jit.py",
        'getattr(dispatcher, "_cache", None)',
        "dispatcher._cache",
        "kernels/test_jit.py",
    ),
]


def caught(bug: Bug, cache: str) -> str:
    """Plant the bug; return '' if the tests noticed, else what happened instead.

    Compiled kernels are kept in the folder ``cache``, apart for each text of their sources: bugs
    elsewhere share those of the sound ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("fastbp", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy / name)
        broken = copy / "fastbp" / bug.file
        text = broken.read_text(encoding="utf-8")
        if text.count(bug.right) != 1:
            return f"cannot plant it: found {text.count(bug.right)} times in {bug.file}"
        broken.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-x", "-q", "-m", "not mnist"),
                *("-p", "no:cacheprovider", *(f"tests/{name}" for name in bug.tests.split())),
            ],
            cwd=copy,
            env={
                **os.environ,
                "PYTHONPATH": folder,  # not the installed package
                "FASTBP_CACHE_DIR": cache,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 1 or done.returncode < 0:  # a test failed, or the bug killed the process
        return ""
    return "SURVIVED" if done.returncode == 0 else f"the tests did not run:\n{done.stdout[-2000:]}"


def main() -> int:
    """Plant the bugs; returns the exit code."""
    wanted = " ".join(sys.argv[1:])
    bugs = [bug for bug in BUGS if wanted in bug.description]
    survivors = 0
    with (
        tempfile.TemporaryDirectory() as cache,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        outcomes = pool.map(functools.partial(caught, cache=cache), bugs)
        for bug, outcome in zip(bugs, outcomes, strict=True):
            print(f"{outcome or 'caught':<10} {bug.description} ({bug.file})", flush=True)
            survivors += bool(outcome)
    print(f"{len(bugs)} bugs planted, {len(bugs) - survivors} caught")
    return 1 if survivors or not bugs else 0


if __name__ == "__main__":
    sys.exit(main())
