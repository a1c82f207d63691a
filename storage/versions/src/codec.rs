//! The pieces that tree and snapshot encodings are made of: LEB128 numbers in their shortest form,
//! and byte strings behind their length. Reading is total: whatever the bytes are, it ends with a
//! value or a reason, and takes no more memory than the bytes themselves.

use helix_protocol::ObjectId;

/// Why bytes cannot be read.
pub(crate) type Reason = &'static str;

pub(crate) const CUT: Reason = "it ends too early";

/// Reads from the front of some bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Reason> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err("a number is too large");
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err("a number is not in its shortest form") } else { Ok(value) };
            }
        }
        Err("a number is too long")
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Reason> {
        let length = usize::try_from(self.number()?).map_err(|_| CUT)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(CUT)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self) -> Result<String, Reason> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| "a text is not UTF-8")
    }

    pub(crate) fn id(&mut self) -> Result<ObjectId, Reason> {
        self.array().map(ObjectId)
    }

    pub(crate) fn end(self) -> Result<(), Reason> {
        if self.rest.is_empty() { Ok(()) } else { Err("something follows its end") }
    }
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
