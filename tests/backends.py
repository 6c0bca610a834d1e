"""Ways to filter that tests compare with the definition."""

import pytest

from ms_sincresnet.nnet.backends import simd

needs_compiler = pytest.mark.skipif(
    simd.LIBRARY is None, reason="installed without a C compiler"
)
FAST = ["fft", pytest.param("simd", marks=needs_compiler)]
