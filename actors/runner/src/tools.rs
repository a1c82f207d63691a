//! The tools that run in a workspace. Each takes arguments a model wrote, so each refusal is a text
//! the model can act on, and nothing has been done when it is refused.

mod arguments;
#[cfg(test)]
mod cases;
mod edit;
mod find;
mod images;
mod matching;
mod output;
pub(crate) mod patch;
mod read;
mod todo;

pub use arguments::{Arguments, OutputArguments, ShellArguments, StopArguments, parse};
pub use edit::edit;
pub use find::{glob, grep};
pub use output::shorten;
pub use patch::apply_patch;
pub use read::{read, write};
pub use todo::todo;
