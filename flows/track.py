"""What MLflow has not been told yet: said where it could not be delivered, delivered by ``p2o track``."""

from __future__ import annotations

from pathlib import Path

from flows.display import console
from tasks.comparison import FILE as COMPARISON_FILE
from tasks.comparison import Arm, Comparison, arm_experiment, arm_layout, arms_of, is_done, load_comparison
from tasks.parameters.experiment import load_experiment
from tasks.running.layout import Layout, home
from tasks.tracking.delivery import Delivery
from tasks.tracking.parents import check_project
from tasks.tracking.tracker import Tracker


def say(delivery: Delivery, workspace: Path, *, last: bool = True) -> None:
    """Show a delivery that failed; the last one with the command that delivers what is waiting."""
    if not delivery.ok:
        mend = f"Mend: `p2o track --workspace {workspace}` delivers when it is back." if last else "Training goes on."
        console.print(f"[yellow]{delivery}. {mend}[/]", highlight=False)


def log_arm(root: Path, comparison: Comparison, arm: Arm, *, patient: bool = False) -> Delivery:
    """Tell MLflow of one arm and seed of the comparison in ``root``."""
    tracker = Tracker(arm_experiment(comparison, arm, home(root)), arm_layout(root, arm), patient=patient)
    return tracker.log_curves({"p2o.comparison": root.name, "p2o.world": arm.world or "recipe"})


def track(root: Path) -> bool:
    """Deliver what the workspace's experiment or comparison has on disk and MLflow lacks. Returns whether MLflow took
    all of it. Raises BadInput where there is neither."""
    if not (root / COMPARISON_FILE).exists():
        experiment = load_experiment(root / "params.yaml")
        check_project(experiment.tracking.project, root)
        deliveries = [Tracker(experiment, Layout(root, experiment.experiment), patient=True).log_finished()]
    else:
        deliveries = _track_comparison(root)
    for delivery in deliveries:
        say(delivery, root)
    if not all(delivery.ok for delivery in deliveries):
        return False
    console.print(f"MLflow: {sum(delivery.logged for delivery in deliveries)} iterations delivered, none is waiting")
    return True


def _track_comparison(root: Path) -> list[Delivery]:
    """In the comparison's order, up to the first arm that MLflow does not take."""
    comparison = load_comparison(root / COMPARISON_FILE)
    check_project(comparison.project, root)
    deliveries: list[Delivery] = []
    for arm in arms_of(comparison):
        if is_done(comparison, arm_experiment(comparison, arm, home(root)), arm_layout(root, arm)):
            deliveries.append(log_arm(root, comparison, arm, patient=True))
            if not deliveries[-1].ok:
                break
    return deliveries
