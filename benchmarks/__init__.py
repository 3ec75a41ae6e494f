"""Benchmarks: the measured claims of the README, each one command. As in the `east` command, threads without work sleep at once."""

import os

from east.launch.waiting import let_idle_threads_sleep

let_idle_threads_sleep(os.environ)  # before any of them imports PyTorch
