"""The training loop: epochs of steps, each followed by a mask update where one is due, and an evaluation.

This is the procedure of the paper (Sections A.1 and C, Table B.1). `run_loop` begins and ends it, `_train` is the loop.
Everything else hangs on hooks (`east.training.hooks`): checkpoints and files in `east.training.run`, progress and
signals in `east train`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from east.data.batches import Batches
from east.engine import Engine
from east.models.dyrelu import dyrelu_units, retire_dyrelu, set_beta
from east.training.assembly import Training
from east.training.hooks import Ending, Hook, Hooks
from east.training.records import EpochRecord, UpdateRecord
from east.training.step import EpochSums


def run_loop(training: Training, hooks: Sequence[Hook] = (), *, until: int = 0) -> Ending:
    """Train a run from where it is to its end, or to a step.

    Args:
        training: the run; it is changed.
        hooks: called in this order at each moment of the loop.
        until: the step (counted from 1, over the whole training) after which to pause; 0, or a step that is done
            already, trains to the end.

    Returns:
        Why it ended.

    Raises:
        SystemExit: a hook stopped it; what is done is in `training`, which can go on from there.
    """
    attached = Hooks(hooks)
    try:
        attached.on_begin(training)
        ending = _train(training, attached, until)
    except SystemExit:
        attached.on_end(training, "stopped")
        raise
    attached.on_end(training, ending)
    return ending


def _train(training: Training, hooks: Hook, until: int) -> Ending:
    schedule, masks = training.schedule, training.masks
    while not training.is_over:
        hooks.before_epoch(training)
        epoch = training.epoch + 1
        fade_dyrelu(training, epoch)

        for images, labels in training.data.train.epoch(epoch, start=training.sums.steps):
            hooks.before_batch(training)
            step = training.steps_done + 1
            lr = schedule.learning_rate(step)

            # Forward, backward, clip, optimizer step: `TrainingStep` in east/training/step.py. Where growth needs them,
            # gradients of off weights as well; `change_masks` finds them in `weight.grad`.
            loss, correct = training.parts.step(images, labels, lr, step, dense_gradients=masks.needs_gradient(step))
            training.sums.add(loss, correct, len(labels))  # counts the step as done

            # Drop and grow, where the timetable has it.
            update = change_masks(training, step)
            hooks.after_step(training, update)
            if step == until:
                return "paused"

        record = finish_epoch(training, epoch, hooks.before_batch)
        hooks.after_epoch(training, record)
    return "finished" if training.diverged_at_step is None else "diverged"


def fade_dyrelu(training: Training, epoch: int) -> None:
    """Set DyReLU's β for an epoch (DyReLU phasing); at β = 0 its parameters leave network and optimizer.

    A resumed run comes here with parameters that have left, or are frozen, already; then nothing changes.
    """
    if training.spec.phasing is None:
        return
    beta, optimizer = training.schedule.beta(epoch), training.parts.optimizer
    set_beta(training.model, beta)
    if beta == 0:
        removed = retire_dyrelu(training.model)
        optimizer.remove(removed)
        if removed:
            training.parts.step.phase_changed()
    elif training.schedule.freezes_dyrelu(epoch):
        parameters = [parameter for unit in dyrelu_units(training.model) for parameter in unit.parameters()]
        optimizer.reset(parameters)
        if any(parameter.requires_grad for parameter in parameters):
            for parameter in parameters:
                parameter.requires_grad_(False)
            training.parts.step.phase_changed()


def change_masks(training: Training, step: int) -> UpdateRecord | None:
    """Change the masks after step `step` if an update is due, and record what it did."""
    done = training.masks.update(step, training.parts.state_of)
    if done is None:
        return None
    update, change = done
    training.parts.step.masks_changed()
    return training.note_update(update.kind, step, change)


def finish_epoch(training: Training, epoch: int, before_batch: Callable[[Training], None]) -> EpochRecord:
    """Evaluate the network after the last step of an epoch, record the epoch, and see whether it has diverged."""

    def evaluated(batches: Batches) -> tuple[float, bool]:
        return evaluate(training.parts.engine, training.model, batches, epoch, lambda: before_batch(training))

    data, schedule, sums = training.data, training.schedule, training.sums
    validated, validation_is_finite = (None, True) if data.validation is None else evaluated(data.validation)
    tested, test_is_finite = evaluated(data.test)
    updates = [row for row in training.updates if row.epoch == epoch]
    last = training.updates[-1]
    record = EpochRecord(
        epoch=epoch,
        step=training.steps_done,
        lr=schedule.learning_rate(training.steps_done),
        density=last.density,
        drop_fraction=schedule.drop_fraction(training.steps_done),
        beta=schedule.beta(epoch),
        train_loss=sums.mean_loss,
        train_acc=sums.accuracy,
        val_acc=validated,
        test_acc=tested,
        nonzeros=last.nonzeros,
        mask_updates=len(updates),
        grown=sum(row.grown for row in updates),
        blind_growth=sum(row.blind_growth for row in updates),
        active_zeros=last.active_zeros,
        frozen_layers=last.frozen_layers,
        live_channels=last.live_channels,
        live_weights=last.live_weights,
        dead_branches=last.dead_branches,
    )
    logits_are_finite = test_is_finite and validation_is_finite
    if not (math.isfinite(record.train_loss) and logits_are_finite and is_finite(training.model)):
        training.diverged_at_step = record.step
    training.epochs.append(record)
    training.epoch, training.sums = epoch, EpochSums.begin(sums.loss.device)
    return record


@torch.inference_mode()
def evaluate(
    engine: Engine, model: nn.Module, batches: Batches, epoch: int, before_batch: Callable[[], None] = lambda: None
) -> tuple[float, bool]:
    """Evaluate the network on a data set; the device is waited for once, at the end.

    Whatever happens, the network is left in the mode for training. What `before_batch` raises ends the evaluation.

    Returns:
        The accuracy in percent, and whether all logits are finite; where they are not, the accuracy is no number.
    """
    device = next(model.parameters()).device
    correct, total = torch.zeros((), dtype=torch.int64, device=device), 0
    finite = torch.ones((), dtype=torch.bool, device=device)
    model.eval()
    try:
        for images, labels in batches.epoch(epoch):
            before_batch()
            logits = engine(images)
            correct += (logits.argmax(1) == labels).sum()
            finite &= logits.isfinite().all()
            total += len(labels)
    finally:
        model.train()
    return (100 * int(correct) / total, True) if finite else (math.nan, False)


@torch.no_grad()
def is_finite(model: nn.Module) -> bool:
    """Whether all parameters and statistics of a network are finite numbers."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    # The extremes pass on what is not finite, and need no memory of the tensor's size.
    extremes = [torch.stack(torch.aminmax(tensor)) for tensor in tensors if tensor.numel()]
    return bool(torch.cat(extremes).isfinite().all())
