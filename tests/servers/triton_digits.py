"""A classifier in Triton that returns the class only. Triton itself counts the images.

python triton_digits.py WEIGHTS WORKSPACE HTTP_PORT GRPC_PORT METRICS_PORT
"""

import sys

import numpy as np
from linear import Linear
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main(weights: str, workspace: str, http: str, grpc: str, metrics: str) -> None:
    """Serves the classifier until the process is interrupted."""
    model = Linear(weights)

    @batch
    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"label": model.predict(images)}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(http),
        grpc_address="127.0.0.1",
        grpc_port=int(grpc),
        metrics_port=int(metrics),
    )
    with Triton(config=config, workspace=workspace) as triton:
        triton.bind(
            model_name="digits",
            infer_func=predict,
            inputs=[Tensor(name="images", dtype=np.float32, shape=model.shape)],
            outputs=[Tensor(name="label", dtype=np.int64, shape=(1,))],
            config=ModelConfig(max_batch_size=256),
        )
        triton.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
