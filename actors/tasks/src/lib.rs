//! The tasks branch: the state machine, the scheduler, and one actor per running task.
