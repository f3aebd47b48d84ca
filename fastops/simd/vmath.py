"""Elementary functions for float32 and float64 that LLVM vectorises inside a plain loop.

Call them from a ``@function`` or a ``@separate`` one, one element at a time::

    for i in range(y.size):
        y[i] = exp(x[i])

==========  ==================================================  =================
function    computed as                                         largest error, ulp
==========  ==================================================  =================
exp         2^n e^r, e^r = 1 + r + r^2 P(r), x = n ln 2 + r     0.8
expm1       2^n (e^r - 1) + (2^n - 1), with the same P          1.2
log         n ln 2 + 2 s + s^3 Q(s^2), s = f / (2 + f)          0.9
log1p       log of the rounded 1 + x, and what rounding lost    0.9
tanh        x + x^3 P(x^2), or 1 - 2 / (e^2x + 1) from 0.625    1.4
sigmoid     1 / (1 + e^-x), or e^x / (1 + e^x) below 0          1.6
erf         x + x P(x^2), or 1 - e^P(x) from 1                  1.3
==========  ==================================================  =================

Parts of formulas that need less than the functions above, in less time: ``exp_plain`` (e^x where that is a normal number,
1.1 ulp, 0 and infinity beyond), ``log1p_unit`` (log(1 + x) for x from 0 to 1, 1.6 ulp), ``gaussian`` (the normal distribution).

The errors hold in both formats: over every float32 number, and over samples in float64 (tests/test_vmath.py).
NaN, infinities, the sign of zero, overflow and denormal results come out as IEEE 754 asks. There is no branch: both sides of
a condition are computed and one is selected, and that is what lets a loop over them become packed instructions.

The stock functions call the scalar C library from inside the loop (exp 2.6 to 5.2 ns an element, tanh 18 to 27); these take
about 0.5 and 1 ns. The polynomials are minimax fits of our own; docs/decisions/010-elementary-functions.md
has the program that found them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from fastops._jit import FLAGS, function

# LLVM alone would stop inlining erf into a loop, and no entry for Python is needed.
_INLINED = {**FLAGS, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_UNSIGNED = {types.float32: types.uint32, types.float64: types.uint64}
_FLOAT = {unsigned: floating for floating, unsigned in _UNSIGNED.items()}


@intrinsic
def polynomial(typing_context: Any, x: Any, coefficients: Any) -> Any:
    """c[0] + x (c[1] + x (c[2] + ...)) by Horner's rule; one intrinsic, since twenty nested expressions compile slowly."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        point, table = args
        terms = [builder.extract_value(table, k) for k in range(coefficients.count)]
        total = terms.pop()
        while terms:
            product = builder.fmul(total, point, flags=("contract",))
            total = builder.fadd(product, terms.pop(), flags=("contract",))
        return total

    return x(x, coefficients), codegen


def _reinterpret(result: dict[Any, Any]) -> Any:
    @intrinsic
    def cast(typing_context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(signature.return_type))

        return result[x](x), codegen

    return cast


bits = _reinterpret(_UNSIGNED)
"""The IEEE 754 bits of a float, as an unsigned integer of its width."""

from_bits = _reinterpret(_FLOAT)
"""The float with these bits."""


