//! How things look: dates, paths, differences, histories. Nothing here changes anything.

pub mod changes;
pub mod date;
pub mod history;
pub mod object;
pub mod path;
