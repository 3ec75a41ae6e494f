import logging
import multiprocessing
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import get_context, resource_tracker

import pytest

from east.cost.worker import interrupts_wait, workers
from east.log import Lines


@pytest.fixture
def handler():
    """A handler of SIGINT for the time of a test, as every program has unless it was started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def start_methods():
    """Those that are used; the server of forks, which lives as long as the tests do, as it is set up elsewhere."""
    server = get_context("forkserver")
    server.set_forkserver_preload(["east.cost.measure"])
    return pytest.mark.parametrize("context", [get_context("spawn"), server], ids=["spawn", "forkserver"])


def test_ctrl_c_waits_to_the_end_of_the_block(handler):
    reached = []

    def block():
        with interrupts_wait():
            ctrl_c()
            reached.append("its end")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_ignored_ctrl_c_stays_ignored(handler):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_wait():
        ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@start_methods()
@pytest.mark.parametrize("starting", [True, False], ids=["starting", "working"])
def test_processes_end_in_silence_with_the_one_they_work_for(capfd, handler, context, starting):
    futures = []

    def interrupted_work():
        with workers(1, context) as processes:
            with interrupts_wait() if starting else nullcontext():
                futures.append(processes.submit(os.getpid))
                if starting:
                    ctrl_c()
            futures[0].result()
            futures.append(processes.submit(time.sleep, 300))
            ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        interrupted_work()
    assert len(futures) == (1 if starting else 2)
    assert all(future.done() for future in futures)
    assert not multiprocessing.active_children()
    assert capfd.readouterr() == ("", "")


@start_methods()
def test_processes_end_at_a_ctrl_c_of_their_own(capfd, context):
    with workers(1, context) as processes:
        future = processes.submit(os.getpid)
        os.kill(future.result(), signal.SIGINT)
        with pytest.raises(BrokenProcessPool):
            processes.submit(time.sleep, 300).result()
    assert capfd.readouterr() == ("", "")


def handlers():
    return [type(handler) for handler in logging.getLogger("east").handlers]


def test_processes_log_as_the_command_does():
    with workers(1, get_context("forkserver")) as processes:
        assert processes.submit(handlers).result() == [Lines]


def of_ctrl_c():
    return signal.getsignal(signal.SIGINT), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("chosen", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_reaches_a_process_that_was_started_while_it_waited_unless_it_is_ignored(handler, chosen):
    resource_tracker.ensure_running()  # it would let Ctrl-C through in this process as well
    if chosen is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with workers(1, get_context("spawn")) as processes:
        assert processes.submit(of_ctrl_c).result() == (chosen, False)