@intrinsic
def copysign(typing_context: Any, size: Any, sign: Any) -> Any:
    """The first argument with the sign of the second, -0 and NaN included."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = args[0].type
        called = builder.module.declare_intrinsic("llvm.copysign", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(called, args)

    return size(size, sign), codegen


def _constants(dtype: type, **tables: Any) -> SimpleNamespace:
    """The numbers of one format, in that format: nothing wider may enter a float32 function."""
    mantissa = np.finfo(dtype).nmant
    bias = np.finfo(dtype).maxexp - 1
    unsigned = np.uint32 if dtype is np.float32 else np.uint64
    # ln 2 in two parts, the first short enough for its product with an exponent to be exact without a fused multiply-add
    short = 2.0 ** (mantissa - 11)
    ln2_high = math.floor(math.log(2) * short) / short
    ln2_low = float(Decimal(2).ln() - Decimal(ln2_high))
    as_uint = unsigned(1).dtype.type
    one = int(np.asarray(1, dtype).view(unsigned))
    root_half = int(np.asarray(math.sqrt(0.5), dtype).view(unsigned))
    return SimpleNamespace(
        zero=dtype(0),
        half=dtype(0.5),
        one=dtype(1),
        two=dtype(2),
        nan=dtype(np.nan),
        infinity=dtype(np.inf),
        log2_e=dtype(1 / math.log(2)),
        ln2_high=dtype(ln2_high),
        ln2_low=dtype(ln2_low),
        # adding this to a small n leaves n + bias in the low bits: rounding, conversion and exponent bias in one addition
        rounder=dtype(1.5 * 2.0**mantissa + bias),
        mantissa=as_uint(mantissa),
        # exponent and fraction of a float whose fraction is wanted in [sqrt 1/2, sqrt 2)
        root_half=as_uint(root_half),
        below_root_half=as_uint(one - root_half),
        fraction=as_uint((1 << mantissa) - 1),
        exponent_base=as_uint(int(np.asarray(2.0**mantissa, dtype).view(unsigned))),
        exponent_zero=dtype(2.0**mantissa + bias),
        smallest_normal=dtype(np.finfo(dtype).tiny),
        scale_up=dtype(2.0 ** (mantissa + 2)),
        scaled_by=dtype(mantissa + 2),
        uint=as_uint,
        **{name: tuple(map(dtype, value)) if isinstance(value, tuple) else dtype(value) for name, value in tables.items()},
    )


# fmt: off
_SINGLE = _constants(
    np.float32,
    exp_low=-104, exp_high=89, tanh_split=0.625, erf_last=4,
    exp_table=(0.5, 0.16666543, 0.04166628, 0.008366584, 0.0013946452),
    plain_low=-88, plain_high=89,
    log_table=(0.6666666, 0.40000337, 0.28537238, 0.2358357),
    log_unit_table=(0.66666412, 0.4002177, 0.27997866, 0.28031263),
    exp2_low=-127, exp2_table=(0.6931472, 0.2402265, 0.05550328, 0.009618004, 0.0013400284, 0.00015476314),
    gaussian_slope=0.3,
    gaussian_table=(0.12522969, 0.06854883, 0.3070129, -0.3245897, 0.53686055, -0.25193286, 0.038870594),
    tanh_table=(-0.33333284, 0.13331491, -0.053743497, 0.020650586, -0.0057170433),
    erf_table=(0.12837917, -0.37612626, 0.112836, -0.026854444, 0.0051895357, -0.0008020842, 7.889123e-05),
    log_erfc_table=(0.00018803611, -1.1295784, -0.6332199, -0.10841854, 0.025208237, -0.0042045545, 0.000441335, -2.1686737e-05),
)
_DOUBLE = _constants(
    np.float64,
    exp_low=-746, exp_high=710, tanh_split=0.625, erf_last=6,
    exp_table=(
        0.5, 0.16666666666666677, 0.0416666666666667, 0.008333333333321615, 0.0013888888888866843, 0.00019841269886159,
        2.4801587360548794e-05, 2.755724418149063e-06, 2.755724276467693e-07, 2.5109045031591157e-08, 2.092444209961348e-09,
    ),
    log_table=(
        0.6666666666666666, 0.40000000000006286, 0.28571428569072965, 0.22222222648750203, 0.18181775508529804,
        0.15387097651286527, 0.13249962005511343, 0.13252755096677124,
    ),
    plain_low=-709.4, plain_high=710,
    log_unit_table=(
        0.666666666666663, 0.4000000000015878, 0.28571428547647687, 0.22222223983199754, 0.18181743429524885,
        0.15386570883953105, 0.13300824726212462, 0.12107300430836339, 0.08334645327115325, 0.17028953971421806,
    ),
    exp2_low=-1023,
    exp2_table=(
        0.6931471805599453, 0.24022650695910133, 0.05550410866482174, 0.009618129107593305, 0.0013333558146379036,
        0.00015403530458117515, 1.525273386753743e-05, 1.321543479655284e-06, 1.017804646346893e-07, 7.073863899388962e-09,
        4.457386871310475e-10,
    ),
    gaussian_slope=0.3,
    gaussian_table=(
        0.11967133110984167, 0.119923859321553, 0.10656642118562404, 0.10111467705647423, 0.004236244691544302,
        0.17175916971778377, -0.2682723419002069, 0.29355183038613825, -0.12015460808623761, -0.3216724285597261,
        0.6738482953442041, -0.6406370870533606, 0.3651718128710373, -0.12910005590170098, 0.02640321929439163,
        -0.0024103394773600057,
    ),
    tanh_table=(
        -0.33333333333332876, 0.13333333333264916, -0.053968253932482425, 0.02186948760196747, -0.008863221319292479,
        0.003591991570928534, -0.0014549704772910494, 0.0005863524886430656, -0.00022863325120638274, 7.7219191270657e-05,
        -1.610755202989119e-05,
    ),
    erf_table=(
        0.1283791670955126, -0.3761263890318375, 0.11283791670954885, -0.02686617064507787, 0.005223977624828394,
        -0.0008548326981423854, 0.00012055331132907628, -1.4925595771306719e-05, 1.6461008467805596e-06,
        -1.63503961546437e-07, 1.4660328488810042e-08, -1.1374955602640097e-09, 5.960686270120729e-11,
    ),
    log_erfc_table=(
        -7.192217470029686e-08, -1.128378475351483, -0.6366227786546802, -0.10276495603175824, 0.01911644362836073,
        0.0002191170946307145, -0.0016933897978007495, 0.0005678948526326728, 1.1879743163330592e-05, -0.00010571983819524354,
        6.288103109052705e-05, -2.381053779506811e-05, 6.737428934127122e-06, -1.4894271229975712e-06, 2.5998487074149626e-07,
        -3.561193269871795e-08, 3.754671729163786e-09, -2.9425587415504235e-10, 1.613951396378583e-11, -5.525332996465579e-13,
        8.879215477142476e-15,
    ),
)
# fmt: on


def _for_both_formats(make: Callable[[SimpleNamespace], Callable[..., Any]]) -> Any:
    """The function that ``make`` writes with the constants of one format, chosen by the type of the first argument."""
    versions = {types.float32: make(_SINGLE), types.float64: make(_DOUBLE)}

    def chosen(x):
        return compiled(x)

    @overload(chosen, jit_options=_INLINED)
    def choose(x):
        return versions.get(x)

    compiled = njit(**FLAGS)(lambda x: chosen(x))
    chosen.__name__ = chosen.__qualname__ = make.__name__.strip("_")
    chosen.__doc__ = make.__doc__
    return chosen


def _reduce(k: SimpleNamespace) -> Any:
    """t, n, high, tail with e^x = 2^n (1 + high + tail): high is exact, |high| <= ln 2 / 2, and tail small.

    t is n + rounder: shifted to the left by the mantissa's width, its bits are those of 2^n.
    """
    log2_e, ln2_high, ln2_low, rounder, table = k.log2_e, k.ln2_high, k.ln2_low, k.rounder, k.exp_table

    @function
    def reduce(x):
        t = x * log2_e + rounder
        n = t - rounder
        high = x - n * ln2_high
        low = n * ln2_low
        r = high - low
        return t, n, high, r * r * polynomial(r, table) - low

    return reduce


def _log_of_product(k: SimpleNamespace) -> Any:
    """log(m 2^n (1 + c)) for tiny c, from the fraction f = m - 1; for log and log1p alike."""
    half, two, ln2_high, ln2_low, table = k.half, k.two, k.ln2_high, k.ln2_low, k.log_table

    @function
    def log_of_product(f, n, c):
        s = f / (two + f)
        z = s * s
        square = half * f * f
        return n * ln2_high - ((square - (s * (square + z * polynomial(z, table)) + (n * ln2_low + c))) - f)

    return log_of_product


def _split_fraction(k: SimpleNamespace) -> Any:
    """n, f with x = 2^n (1 + f) and 1 + f in [sqrt 1/2, sqrt 2), for a positive normal x."""
    root_half, below, fraction, mantissa, uint = k.root_half, k.below_root_half, k.fraction, k.mantissa, k.uint
    base, zero_exponent, one = k.exponent_base, k.exponent_zero, k.one

    @function
    def split(x):
        shifted = uint(bits(x) + below)
        # the exponent becomes a float through the low bits of 2^mantissa: AVX2 cannot convert 64-bit integers
        n = from_bits(uint(uint(shifted >> mantissa) | base)) - zero_exponent
        return n, from_bits(uint(uint(shifted & fraction) + root_half)) - one

    return split


for _constants_of_format in (_SINGLE, _DOUBLE):
    _constants_of_format.reduce = _reduce(_constants_of_format)
    _constants_of_format.split_fraction = _split_fraction(_constants_of_format)
    _constants_of_format.log_of_product = _log_of_product(_constants_of_format)


@_for_both_formats
def exp(k):
    """e^x."""
    lowest, highest, half, one = k.exp_low, k.exp_high, k.half, k.one
    rounder, mantissa, uint, reduce = k.rounder, k.mantissa, k.uint, k.reduce

    def implementation(x):
        # written so that NaN fails both comparisons and stays
        x = lowest if x < lowest else x
        x = highest if x > highest else x
        _, n, high, tail = reduce(x)
        # 2^n as a product of two: one alone could not reach the denormals or go past the largest float
        first = n * half + rounder
        second = (n - (first - rounder)) + rounder
        rounded = one + high
        y = (rounded + ((high - (rounded - one)) + tail)) * from_bits(uint(bits(first) << mantissa))
        return y * from_bits(uint(bits(second) << mantissa))

    return implementation


@_for_both_formats
def exp_plain(k):
    """e^x where that is a normal number; 0 below, and infinity above (from half a binade before the largest number on)."""
    lowest, highest, one = k.plain_low, k.plain_high, k.one
    mantissa, uint, reduce = k.mantissa, k.uint, k.reduce

    def implementation(x):
        x = lowest if x < lowest else x
        x = highest if x > highest else x
        t, _, high, tail = reduce(x)
        # at the ends the exponent's bits are those of zero and of infinity
        return (one + (high + tail)) * from_bits(uint(bits(t) << mantissa))

    return implementation


@_for_both_formats
def expm1(k):
    """e^x - 1, accurate near zero."""
    lowest, highest, mantissa, uint = k.exp_low * k.half, k.exp_high, k.mantissa, k.uint
    half, two, rounder_less_one, reduce = k.half, k.two, k.rounder - k.one, k.reduce
    linear = k.one / k.scale_up  # below it e^x - 1 rounds to x

    def implementation(x):
        inside = lowest if x < lowest else x
        inside = highest if inside > highest else inside
        _, n, high, tail = reduce(inside)
        # 2^n (e^r - 1) + (2^n - 1), halved on the way, since 2^n alone may be past the largest float
        scale = from_bits(uint(bits(n + rounder_less_one) << mantissa))
        whole, part = scale - half, high * scale
        rounded = whole + part
        y = (rounded + ((part - (rounded - whole)) + tail * scale)) * two
        return x if abs(x) < linear else y

    return implementation


@_for_both_formats
def log(k):
    """Natural logarithm."""
    zero, nan, infinity = k.zero, k.nan, k.infinity
    smallest, scale, scaled_by = k.smallest_normal, k.scale_up, k.scaled_by
    split, log_of_product = k.split_fraction, k.log_of_product

    def implementation(x):
        denormal = x < smallest
        n, f = split(x * scale if denormal else x)
        y = log_of_product(f, n - scaled_by if denormal else n, zero)
        y = y if x < infinity else x
        y = y if x > zero else nan
        return -infinity if x == zero else y

    return implementation


@_for_both_formats
def log1p(k):
    """log(1 + x), accurate near zero."""
    zero, one, nan, infinity = k.zero, k.one, k.nan, k.infinity
    split, log_of_product = k.split_fraction, k.log_of_product

    def implementation(x):
        u = one + x
        # what the sum has lost, from whichever of the two is the larger
        lost = (one - (u - x)) if x > one else (x - (u - one))
        n, f = split(u)
        y = log_of_product(f, n, lost / u)
        y = y if x < infinity else x
        y = y if u > zero else nan
        y = -infinity if u == zero else y
        return x if x == zero else y

    return implementation


@_for_both_formats
def tanh(k):
    """Hyperbolic tangent."""
    one, two, split, table = k.one, k.two, k.tanh_split, k.tanh_table

    def implementation(x):
        size = abs(x)
        z = x * x
        near = size + size * (z * polynomial(z, table))
        far = one - two / (exp_plain(size + size) + one)
        return copysign(near if size < split else far, x)

    return implementation


@_for_both_formats
def sigmoid(k):
    """1 / (1 + e^-x)."""
    zero, one, lowest = k.zero, k.one, k.exp_low
    mantissa, uint, reduce = k.mantissa, k.uint, k.reduce
    up, down = k.scaled_by, k.one / k.scale_up

    def implementation(x):
        # e^-|x| cannot overflow, and below zero the small result is the numerator itself; as a multiple of e^-|x| that is a normal
        # number everywhere, it becomes a denormal one by its last multiplication alone
        size = -abs(x)
        t, _, high, tail = reduce(lowest if size < lowest else size)
        rounded = one + high
        large = (rounded + ((high - (rounded - one)) + tail)) * from_bits(uint(bits(t + up) << mantissa))
        e = large * down
        quotient = (large if x < zero else one) / (one + e)
        # e / (1 + e) written as e - e (e / (1 + e)): the rounding of 1 + e weighs less
        return (large - e * quotient) * down if x < zero else quotient

    return implementation


@_for_both_formats
def erf(k):
    """The error function, 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    one, last, near_table, far_table = k.one, k.erf_last, k.erf_table, k.log_erfc_table

    def implementation(x):
        size = abs(x)
        near = size + size * polynomial(x * x, near_table)
        far = one - exp_plain(polynomial(last if size > last else size, far_table))
        return copysign(near if size < one else far, x)

    return implementation


