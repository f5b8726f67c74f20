"""Experiments read what trainings leave of the same small pictures."""

from tests.training.conftest import labelled as labelled
