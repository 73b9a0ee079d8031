"""Training: losses, distillation, reconstruction, augmentation by kind of sample, repeatability."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeroskip.pruning import Input, PruningError
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.training import Phase, Precision, Task, accuracy, make_optimizer, outputs, train

SERIES = Input(16, signed=True)


def series(count=64, length=10):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (count,), generator=generator)
    codes = torch.randint(-30, 30, (count, 1, length), generator=generator) + 60 * labels[:, None, None] - 30
    return ImageSet(codes.to(torch.int8), labels)


def images(count=32):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(codes, torch.randint(0, 2, (count,), generator=generator))


def linear(inputs=10, outs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outs))


def fit(model, data, source, phase, **options):
    """Train and return the mean loss of every epoch."""
    losses = []
    train(
        model, data, source, phase, make_optimizer(model.parameters(), phase.lr[0]),
        batch=16, generator=torch.Generator().manual_seed(2), on_epoch=lambda _, loss: losses.append(loss), **options,
    )  # fmt: skip
    return losses


def test_series_are_learned():
    model, data = linear(), series()
    fit(model, data, SERIES, Phase(20, (5e-2, 5e-3), shift=2))
    assert accuracy(model, data, SERIES) > 0.95


def test_distillation_follows_the_teacher_and_not_the_labels():
    data = series()
    teacher = outputs(linear(), data, SERIES) * torch.tensor([1.0, -1.0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 2))
    wrong = ImageSet(data.x, 1 - teacher.argmax(1))
    losses = fit(model, wrong, SERIES, Phase(60, (5e-2, 5e-3), distill=1.0), teacher=teacher)
    assert losses[-1] < 0.05 * losses[0]
    assert accuracy(model, wrong, SERIES) < 0.1


@pytest.mark.parametrize(("share", "temperature"), [(0.3, 4.0), (1.0, 2.0)])
def test_distillation_loss_is_that_of_its_formula(share, temperature):
    model, data = linear(), series(16)
    teacher = torch.randn(16, 2, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        out = model(SERIES.normalize(data.x))
        p, q = (torch.softmax(logits / temperature, 1) for logits in (teacher, out))
        soft = (p * (p.log() - q.log())).sum(1).mean() * temperature**2
        wanted = (1 - share) * F.cross_entropy(out, data.y) + share * soft
    phase = Phase(1, (1e-9, 1e-9), distill=share, temperature=temperature)
    assert fit(model, data, SERIES, phase, teacher=teacher) == [pytest.approx(float(wanted), rel=1e-5)]


def test_distillation_needs_logits_of_every_sample():
    for options in ({}, {"teacher": torch.zeros(3, 2)}, {"teacher": torch.zeros(64, 2), "task": Task.RECONSTRUCT}):
        with pytest.raises(PruningError, match="distill needs a classifier and the dense network's logits of every"):
            fit(linear(), series(), SERIES, Phase(1, (1e-3, 1e-3), distill=0.5), **options)


def test_reconstruction_loss_is_the_squared_error_to_the_sample():
    model, data = linear(10, 10), series(16)
    with torch.no_grad():
        wanted = (model(SERIES.normalize(data.x)) - SERIES.normalize(data.x).flatten(1)).square().mean()
    losses = fit(model, data, SERIES, Phase(1, (1e-9, 1e-9)), task=Task.RECONSTRUCT)
    assert losses == [pytest.approx(float(wanted), rel=1e-5)]
    assert fit(model, data, SERIES, Phase(40, (3e-2, 3e-3)), task=Task.RECONSTRUCT)[-1] < 0.2 * losses[0]


def test_same_random_state_same_weights():
    def weights():
        model = linear(192)
        fit(model, images(), Input(255, (0.5, 0.4, 0.3), 0.25), Phase(2, (1e-2, 1e-3), (1, 2), flip=True, crop=2))
        return model[1].weight

    assert torch.equal(weights(), weights())


def test_bfloat16_is_that_of_the_products_alone():
    data, seen = series(), []

    class Watched(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append((self.weight.dtype, out.dtype))
            return out

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Watched(10, 2))
    losses = fit(model, data, SERIES, Phase(20, (5e-2, 5e-3), precision=Precision.BFLOAT16))
    assert set(seen) == {(torch.float32, torch.bfloat16)}
    assert losses[-1] < 0.5 * losses[0] and accuracy(model, data, SERIES) > 0.95
    assert seen[-1] == (torch.float32, torch.float32)  # judged without
    still = Phase(1, (1e-9, 1e-9))
    exact, rounded = (fit(linear(), data, SERIES, replace(still, precision=p)) for p in Precision)
    assert exact != rounded == [pytest.approx(exact[0], rel=0.02)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"flip": True}, r"flip and crop are for images \(N, C, H, W\), not .*; use shift"),
        ({"crop": 1}, "flip and crop are for images"),
        ({"shift": (1, 1)}, r"shift must be one number for series, not \(1, 1\)"),
    ],
)
def test_changes_of_images_are_not_for_series(options, text):
    with pytest.raises(PruningError, match=text):
        fit(linear(), series(), SERIES, Phase(1, (1e-3, 1e-3), **options))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shift": (1, -1)}, "A phase needs epochs, shift and crop >= 0"),
        ({"crop": -1}, "A phase needs epochs, shift and crop >= 0"),
        ({"distill": 1.5}, "distill must be from 0 to 1 and temperature positive, not 1.5 and 4.0"),
        ({"temperature": 0.0}, "distill must be from 0 to 1 and temperature positive, not 0.0 and 0.0"),
    ],
)
def test_bad_phases(options, text):
    with pytest.raises(PruningError, match=text):
        Phase(1, (1e-3, 1e-3), **options)


def test_a_loss_that_is_not_finite_is_reported():
    with pytest.raises(PruningError, match="The loss became (nan|inf) in epoch 1, step [0-9]+ of "):
        model = linear()
        nn.init.constant_(model[1].weight, torch.inf)
        fit(model, series(), SERIES, Phase(1, (1e-3, 1e-3)))