@_for_both_formats
def log1p_unit(k):
    """log(1 + x) for 0 <= x <= 1: one series, and no exponent to take apart."""
    two, table = k.two, k.log_unit_table

    def implementation(x):
        s = x / (two + x)
        z = s * s
        return s * two + s * (z * polynomial(z, table))

    return implementation


@_for_both_formats
def gaussian(k):
    """The probability that a normal number is below x, and e^(-x^2 / 2): the one is made of the other.

    Below 0 the probability is e^(-x^2 / 2) t P(t) with t = 1 / (1 + 0.3 |x|), the form of Abramowitz and Stegun 7.1.26 with
    polynomials of our own; its error is at most 2 ulp of 1, and relative to itself 1e-3 where it is below 1e-6 (float32).
    """
    zero, one, slope, table = k.zero, k.one, k.gaussian_slope, k.gaussian_table
    steepness, lowest, rounder, power_table, mantissa, uint = -k.half * k.log2_e, k.exp2_low, k.rounder, k.exp2_table, k.mantissa, k.uint

    def implementation(x):
        # as a power of 2: what rounding its exponent does to e is no more than what rounding x^2 does
        power = x * x * steepness
        power = lowest if power < lowest else power
        shifted = power + rounder
        r = power - (shifted - rounder)
        e = (one + r * polynomial(r, power_table)) * from_bits(uint(bits(shifted) << mantissa))
        t = one / (one + slope * abs(x))
        tail = e * (t * polynomial(t, table))
        return one - tail if x > zero else tail, e

    return implementation
