"""scikit-learn's digits: 1,797 images of 8x8, there without a download."""

from __future__ import annotations

import numpy as np
import torch

from zeroskip.pruning.data.partition import stratified_order
from zeroskip.pruning.data.sets import ImageSet, Split
from zeroskip.pruning.errors import DataError, PruningError

__all__ = ["load_digits"]


def load_digits(validation: int = 200, test: int = 500, seed: int = 0) -> Split:
    """Load scikit-learn's digits (1,797 images 1x8x8, codes 0..16) in a fixed split with equal shares of each class."""
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError:
        raise DataError(
            "scikit-learn is missing, it holds the digits data set; run: pip install scikit-learn"
        ) from None
    bunch = sklearn_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    if not 0 < validation + test < len(labels):
        raise PruningError(f"validation + test must be between 1 and {len(labels) - 1} images, not {validation + test}")
    order = stratified_order(labels, seed)
    parts = (order[test + validation :], order[test : test + validation], order[:test])
    full = ImageSet(torch.tensor(images).unsqueeze(1), torch.tensor(labels))
    train, held, tested = (full.pick(part) for part in parts)
    provenance = (
        "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository, "
        "CC BY 4.0), as shipped in scikit-learn (BSD-3-Clause). The golden samples hold 16 of its images."
    )
    use = "read after each of several pruning rates, which were then lowered"
    return Split("digits", train, held, tested, provenance, use)
