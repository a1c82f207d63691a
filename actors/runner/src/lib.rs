//! The worker's side: workspaces, process groups, tools, the fence.
