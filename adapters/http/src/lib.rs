//! The REST and SSE face of a node, over a Unix socket.
