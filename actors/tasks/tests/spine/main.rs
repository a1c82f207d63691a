//! Tasks end to end, and everything that can get in their way, over records and content in memory.

#[path = "../support/mod.rs"]
mod support;

mod life;
mod money;
mod owners;
mod people;
mod rests;
mod tries;

fn files(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}
