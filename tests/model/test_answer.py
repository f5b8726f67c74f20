"""The decision rule and the shape of an answer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.answer import answer, posterior_median, probabilities


def test_probabilities_are_a_tempered_softmax() -> None:
    logits = np.array([[0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0]])
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    assert np.allclose(probabilities(logits, temperature=2.0), expected)
    assert np.isfinite(probabilities(logits * 1e4)).all()
    assert probabilities(logits, bias=[50, 0, 0, 0, 0, 0, 0]).argmax() == 0


@given(st.lists(st.floats(0.001, 1), min_size=7, max_size=7))
def test_the_median_has_the_least_expected_distance(weights: list[float]) -> None:
    p = np.array([weights]) / sum(weights)
    distances = [(p[0] * np.abs(np.arange(7) - k)).sum() for k in range(7)]
    assert distances[posterior_median(p)[0]] <= min(distances) + 1e-6


def test_six_or_more_is_a_minimum() -> None:
    found = answer(np.array([0, 0, 0, 0, 0.1, 0.3, 0.6]), "v1")
    assert found == {
        "count": 6,
        "is_minimum": True,
        "expected_capped": 5.5,
        "confidence": 0.6,
        "probabilities": [0, 0, 0, 0, 0.1, 0.3, 0.6],
        "model_version": "v1",
    }
