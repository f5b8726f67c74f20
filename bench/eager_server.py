"""The server that serving is compared with: the same network in eager torch, float32, behind the same HTTP server.

    SAGEMAKER_BIND_TO_PORT=8081 .venv-train/bin/python -m bench.eager_server

Same decoding, preprocessing, queue and answers as `model.serve`; the network runs in torch, in eval and inference mode,
with all cores for a single photograph and one core for each of several, which are not taken together.
The weights are random, since they do not change the time.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

import torch

from model import answer, network, preprocess, serve


class EagerCounter:
    """What `serve.run` asks of a `serve.Counter`, in torch."""

    def __init__(self, cores: int) -> None:
        self.source = SimpleNamespace(model_version="eager")
        self.cores = cores
        self.threads = ThreadPoolExecutor(cores)
        self.network = network.build().eval()
        self.latest: Future[answer.Answer] | None = None

    def submit(self, photograph: bytes) -> Future[answer.Answer]:
        alone = self.latest is None or self.latest.done()
        self.latest = self.threads.submit(self._count, photograph, self.cores if alone else 1)
        return self.latest

    def _count(self, photograph: bytes, cores: int) -> answer.Answer:
        pixels = preprocess.to_array(preprocess.decode(photograph))
        torch.set_num_threads(cores)
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(preprocess.normalise(pixels[None])))
        return answer.answer(answer.probabilities(logits.numpy())[0], self.source.model_version)

    def faults(self) -> list[str]:
        return []


if __name__ == "__main__":
    serve.run(cast(Callable[[int], serve.Counter], EagerCounter), "127.0.0.1")
