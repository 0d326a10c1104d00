"""Mixing laws: planted parameters are found again, the optimum is one, bad tables are refused."""

from __future__ import annotations

import csv
import json

import corpora
import numpy as np
import pytest

from dataselect.core.errors import RecipeError
from dataselect.mixing import Law, best_shares, fit_law, fit_mixture, project

SLOPES = np.array([-0.4, 0.9, 0.1])
FLOOR = 1.7


def runs(n_runs, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(3), n_runs)


def write_runs(path, shares, **losses):
    rows = [[i, *row, *(values[i] for values in losses.values())] for i, row in enumerate(shares.tolist())]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["run", "web", "code", "books", *losses], *rows])
    return path


def test_planted_parameters_are_found_again():
    shares = runs(20)
    law = fit_law(shares, FLOOR + np.exp(shares @ SLOPES))
    assert law.floor == pytest.approx(FLOOR, abs=1e-5)
    np.testing.assert_allclose(law.slopes, SLOPES, atol=1e-5)
    assert law.error < 1e-7


def test_noise_and_one_diverged_run_hardly_move_the_law():
    shares = runs(60)
    losses = FLOOR + np.exp(shares @ SLOPES) + np.random.default_rng(1).normal(0, 0.002, 60)
    losses[7] += 3
    law, new = fit_law(shares, losses), runs(200, seed=2)
    assert np.abs(law(new) - FLOOR - np.exp(new @ SLOPES)).max() < 0.02


def test_two_domains_have_their_optimum_in_closed_form():
    # e^(a x) + e^(b (1 - x)): a e^(a x) = b e^(b (1 - x)), so x = (b + ln(b / a)) / (a + b).
    a, b = 2.0, 3.0
    laws = [Law(0.0, np.array([a, 0.0]), 0.0), Law(0.0, np.array([0.0, b]), 0.0)]
    x = (b + np.log(b / a)) / (a + b)
    np.testing.assert_allclose(best_shares(laws, [1, 1], np.ones(2)), [x, 1 - x], atol=1e-7)
    np.testing.assert_allclose(best_shares(laws, [1, 1], np.array([0.3, 1.0])), [0.3, 0.7], atol=1e-9)


def test_one_law_puts_all_on_the_best_domain_as_far_as_its_cap_goes():
    law = Law(FLOOR, SLOPES, 0.0)
    np.testing.assert_allclose(best_shares([law], [1], np.ones(3)), [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(best_shares([law], [1], np.array([0.5, 1, 0.2])), [0.5, 0.3, 0.2], atol=1e-9)


def test_the_optimum_is_no_worse_than_any_point_of_a_grid():
    rng = np.random.default_rng(3)
    laws = [Law(1.0, rng.normal(0, 2, 3), 0.0) for _ in range(4)]
    most, weights = np.array([0.6, 0.5, 0.7]), [1.0, 2.0, 0.5, 1.0]
    best = best_shares(laws, weights, most)
    assert best.sum() == pytest.approx(1)
    assert ((best >= 0) & (best <= most + 1e-12)).all()
    grid = rng.dirichlet(np.ones(3), 20_000)
    grid = grid[(grid <= most).all(axis=1)]
    values = sum(w * law(grid) for w, law in zip(weights, laws, strict=True))
    assert sum(w * law(best) for w, law in zip(weights, laws, strict=True)) <= values.min() + 1e-9


def test_projection_is_the_nearest_point():
    np.testing.assert_allclose(project(np.array([0.9, 0.5, -1.0]), np.ones(3)), [0.7, 0.3, 0], atol=1e-12)
    np.testing.assert_allclose(
        project(np.array([5.0, 0, 0]), np.array([0.5, 1, 1])), [0.5, 0.25, 0.25], atol=1e-12
    )


def test_the_command_prints_shares_for_a_recipe(tmp_path):
    shares = runs(15)
    news = FLOOR + np.exp(shares @ SLOPES)
    law = 2 + np.exp(shares @ np.array([0.5, -0.5, 0.3]))
    path = write_runs(tmp_path / "runs.csv", shares, news=news, law=law)
    args = ("mixture", "fit", path, "--loss", "news", "--loss", "law=2")
    args += ("--supply", "code=20M", "--tokens", "100M", "--epochs", "2")
    code, out, err = corpora.cli(*args, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["shares"]["code"] == pytest.approx(0.4, abs=1e-6)
    assert found["shares"]["web"] == pytest.approx(0.6, abs=1e-6)
    assert found["most"] == {"web": 1.0, "code": 0.4, "books": 1.0}
    text = corpora.cli(*args)[1]
    assert "mixture: {weights: {web: 0.6, code: 0.4, books: 0.0}}" in text


@pytest.mark.parametrize(
    "change, arguments, message",
    [
        ({}, {"losses": {"los": 1.0}}, "no column 'los'; did you mean 'loss'"),
        ({"n": 3}, {}, "3 runs are too few for 3 domains"),
        ({"scale": 2}, {}, "row 1: shares must be from 0 up and sum to 1, not 2"),
        ({"loss": "x"}, {}, "row 1: loss: expected a number, got 'x'"),
        ({"loss": -1.0}, {}, "expected losses above 0"),
        ({"same": True}, {}, "do not tell the domains apart"),
        ({}, {"supply": {"webb": 1}}, "--supply webb: no such domain; did you mean 'web'"),
        ({}, {"supply": {"web": 1}}, "needs --tokens"),
        ({}, {"supply": {"web": 1, "code": 1, "books": 1}, "tokens": 100}, "12.0% of --tokens"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path, change, arguments, message):
    shares = runs(change.get("n", 9)) * change.get("scale", 1)
    if change.get("same"):
        shares = np.tile(shares[:1], (9, 1))
    path = write_runs(tmp_path / "runs.csv", shares, loss=[change.get("loss", 2.0)] * len(shares))
    given = {"losses": {"loss": 1.0}, "supply": {}, "tokens": None, "epochs": 4.0} | arguments
    with pytest.raises(RecipeError, match=message):
        fit_mixture(path, **given)
