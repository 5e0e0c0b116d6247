"""Quantiles of Student's t against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.student_t import t975, t_quantile


@given(p=st.floats(0.51, 0.999), df=st.floats(1, 400))
def test_t_quantile_equals_scipy(p, df):
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-7)


@given(df=st.one_of(st.floats(1, 2000), st.just(math.inf)))
def test_t975_equals_scipy_at_degrees_of_freedom_whole_or_not(df):
    assert t975(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-8)
    assert t975(np.array([[df, 3.5]])).shape == (1, 2)
