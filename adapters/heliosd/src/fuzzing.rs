//! What is fed with arbitrary bytes: the parser of what people write, with what must hold of it whatever it is given.

/// A repository's helios.yaml, and lines KEY=VALUE of what `config set` is told. What is taken is what is found again in the file,
/// and a setting that is given or taken away changes no other one.
pub fn settings(bytes: &[u8]) {
    crate::engine::settings::fuzz(bytes);
}
