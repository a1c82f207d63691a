//! What is fed with arbitrary bytes: each parser of what is on disk, with what must hold of it whatever it is given.

use crate::Effort;
use crate::mark_file;
use crate::pack::{Directory, Group, Place, Unpacked};

/// The index's places, and a group: a directory, told how long by the first two bytes, and a frame behind it.
pub fn pack(bytes: &[u8]) {
    if let Ok(place) = Place::decode(bytes) {
        assert_eq!(Place::decode(&place.encode()).ok(), Some(place), "a place means the same when it is written again");
    }
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (directory, frame) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let Ok(directory) = Directory::decode(directory) else { return };
    // What really is that long is not made up from a few bytes.
    if directory.bytes() > 64 << 20 {
        return;
    }
    let members = directory.members();
    if let Ok(group) = Unpacked::decompress(directory, frame) {
        let bytes: usize = (0..members as u64).map(|member| group.member(member).expect("it is in the directory").len()).sum();
        assert_eq!(bytes, group.bytes());
        assert!(group.member(members as u64).is_err());
    }
}

/// The file that says what was acknowledged.
pub fn mark(bytes: &[u8]) {
    mark_file::fuzz(bytes);
}

/// Inputs of [`pack`] that mean something.
pub fn pack_examples() -> Vec<Vec<u8>> {
    let mut directory = Directory::default();
    let members = ["the same again ".repeat(20), String::new(), "the same again and again ".repeat(9)];
    members.iter().for_each(|member| directory.push(member.len() as u64));
    let group = Group::compress(directory, members.concat().as_bytes(), Effort::Idle).expect("a few bytes can be compressed");
    let encoded = group.directory.encode();
    let length = u16::try_from(encoded.len()).expect("three members take few bytes");
    let group = [&length.to_be_bytes()[..], &encoded, &group.frame].concat();
    vec![group, Place::Hot(77).encode(), Place::Packed { group: 300, member: 5 }.encode()]
}
