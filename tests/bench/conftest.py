"""What measures training does so on the small pictures of its tests."""

from tests.training.conftest import labelled as labelled
