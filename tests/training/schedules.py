"""One of each kind of schedule, for runs of a few updates."""

SCHEDULES = [
    {"kind": "linear", "warmup": 0.3},
    {"kind": "tri_stage", "warmup": 0.1, "hold": 0.4, "final_scale": 0.05},
    {"kind": "cyclic", "cycles": 2},
    {"kind": "constant", "warmup": 0.3},
]
