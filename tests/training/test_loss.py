"""The distillation loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from db3kd.training.loss import KDLoss


@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.5, 20),
    alpha=st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_the_loss_is_the_documented_formula(seed, temperature, alpha):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, generator=generator)
    q = F.softmax(torch.randn(5, 4, generator=generator), 1)
    decisions = torch.randint(0, 4, (5,), generator=generator)
    p = F.softmax(logits.double(), 1)
    p_soft = F.softmax(logits.double() / temperature, 1)
    hard = -p[torch.arange(5), decisions].log()
    soft = (q * (q.double() / p_soft).log()).sum(1)
    expected = alpha * hard + (1 - alpha) * temperature**2 * soft

    def loss(reduction):
        return KDLoss(temperature, alpha, reduction=reduction)(logits, decisions, q).double()

    torch.testing.assert_close(loss("none"), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss("sum"), expected.sum(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss("batchmean"), expected.mean(), rtol=1e-3, atol=1e-3)


def test_the_papers_loss_is_summed_cross_entropy_and_divergence_at_temperature_20():
    logits, q = torch.randn(6, 4), F.softmax(torch.randn(6, 4), 1)
    decisions = torch.randint(0, 4, (6,))
    expected = F.cross_entropy(logits, decisions, reduction="sum") + F.kl_div(
        F.log_softmax(logits / 20, 1), q, reduction="sum"
    )
    torch.testing.assert_close(KDLoss.paper()(logits, decisions, q), expected)


def test_a_student_that_equals_the_soft_label_pays_only_for_the_decision():
    logits = torch.randn(4, 3)
    q = F.softmax(logits / 5, 1)
    decisions = torch.tensor([0, 1, 2, 0])
    loss = KDLoss(temperature=5, alpha=0.25)(logits, decisions, q)
    torch.testing.assert_close(loss, 0.25 * F.cross_entropy(logits, decisions))


def test_zero_weights_in_a_soft_label_are_no_problem():
    logits = torch.randn(2, 3, requires_grad=True)
    q = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    KDLoss()(logits, torch.tensor([0, 2]), q).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
def test_a_row_without_a_soft_label_has_the_gradient_of_cross_entropy(reduction):
    logits = torch.randn(3, 4, requires_grad=True)
    decisions = torch.tensor([2, 1, 0])
    q = F.softmax(torch.randn(3, 4), 1)
    q[1] = 0
    loss = KDLoss(alpha=0.3, reduction=reduction)
    [gradient] = torch.autograd.grad(loss(logits, decisions, q), logits)
    hard = 0.3 * F.cross_entropy(logits[1], decisions[1])
    [expected] = torch.autograd.grad(hard if reduction == "sum" else hard / 3, logits)
    torch.testing.assert_close(gradient[1], expected[1])


@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
def test_unanswered_rows_change_neither_the_loss_nor_the_gradient(reduction):
    loss = KDLoss(reduction=reduction)
    logits = torch.randn(3, 4, requires_grad=True)
    q = F.softmax(torch.randn(3, 4), 1)
    q[1] = math.nan
    decisions = torch.tensor([2, -1, 0])
    value = loss(logits, decisions, q)
    value.backward()
    torch.testing.assert_close(value, loss(logits[[0, 2]], decisions[[0, 2]], q[[0, 2]]))
    assert (logits.grad[1] == 0).all()
    assert logits.grad.isfinite().all()


def test_a_batch_without_answers_has_loss_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    value = KDLoss()(logits, torch.tensor([-1, -1]), torch.full((2, 3), 1 / 3))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_the_loss_of_half_precision_logits_is_computed_in_single_precision():
    logits, q = torch.randn(3, 4), F.softmax(torch.randn(3, 4), 1)
    decisions = torch.tensor([0, 1, 2])
    half = KDLoss()(logits.bfloat16(), decisions, q)
    torch.testing.assert_close(half, KDLoss()(logits.bfloat16().float(), decisions, q))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature: .*got 0"),
        ({"temperature": math.nan}, "temperature: .*got nan"),
        ({"alpha": -0.1}, "alpha: .*got -0.1"),
        ({"alpha": 2}, "alpha: .*pass beta too"),
        ({"beta": -1}, "beta: .*got -1"),
        ({"alpha": 0, "beta": 0}, "at least one weight above 0"),
        ({"reduction": "mean"}, "reduction: expected one of batchmean, sum, none, got 'mean'"),
    ],
)
def test_a_loss_with_bad_arguments_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        KDLoss(**arguments)


def test_a_batch_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"soft_labels: .*\[2, 3\], got \[2, 4\]"):
        KDLoss()(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"decisions: expected shape \[2\], got \[3\]"):
        KDLoss()(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 3))


# Training
