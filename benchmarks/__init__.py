"""Benchmarks: the measured claims of the README, each one command. Threads without work sleep, as in the `east` command."""

import os

from east.launch.waiting import let_idle_threads_sleep

let_idle_threads_sleep(os.environ)  # before any of them imports PyTorch
