"""Operations that go element by element, or whole along named axes."""

from collections.abc import Callable

from jaxviz.incremental.rules.access import Access, Follow, Site, named_axes, points, without


def elementwise(site: Site) -> Access:
    """Read element by element; scalars and axes of length 1 are stretched."""
    return Access(tuple(points(shape, site.result) for shape in site.shapes))


def along(*names: str) -> Callable[[Site], Access]:
    """Read whole the axes that a parameter names, the others element by element."""

    def access(site: Site) -> Access:
        axes = named_axes(site.params, names)
        return Access(
            tuple(
                tuple(None if a in axes else Follow(a) for a in range(len(shape)))
                for shape in site.shapes
            )
        )

    return access


def reduce(site: Site) -> Access:
    """Read whole the reduced axes, which the result lacks, the others element by element."""
    axes = named_axes(site.params, ("axes", "dimensions"))
    return Access(tuple(without(len(shape), axes) for shape in site.shapes))


ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq eq_to erf
    erf_inv erfc exp exp2 expm1 floor ge ge_to gt gt_to igamma igamma_grad_a igammac imag
    integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul name ne neg
    nextafter not or polygamma population_count pow real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
""".split()
REDUCTIONS = """
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin
""".split()
