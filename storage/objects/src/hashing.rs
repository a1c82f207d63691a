//! BLAKE3, over all cores where that pays.
//!
//! BLAKE3 is a binary tree over the input. Its upper subtrees are hashed on threads of their own and merged, which gives the same
//! hash: the split is where the function's definition puts it.

use std::io::{ErrorKind, Read};
use std::num::NonZero;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use helix_protocol::ObjectId;

/// Longer input is divided among threads: beneath this, starting them costs more than it saves.
const DIVIDE_FROM: usize = 1 << 20;
/// A thread gets at least about this much.
const SHARE: usize = 512 << 10;

/// The id of some bytes.
pub fn hash(bytes: &[u8]) -> ObjectId {
    if bytes.len() <= DIVIDE_FROM {
        return ObjectId(*blake3::hash(bytes).as_bytes());
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    hash_on(bytes, cores)
}

/// The id of what a reader gives, and its length. Memory does not grow with it.
pub fn hash_reader(mut reader: impl Read) -> std::io::Result<(ObjectId, u64)> {
    let (mut hasher, mut buffer, mut length) = (Hasher::new(), vec![0; 64 << 10], 0);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((ObjectId(*hasher.finalize().as_bytes()), length)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hash_on(bytes: &[u8], threads: usize) -> ObjectId {
    if threads < 2 || bytes.len() < 2 * SHARE {
        return ObjectId(*blake3::hash(bytes).as_bytes());
    }
    let (left, right) = divide(bytes, 0, threads);
    ObjectId(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// The two subtrees of input that begins at `offset` of the whole.
fn divide(bytes: &[u8], offset: u64, threads: usize) -> (ChainingValue, ChainingValue) {
    let (left, right) = bytes.split_at(left_subtree_len(bytes.len() as u64) as usize);
    let right_offset = offset + left.len() as u64;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| subtree(right, right_offset, threads / 2));
        let left = subtree(left, offset, threads - threads / 2);
        (left, other.join().expect("hashing does not panic"))
    })
}

fn subtree(bytes: &[u8], offset: u64, threads: usize) -> ChainingValue {
    if threads < 2 || bytes.len() < 2 * SHARE {
        return Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root();
    }
    let (left, right) = divide(bytes, offset, threads);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use helix_protocol::ObjectId;

    use super::{SHARE, hash, hash_on, hash_reader};

    #[test]
    fn any_number_of_threads_gives_the_same_hash() {
        let bytes: Vec<u8> = (0..5 * SHARE as u64 + 4_321).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        for length in [0, 1, 2 * SHARE - 1, 2 * SHARE, 2 * SHARE + 1, 3 * SHARE + 1_025, 4 * SHARE, bytes.len()] {
            let bytes = &bytes[..length];
            let expected = ObjectId(*blake3::hash(bytes).as_bytes());
            for threads in [1, 2, 3, 4, 8] {
                assert_eq!(hash_on(bytes, threads), expected, "{length} bytes on {threads} threads");
            }
            assert_eq!(hash(bytes), expected);
            assert_eq!(hash_reader(bytes).unwrap(), (expected, length as u64));
        }
    }
}
