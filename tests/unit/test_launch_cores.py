"""Threads of a training, so that the whole plan ends soonest; and how they wait."""

import os
import subprocess
import sys

import pytest

from east.errors import EastError
from east.launch.cores import (
    CHOSEN_BY_USERS,
    SPEED_UP_OF_TWO,
    check_threads,
    let_idle_threads_sleep,
    plan_time,
    speed_up,
    threads_per_run,
)


@pytest.mark.parametrize(
    ("of_two", "threads", "expected"),
    [(1.4, 1, 1), (1.4, 2, 1.4), (1.8, 2, 1.8), (1, 8, 1), (2, 8, 8), (4 / 3, 10**9, 2)],
    ids=["one", "two, sparse", "two, dense", "nothing is divided", "everything is divided", "half is divided"],
)
def test_the_speed_up_is_amdahls_law_through_its_value_for_two_threads(of_two, threads, expected):
    assert speed_up(threads, of_two) == pytest.approx(expected)


def test_a_plan_takes_as_many_rounds_as_it_needs():
    assert plan_time(runs=7, at_once=3, threads=1, of_two=1.4) == 3
    assert plan_time(runs=7, at_once=7, threads=2, of_two=1.4) == pytest.approx(1 / 1.4)


def test_the_choice_is_the_best_of_all():
    for runs in range(1, 40):
        for cores in range(1, 17):
            for at_most in (None, 1, 3, 8):
                for of_two in SPEED_UP_OF_TWO.values():
                    chosen = threads_per_run(runs, cores, at_most=at_most, of_two=of_two)
                    times = {
                        threads: plan_time(runs, min(cores // threads, at_most or cores), threads, of_two)
                        for threads in range(1, cores + 1)
                    }
                    assert times[chosen] == min(times.values())


def test_threads_that_do_not_help_are_not_given():
    assert threads_per_run(8, 8, of_two=1.0) == 1
    assert threads_per_run(9, 16) == 1  # two rounds with two threads each would take 2 / 1.4


def test_of_equal_times_the_one_with_fewer_runs_at_once_is_taken():
    assert threads_per_run(8, 4, of_two=2.0) == 4


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_threads_that_no_machine_of_so_many_cores_can_run_are_refused(cores):
    most = max(64, 8 * cores)
    assert check_threads(most, cores) == most
    with pytest.raises(EastError, match=f"{most + 1} threads .* at most {most}"):
        check_threads(most + 1, cores)


# How threads without work wait


def test_threads_sleep_soon():
    environment = {"PATH": "/bin"}
    let_idle_threads_sleep(environment)
    assert environment == {"PATH": "/bin", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize("name", CHOSEN_BY_USERS)
def test_what_the_user_has_chosen_stays(name):
    let_idle_threads_sleep(environment := {name: "any"})
    assert environment == {name: "any"}


def test_the_command_says_so_before_it_imports_pytorch():
    """By an import hook: PyTorch's OpenMP runtime reads the environment when it is loaded."""
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch':\n"
        "            print(os.environ.get('GOMP_SPINCOUNT'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "sys.argv = ['east', 'prepare', 'digits']\n"
        "from east.cli import main\n"
        "main()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USERS}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1:] == ["1000"], found.stderr
