//! Worker transports: a local process, the system's ssh, and russh.
