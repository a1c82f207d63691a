//! Rows of the git map: which object of ours is which git object.
//!
//! A segment is one object of the store, read in place:
//!
//! ```text
//! "HGM" 0x01                      magic and version
//! 4 bytes, little endian          how many rows follow, n
//! n × 20 bytes                    git ids, strictly ascending
//! n × 32 bytes                    our ids, row by row
//! n × 1 byte                      0 commit, 1 tree, 2 blob, 3 tag
//! n × 4 bytes, little endian      where in the heap the row's extra bytes are, or 0xffffffff
//! n × 4 bytes, little endian      rows, ascending by our id
//! heap                            per row with extra bytes: number, bytes
//! ```

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::objs::Kind;
use helix_objects::NewObject;
use helix_protocol::ObjectId;

use super::tree_text::ID_BYTES;
use crate::VersionError;
use crate::codec::{Reader, Reason, put_bytes};

const MAGIC: [u8; 4] = *b"HGM\x01";
const NO_EXTRA: u32 = u32::MAX;
const HEADER: usize = 8;
const PER_ROW: usize = ID_BYTES + 32 + 1 + 4 + 4;

/// One git object that cannot be told from ours alone, or that the next import asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) git: GitId,
    pub(super) ours: ObjectId,
    pub(super) kind: Kind,
    pub(super) extra: Option<Bytes>,
}

impl Row {
    /// About how many bytes it takes in a segment.
    pub(super) fn weight(&self) -> usize {
        PER_ROW + self.extra.as_ref().map_or(0, |extra| extra.len() + 4)
    }
}

/// Rows as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    bytes: Bytes,
    rows: usize,
}

impl Segment {
    /// Of several rows of one git id the first is taken.
    pub(super) fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_by_key(|row| row.git);
        rows.dedup_by(|later, first| later.git == first.git);
        let mut by_ours: Vec<u32> = (0..rows.len() as u32).collect();
        by_ours.sort_unstable_by_key(|row| rows[*row as usize].ours);
        let (mut heap, mut places) = (Vec::new(), Vec::with_capacity(rows.len()));
        for row in &rows {
            places.push(row.extra.as_ref().map_or(NO_EXTRA, |_| heap.len() as u32));
            if let Some(extra) = &row.extra {
                put_bytes(&mut heap, extra);
            }
        }
        let mut out = Vec::with_capacity(HEADER + rows.len() * PER_ROW + heap.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        rows.iter().for_each(|row| out.extend_from_slice(row.git.as_slice()));
        rows.iter().for_each(|row| out.extend_from_slice(&row.ours.0));
        out.extend(rows.iter().map(|row| kind_byte(row.kind)));
        places.iter().chain(&by_ours).for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(&heap);
        Self { bytes: Bytes::from(out), rows: rows.len() }
    }

    /// As the store has it. `id` is only for the error.
    pub(super) fn decode(id: ObjectId, bytes: Bytes) -> Result<Self, VersionError> {
        let rows = check(&bytes).map_err(|reason| VersionError::Damaged { id, expected: "git map", reason })?;
        Ok(Self { bytes, rows })
    }

    pub(super) fn encode(&self) -> NewObject {
        NewObject::new(self.bytes.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.rows).map(|row| self.row(row))
    }

    /// The row of a git object.
    pub(super) fn find(&self, git: GitId) -> Option<Row> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low.midpoint(high);
            match self.git(middle).cmp(git.as_slice()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.row(middle)),
            }
        }
        None
    }

    /// The rows of git objects whose ids begin with these lowercase hexadecimal digits, 40 at most.
    pub(super) fn starting_with<'a>(&'a self, digits: &'a str) -> impl Iterator<Item = Row> + 'a {
        let lowest = format!("{digits:0<40}");
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low.midpoint(high);
            if self.hexadecimal(middle) < lowest { low = middle + 1 } else { high = middle }
        }
        (low..self.rows).take_while(move |row| self.hexadecimal(*row).starts_with(digits)).map(|row| self.row(row))
    }

    fn hexadecimal(&self, row: usize) -> String {
        GitId::Sha1(self.git(row).try_into().expect("an id has 20 bytes")).to_string()
    }

    /// The rows of an object of ours.
    pub(super) fn find_ours(&self, ours: ObjectId) -> impl Iterator<Item = Row> + '_ {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low.midpoint(high);
            if self.ours(self.by_ours(middle)) < ours.0.as_slice() { low = middle + 1 } else { high = middle }
        }
        (low..self.rows).map(|place| self.by_ours(place)).take_while(move |row| self.ours(*row) == ours.0).map(|row| self.row(row))
    }

    fn git(&self, row: usize) -> &[u8] {
        &self.bytes[HEADER + row * ID_BYTES..][..ID_BYTES]
    }

    fn ours(&self, row: usize) -> &[u8] {
        &self.bytes[HEADER + self.rows * ID_BYTES + row * 32..][..32]
    }

    fn by_ours(&self, place: usize) -> usize {
        self.number(HEADER + self.rows * (PER_ROW - 4) + place * 4) as usize
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..][..4].try_into().expect("the slice has four bytes"))
    }

    fn row(&self, row: usize) -> Row {
        let place = self.number(HEADER + self.rows * (PER_ROW - 8) + row * 4);
        let extra = (place != NO_EXTRA).then(|| {
            let heap = &self.bytes[HEADER + self.rows * PER_ROW..];
            let extra = Reader::new(&heap[place as usize..]).bytes().expect("it was read when the segment was checked");
            self.bytes.slice_ref(extra)
        });
        Row {
            git: GitId::Sha1(self.git(row).try_into().expect("an id has 20 bytes")),
            ours: ObjectId(self.ours(row).try_into().expect("an id has 32 bytes")),
            kind: byte_kind(self.bytes[HEADER + self.rows * (ID_BYTES + 32) + row])
                .expect("it was read when the segment was checked"),
            extra,
        }
    }
}

