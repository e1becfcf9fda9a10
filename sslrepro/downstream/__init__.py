"""Tasks that score an encoder: frozen, by probes on the weighted sum of its hidden states, and by CTC fine-tuning."""

from sslrepro.downstream.fine_tune import CTCModel, fine_tune
from sslrepro.downstream.registry import TASKS, available
from sslrepro.downstream.scores import Scores, score
from sslrepro.downstream.task import Task, TaskResult, Unavailable

__all__ = ["TASKS", "CTCModel", "Scores", "Task", "TaskResult", "Unavailable", "available", "fine_tune", "score"]
