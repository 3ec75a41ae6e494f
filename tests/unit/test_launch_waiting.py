"""That threads without work sleep, and do not keep cores from other processes."""

import os
import subprocess
import sys

import pytest

from east.launch.waiting import CHOSEN_BY_USERS, let_idle_threads_sleep


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