/// Looks at everything once, so that no later look can fail. Returns how many rows there are.
fn check(bytes: &Bytes) -> Result<usize, Reason> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>()? != MAGIC {
        return Err("it does not start as a git map of this version");
    }
    let rows = u32::from_le_bytes(reader.array()?) as usize;
    if rows > reader.remaining() / PER_ROW {
        return Err("it has fewer rows than it says");
    }
    let segment = Segment { bytes: bytes.clone(), rows };
    let heap = &bytes[HEADER + rows * PER_ROW..];
    for row in 0..rows {
        if row > 0 && segment.git(row - 1) >= segment.git(row) {
            return Err("its rows are not in order");
        }
        byte_kind(bytes[HEADER + rows * (ID_BYTES + 32) + row]).ok_or("a row is of no known kind")?;
        let place = segment.number(HEADER + rows * (PER_ROW - 8) + row * 4);
        if place != NO_EXTRA {
            Reader::new(heap.get(place as usize..).ok_or("a row's bytes are not there")?).bytes()?;
        }
        if segment.by_ours(row) >= rows {
            return Err("its second order names a row that is not there");
        }
    }
    Ok(rows)
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Commit => 0,
        Kind::Tree => 1,
        Kind::Blob => 2,
        Kind::Tag => 3,
    }
}

fn byte_kind(byte: u8) -> Option<Kind> {
    Some(match byte {
        0 => Kind::Commit,
        1 => Kind::Tree,
        2 => Kind::Blob,
        3 => Kind::Tag,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gix::ObjectId as GitId;
    use gix::objs::Kind;
    use helix_objects::hash;
    use proptest::prelude::*;

    use super::{Row, Segment};

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let kind = prop::sample::select(vec![Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag]);
        let extra = prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
        let row = (any::<[u8; 20]>(), 0..20_u8, kind, extra).prop_map(|(git, ours, kind, extra)| Row {
            git: GitId::Sha1(git),
            ours: hash(&[ours]),
            kind,
            extra,
        });
        prop::collection::vec(row, 0..30)
    }

    proptest! {
        #[test]
        fn every_row_is_found_from_both_sides(rows in rows(), stranger in any::<[u8; 20]>()) {
            let made = Segment::new(rows.clone());
            let segment = Segment::decode(hash(b""), made.encode().bytes().clone()).unwrap();
            prop_assert_eq!(&segment, &made);
            for row in &rows {
                prop_assert_eq!(segment.find(row.git), rows.iter().find(|other| other.git == row.git).cloned());
                let mut of_ours: Vec<Row> = segment.find_ours(row.ours).collect();
                of_ours.sort_by_key(|row| row.git);
                prop_assert_eq!(of_ours, segment.rows().filter(|other| other.ours == row.ours).collect::<Vec<_>>());
            }
            for digits in rows.iter().flat_map(|row| [4, 7, 40].map(|digits| row.git.to_string()[..digits].to_owned())) {
                let found: Vec<Row> = segment.starting_with(&digits).collect();
                let like = segment.rows().filter(|row| row.git.to_string().starts_with(&digits));
                prop_assert_eq!(found, like.collect::<Vec<_>>());
            }
            let stranger = GitId::Sha1(stranger);
            prop_assert_eq!(segment.find(stranger), rows.into_iter().find(|row| row.git == stranger));
        }

        #[test]
        fn a_damaged_segment_is_refused_or_answers(
            rows in rows(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Segment::new(rows.clone()).encode().bytes().to_vec();
            for (place, value) in flips {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(cut.index(bytes.len() * 4) + 1);
            if let Ok(segment) = Segment::decode(hash(b""), Bytes::from(bytes)) {
                prop_assert_eq!(segment.rows().count(), segment.len());
                for row in rows {
                    segment.find(row.git);
                    prop_assert!(segment.find_ours(row.ours).count() <= segment.len());
                }
            }
        }
    }
}
