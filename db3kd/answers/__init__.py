"""The teacher's answers as training data.

Answers, batches of them and of new images that proxies label, the choice of the images to query
next, and soft labels from the distances between answered images.
"""

from db3kd.answers.answers import Answers, augmentable_images
from db3kd.answers.batches import AnsweredBatches, ProxyTaughtBatches

__all__ = [
    "AnsweredBatches",
    "Answers",
    "ProxyTaughtBatches",
    "augmentable_images",
]
