"""The teacher's answers as training data.

Answers, batches of them and of new images that proxies label, the choice of the images to query
next, and soft labels from the distances between answered images.
"""
