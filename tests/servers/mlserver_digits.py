"""A classifier in MLServer that returns the class only and counts the images."""

from linear import Linear
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from prometheus_client import Counter


class Digits(MLModel):
    """A linear classifier."""

    async def load(self) -> bool:
        self._model = Linear(self.settings.parameters.uri)
        self._answered = Counter("images", "images answered")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        labels = self._model.predict(NumpyCodec.decode_input(payload.inputs[0]))
        self._answered.inc(len(labels))
        outputs = [NumpyCodec.encode_output("label", labels)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
