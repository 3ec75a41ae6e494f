import pytest

from east.analysis.aggregate import Accuracy, SeedValue
from east.analysis.words import listed, p_text, sharing_text
from east.render.names import sentence, table_label
from east.render.numbers import (
    accuracy_text,
    density_text,
    duration,
    fixed,
    plus_minus,
    quantity,
    seeds_note,
    setting_text,
    thousands,
)
from east.render.numbers import (
    signed_or_dash as signed,
)


def accuracy(mean: float | None, std: float | None, *statuses: str) -> Accuracy:
    seeds = [
        SeedValue(
            run=f"r/seed{seed}",
            seed=seed,
            status=status,
            accuracy=1.0 if status == "finished" else None,
            diverged_at_epoch=12 if status == "diverged" else None,
        )
        for seed, status in enumerate(statuses, start=17)
    ]
    return Accuracy(seeds=tuple(seeds), mean=mean, std=std)


def test_differences_have_a_sign_and_zero_has_none():
    assert [signed(value) for value in (2.06, -0.34, 0.04, -0.04, 0.0, None)] == [
        "+2.1",
        "−0.3",
        "0.0",
        "0.0",
        "0.0",
        "–",
    ]
    assert signed(-1.234, 2) == "−1.23"
    assert fixed(-0.001) == "0.00"


def test_p_values_and_shared_devices_in_words():
    assert [p_text(p) for p in (0.0009, 0.001, 0.25)] == ["p < 0.001", "p = 0.001", "p = 0.250"]
    assert [sharing_text(runs) for runs in (None, 1, 2)] == [None, None, "2 trainings a GPU"]


def test_accuracies_have_two_decimals_and_one_seed_has_no_spread():
    assert plus_minus(85.2149, 0.1851) == "85.21 ± 0.19"
    assert plus_minus(85.2149, None) == "85.21"
    assert plus_minus(None, None) == "n.a."


@pytest.mark.parametrize(
    ("value", "text", "note"),
    [
        (accuracy(85.0, 0.5, "finished", "finished"), "85.00 ± 0.50", None),
        (accuracy(85.0, None, "finished"), "85.00", None),
        (accuracy(85.0, None, "finished", "missing", "missing"), "85.00 (1 of 3 seeds)", "Seeds 18, 19 not run."),
        (
            accuracy(85.0, 0.5, "finished", "diverged", "finished"),
            "85.00 ± 0.50 (2 of 3 seeds)",
            "Seed 18 diverged in epoch 12.",
        ),
        (accuracy(None, None, "diverged"), "n.a. (diverged)", "Seed 17 diverged in epoch 12."),
        (accuracy(None, None, "missing"), "n.a. (not run)", "Seed 17 not run."),
        (
            accuracy(None, None, "diverged", "missing"),
            "n.a. (1 diverged, 1 not run)",
            "Seed 17 diverged in epoch 12; seed 18 not run.",
        ),
        (accuracy(None, None), "n.a.", None),
    ],
)
def test_missing_and_diverged_seeds_are_told(value, text, note):
    assert accuracy_text(value) == text
    assert seeds_note(value) == note


def test_densities_settings_and_counts():
    assert [density_text(value) for value in (0.0005, 0.00001, 1.0)] == ["0.0005", "0.00001", "1"]
    assert [setting_text(value, "×") for value in (2.0, 1.5, None)] == ["2×", "1.5×", "–"]
    assert (thousands(21328192), thousands(999), thousands(None)) == ("21\u202f328\u202f192", "999", "–")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.16e9, "1.16 G"),
        (999.6e6, "1.00 G"),
        (14.44e6, "14.4 M"),
        (999, "999"),
        (1.0, "1.00"),
        (999.9, "1.00 k"),
        (0.2041, "0.204"),
        (-0.5, "−0.5"),
        (0, "0"),
        (None, "–"),
    ],
)
def test_quantities_have_three_digits(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.5, "1 min"),
        (59.6, "1 min"),
        (3599, "1 h 00 min"),
        (11100, "3 h 05 min"),
        (172740, "47 h 59 min"),
        (172800, "2 d 0 h"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_names():
    assert [table_label(name) for name in ("table2", "tableB1", "tablemethods")] == ["Table 2", "Table B.1", None]
    assert [sentence(text) for text in ("", "a", "A!", "why?", "b.")] == ["", "A.", "A!", "Why?", "B."]
    assert [listed(text) for text in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
